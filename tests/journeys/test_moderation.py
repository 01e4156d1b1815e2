"""A policy with two flags, from a table to a retrained model, over the real command line and server."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from keepsight.cli.demo_pictures import DemoPicture
from tests.journeys.place import SETTINGS, Server, Workplace, wait_for

pytestmark = pytest.mark.journey

FLAGS = {"one": ["straight"], "four": ["closed", "straight"], "seven": []}


@pytest.fixture(scope="module")
def policy(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], pictures: list[DemoPicture]
) -> Workplace:
    """A workspace with a live model for handwritten digits that are closed, or straight, or neither."""
    root = tmp_path_factory.mktemp("policy") / "work"
    root.mkdir()
    (root / "keepsight.yaml").write_text(SETTINGS.replace("classification", "moderation"))
    with (root / "policy.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label"])
        for picture in pictures[:150]:
            (root / picture.name).parent.mkdir(parents=True, exist_ok=True)
            (root / picture.name).write_bytes(picture.read())
            table.writerow([picture.name, "|".join(FLAGS[picture.label]) or "allowed"])
    made = Workplace(root, environment)
    made.run("data", "import", "shop", "policy.csv")
    made.run("train", "shop")
    return made


def test_flags_are_learned_with_a_threshold_each(policy: Workplace) -> None:
    shown = policy.json("models", "show", "shop", "1")
    assert shown["status"] == "champion"
    metrics = shown["metrics"]
    assert set(metrics["per_class"]) == {"closed", "straight"}
    assert metrics["recall_at_5_percent_false_alarms"]["value"] > 0.8
    assert metrics["blocked"]["n"] > 0
    versions = policy.json("data", "versions", "shop")
    assert [version["samples"] for version in versions] == [150]


def test_it_blocks_is_corrected_and_learns(policy: Workplace, pictures: list[DemoPicture]) -> None:
    truth: dict[str, list[str]] = {}
    with policy.up() as server:
        right = 0
        for picture in pictures[150:190]:
            answer = server.predict(picture.read())
            truth[answer["prediction_id"]] = FLAGS[picture.label]
            flags = [flag["label"] for flag in answer["flags"]]
            assert answer["action"] == ("block" if flags else "allow")
            right += flags == FLAGS[picture.label]
        assert right >= 30
        first = next(iter(truth))
        refused = server.client.post("/v1/shop/feedback", json={"prediction_id": first, "value": {"flags": ["strait"]}})
        assert refused.status_code == 422
        server.client.post(
            "/v1/shop/feedback", json={"prediction_id": first, "value": {"flags": truth[first]}}
        ).raise_for_status()
        wait_for(lambda: server.get("review/next")["item"], "a picture to review")
        answered = 0
        while item := server.get("review/next")["item"]:
            server.post(f"review/{item['event_id']}", value={"flags": truth[item["event_id"]]})
            answered += 1
        assert answered > 0
        for path in ("data", "models/1", "monitor", "review"):
            page = server.client.get(f"/shop/{path}", headers={"accept": "text/html"})
            assert page.status_code == 200, path
            assert "veiled" in page.text
        run = server.post("retrain", reason="new labels")["id"]
        done = wait_for(lambda: finished(server, run), "the end of the run", timeout_s=180)
        assert done["status"] == "done", done
        assert done["dataset_version"] == 2


def test_a_wrong_line_costs_one_picture(policy: Workplace, pictures: list[DemoPicture]) -> None:
    wrong: list[tuple[str, str]] = [("closed|", "annotation_invalid"), ("allowed|closed", "annotation_invalid")]
    path = Path(policy.root / "more.csv")
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label"])
        for picture, (label, _) in zip(pictures[190:], wrong, strict=False):
            (policy.root / picture.name).parent.mkdir(parents=True, exist_ok=True)
            (policy.root / picture.name).write_bytes(picture.read())
            table.writerow([picture.name, label])
    told = policy.json("data", "import", "shop", "more.csv", check=False)
    assert [item["code"] for item in told["rejected"]] == [code for _, code in wrong]


def finished(server: Server, run_id: str) -> Any:
    run = server.get(f"runs/{run_id}")
    return run if run["status"] not in {"queued", "running"} else None
