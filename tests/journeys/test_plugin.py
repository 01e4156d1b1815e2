"""A task from outside goes the whole way: import, train, evaluate, gate, deploy, serve, log, review, retrain."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.journeys.place import Server, Workplace, wait_for

pytestmark = pytest.mark.journey

SETTINGS = """projects:
  shop:
    task: counting
    evaluation: {robustness_pictures: 12}
    gate: {margin: 0.3}
    review: {audit_share: 1.0}
    retrain: {cooldown_minutes: 0, new_labels: 0}
"""


def dots(count: int, seed: int) -> bytes:
    """A picture with so many dark dots."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(205, 225, (224, 224, 3), dtype=np.uint8))
    pen = ImageDraw.Draw(image)
    for place in rng.permutation(16)[:count]:
        x, y = (28 + 56 * int(step) + int(rng.integers(-6, 7)) for step in (place % 4, place // 4))
        pen.ellipse((x - 18, y - 18, x + 18, y + 18), fill=(30, 40, 60))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return file.getvalue()


@pytest.fixture(scope="module")
def counting_place(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], counting: Path) -> Workplace:
    """A workspace that counts, with a live model trained on a table of 140 pictures."""
    root = tmp_path_factory.mktemp("plugin") / "work"
    root.mkdir()
    (root / "keepsight.yaml").write_text(SETTINGS)
    path = os.pathsep.join(filter(None, (environment.get("PYTHONPATH", ""), str(counting))))
    made = Workplace(root, {**environment, "PYTHONPATH": path})
    with (root / "counts.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label"])
        for n in range(140):
            (root / f"{n}.jpg").write_bytes(dots(n % 7, n))
            table.writerow([f"{n}.jpg", "many" if n == 139 else n % 7])
    told = made.json("data", "import", "shop", "counts.csv", check=False)
    assert told["added"] == 139
    assert [item["code"] for item in told["rejected"]] == ["annotation_invalid"], "one bad line costs one picture"
    made.run("train", "shop")
    return made


def test_it_is_trained_judged_and_released(counting_place: Workplace) -> None:
    (model,) = counting_place.json("models", "list", "shop")
    assert model["status"] == "champion"
    shown = counting_place.json("models", "show", "shop", "1")
    assert shown["metrics"]["near"]["value"] > 0.6
    assert shown["metrics"]["right"]["n"] > 10
    (counting_place.root / "five.jpg").write_bytes(dots(5, 5000))
    (answer,) = counting_place.json("predict", "shop", "five.jpg")["predictions"]
    assert abs(answer["count"] - 5) <= 1
    assert [version["samples"] for version in counting_place.json("data", "versions", "shop")] == [139]


def test_it_is_served_reviewed_and_trained_again(counting_place: Workplace) -> None:
    truth: dict[str, int] = {}
    with counting_place.up() as server:
        for n in range(12):
            answer = server.predict(dots(n % 7, 9000 + n))
            assert answer["label"] == str(answer["count"])
            truth[answer["prediction_id"]] = n % 7
        item = wait_for(lambda: server.get("review/next")["item"], "a picture to review")
        page = server.client.get("/shop/review", headers={"accept": "text/html"}).text
        assert "How many?" in page
        assert "/static/widgets/counting.js?v=" in page
        script = server.client.get("/static/widgets/counting.js")
        assert script.is_success
        refused = server.client.post(f"/v1/shop/review/{item['event_id']}", json={"value": {"count": "many"}})
        assert refused.status_code == 422
        assert refused.json()["error"]["code"] == "annotation_invalid"
        assert answer_all(server, truth) == 12
        accuracy = server.get("monitor")["accuracy"]
        assert accuracy["value"] is not None, accuracy
        for path in ("/shop/data", "/shop/models", "/shop/models/1", "/shop/monitor", "/", "/shop/runs"):
            assert server.client.get(path, headers={"accept": "text/html"}).status_code == 200, path
        run = server.post("retrain", reason="new counts")["id"]
        done = wait_for(lambda: finished(server, run), "the end of the run", timeout_s=120)
        assert done["status"] == "done", done
        assert done["dataset_version"] == 2
        assert "test" in {check["name"] for check in done["gate"]["checks"]}


def answer_all(server: Server, truth: dict[str, int]) -> int:
    # Pictures come into the queue one after the other, so it may be empty in between.
    for _ in truth:
        item = wait_for(lambda: server.get("review/next")["item"], "a picture to review")
        server.post(f"review/{item['event_id']}", value={"count": truth[item["event_id"]]})
    assert server.get("review/next")["item"] is None
    return len(truth)


def finished(server: Server, run_id: str) -> Any:
    run = server.get(f"runs/{run_id}")
    return run if run["status"] not in {"queued", "running"} else None
