"""Seconds from the last new label to the new model answering, against training from nothing.

A workspace learns the pictures of a folder with `train.csv`, `val.csv` and `test.csv` (columns path and class_name),
as the grocery-store set has them; then 200 val pictures are sent to the real server, a script answers the review
queue with their true labels, and the clock runs from the last answer until `predict` names the new model. Training
from nothing is the same run after all index vectors were dropped.

    python bench/retrain.py --data ../shared/data/grocery-store
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

NEW_LABELS = 200
SETTINGS = """projects:
  shop:
    train: {recipe: head}
    review: {audit_share: 1.0}
    gate: {margin: 0.1}
    retrain: {new_labels: 200, cooldown_minutes: 0, on_drift: false, on_accuracy: false}
"""


def main() -> None:
    """Runs the comparison and prints a line of JSON with the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("KEEPSIGHT_TEST_DATA", "../shared/data")) / "grocery-store"
    parser.add_argument("--data", type=Path, default=default)
    options = parser.parse_args()
    data = options.data.resolve()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "keepsight.yaml").write_text(SETTINGS)
        for split in ("train", "test"):
            cli(
                root,
                "data",
                "import",
                "shop",
                str(data / f"{split}.csv"),
                "--label-column",
                "class_name",
                "--split",
                split,
            )
        cli(root, "train", "shop")
        increment_s = add_labels(root, data)
        with sqlite3.connect(root / ".keepsight" / "derived.db") as connection:
            connection.execute("DELETE FROM vector")
        began = time.monotonic()
        cli(root, "train", "shop", "--no-promote")
        nothing_s = time.monotonic() - began
    result = {
        "new_labels": NEW_LABELS,
        "last_label_to_new_model_s": round(increment_s, 1),
        "from_nothing_s": round(nothing_s, 1),
        "ratio": round(nothing_s / increment_s, 1),
    }
    sys.stdout.write(json.dumps(result) + "\n")


def add_labels(root: Path, data: Path) -> float:
    """Serves and labels the new pictures; seconds from the last label to the new model's first answer."""
    with (data / "val.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    step = len(rows) / NEW_LABELS
    chosen = [rows[int(number * step)] for number in range(NEW_LABELS)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "keepsight", "up", "--port", str(port), "--workspace", str(root)]
    with (root / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_ready(client)
            truth = {}
            for row in chosen:
                content = (data / row["path"]).read_bytes()
                answer = checked(client.post("/v1/shop/predict", content=content))
                truth[answer["prediction_id"]] = row["class_name"]
            before = answer["model"]["version"]
            answered = 0
            while answered < NEW_LABELS:
                item = checked(client.get("/v1/shop/review/next"))["item"]
                if item is None:
                    time.sleep(0.05)
                    continue
                body = {"label": truth[item["event_id"]], "new_class": False}
                checked(client.post(f"/v1/shop/review/{item['event_id']}", json=body))
                answered += 1
            began = time.monotonic()
            while checked(client.post("/v1/shop/predict", content=content))["model"]["version"] == before:
                time.sleep(0.1)
            return time.monotonic() - began
    finally:
        server.terminate()
        server.wait(30)


def wait_ready(client: httpx.Client) -> None:
    """Until the server answers."""
    for _ in range(300):
        try:
            if client.get("/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def checked(response: httpx.Response) -> dict[str, Any]:
    """The JSON of an answer that must be a good one."""
    if response.is_error:
        raise SystemExit(response.text)
    body: dict[str, Any] = response.json()
    return body


def cli(root: Path, *arguments: str) -> None:
    """One command that must not fail."""
    command = [sys.executable, "-m", "keepsight", *arguments, "--workspace", str(root), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    main()
