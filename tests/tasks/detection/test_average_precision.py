"""COCO's figures, beside those of its own program."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from keepsight.tasks.detection.average_precision import AveragePrecisions, average_precisions

NAMES = ("a", "b", "c")


def scenes(count: int, *, seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Annotated pictures, and what a middling detector would say: shifted, doubled, missed and invented boxes."""
    rng = np.random.default_rng(seed)
    predictions, values = [], []
    for _ in range(count):
        boxes, found = [], []
        for _ in range(int(rng.integers(0, 9))):
            label = str(rng.choice(NAMES))
            left, top = rng.uniform(0, 300, 2)
            wide, high = rng.choice([10, 24, 60, 130], 2) * rng.uniform(0.8, 1.2, 2)
            boxes.append({"label": label, "box": [left, top, left + wide, top + high]})
            for _ in range(int(rng.choice([0, 1, 1, 2]))):
                moved = np.array(boxes[-1]["box"]) + rng.normal(0, 0.08, 4) * [wide, high, wide, high]
                found.append({"label": label, "box": moved.tolist(), "confidence": round(rng.uniform(0.2, 1), 2)})
        for _ in range(int(rng.integers(0, 4))):
            left, top, wide, high = rng.uniform(5, 200, 4)
            box = [left, top, left + wide, top + high]
            found.append({"label": str(rng.choice(NAMES)), "box": box, "confidence": round(rng.uniform(0, 0.8), 2)})
        # Boxes in the order of their class and corners, as annotations have them.
        values.append({"boxes": sorted(boxes, key=lambda item: (item["label"], item["box"]))})
        predictions.append({"boxes": found[: len(found) // 2], "alternatives": found[len(found) // 2 :]})
    return predictions, values


def coco(predictions: list[Any], values: list[Any]) -> Any:
    COCO = pytest.importorskip("pycocotools.coco").COCO
    COCOeval = pytest.importorskip("pycocotools.cocoeval").COCOeval

    def xywh(box: list[float]) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    annotations: list[Any] = []
    detections: list[Any] = []
    for picture, (prediction, value) in enumerate(zip(predictions, values, strict=True), 1):
        for item in value["boxes"]:
            box = xywh(item["box"])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": picture,
                    "category_id": NAMES.index(item["label"]) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
        detections += [
            {
                "image_id": picture,
                "category_id": NAMES.index(item["label"]) + 1,
                "bbox": xywh(item["box"]),
                "score": item["confidence"],
            }
            for item in (*prediction["boxes"], *prediction["alternatives"])
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number + 1} for number in range(len(values))],
            "categories": [{"id": number + 1, "name": name} for number, name in enumerate(NAMES)],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def measured(predictions: list[Any], values: list[Any], groups: Any = None) -> AveragePrecisions:
    of = np.arange(len(values)) if groups is None else np.asarray(groups)
    return average_precisions(predictions, values, names=NAMES, groups=of, seed=0)


@pytest.mark.parametrize("seed", range(4))
def test_the_figures_are_those_of_coco(seed: int) -> None:
    predictions, values = scenes(60, seed=seed)

    found = measured(predictions, values)

    stats = coco(predictions, values).stats
    ours = [found.map, found.ap50, found.ap75, *(found.by_size[size] for size in ("small", "medium", "large"))]
    assert [figure.value for figure in ours] == pytest.approx(stats[:6].tolist(), abs=1e-9)
    assert 0.1 < stats[0] < 0.9


def test_the_figures_of_a_class_are_those_of_coco() -> None:
    predictions, values = scenes(60)

    found = measured(predictions, values)

    precision = coco(predictions, values).eval["precision"]
    for number, name in enumerate(NAMES):
        assert found.per_class[name]["ap"].value == pytest.approx(precision[:, :, number, 0, 2].mean(), abs=1e-9)
        assert found.per_class[name]["ap50"].value == pytest.approx(precision[0, :, number, 0, 2].mean(), abs=1e-9)


def test_intervals_hold_the_figure_and_are_wider_for_groups() -> None:
    predictions, values = scenes(40)

    alone = measured(predictions, values).map
    grouped = measured(predictions * 4, values * 4, np.tile(np.arange(40), 4)).map
    apart = measured(predictions * 4, values * 4).map

    assert alone.low < (alone.value or 0) < alone.high
    assert grouped.high - grouped.low > 1.5 * (apart.high - apart.low)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    predictions, values = scenes(600, seed=5)
    true = measured(predictions, values).ap50.value or 0.0
    covered = 0
    for start in range(0, 600, 30):
        found = measured(predictions[start : start + 30], values[start : start + 30]).ap50
        covered += found.low <= true <= found.high
    assert covered >= 16  # of 20; a sound 95 % interval has fewer in 1 of 300 runs


def test_nothing_annotated_gives_no_value() -> None:
    predictions, _ = scenes(5)

    found = measured(predictions, [{"boxes": []}] * 5)

    assert found.map.value is None
    assert (found.map.low, found.map.high) == (0.0, 1.0)
    assert measured([], []).ap50.value is None


def test_an_unreadable_picture_counts_as_nothing_found() -> None:
    value = {"boxes": [{"label": "a", "box": [0.0, 0.0, 50.0, 50.0]}]}
    seen = {"boxes": [{**value["boxes"][0], "confidence": 0.9}], "alternatives": []}

    assert measured([seen], [value]).map.value == pytest.approx(1.0)
    # COCO reads precision at 101 recall levels, 51 of which one of two boxes reaches.
    found = average_precisions([seen, None], [value, value], names=("a",), groups=np.arange(2), seed=0)
    assert found.map.value == pytest.approx(51 / 101)
