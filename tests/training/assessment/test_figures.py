"""Slices with their difference to the rest, and calibration before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keepsight.data.samples import Sample
from keepsight.runtime.outputs.classification import probabilities
from keepsight.tasks.classification import uncalibrated
from keepsight.training.assessment.figures import (
    calibration_figures,
    difference_of_shares,
    slice_figures,
)
from keepsight.training.material import Part


def part(metas: list[dict[str, Any]], groups: NDArray[np.int64] | None = None) -> Part:
    n = len(metas)
    return Part(
        task="classification",
        samples=tuple(
            Sample(f"{place:032x}", f"p{place}", "test", None, f"{place}.png", meta, {"label": "a"})
            for place, meta in enumerate(metas)
        ),
        features=np.zeros((n, 2), np.float32),
        quality=np.tile(np.array([0.5, 120.0, 40.0], np.float32), (n, 1)),
        sizes=np.full((n, 2), 300, np.int64),
        groups=np.arange(n) if groups is None else groups,
    )


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{row['key']}={row['value']}": row for row in rows}


def test_the_weak_camera_stands_out_and_the_other_columns_do_not() -> None:
    found = part([{"camera": "door" if place < 60 else "shelf", "odd": place % 2} for place in range(300)])
    correct = np.array([place % 2 == 0 if place < 60 else place % 15 != 0 for place in range(300)])
    rows = by_name(slice_figures(found, correct))
    door, odd = rows["camera=door"], rows["odd=1"]
    assert door["n"] == 60
    assert door["accuracy"]["value"] == pytest.approx(0.5)
    assert door["difference"]["value"] == pytest.approx(0.5 - correct[60:].mean())
    assert door["difference"]["high"] < -0.2
    assert door["clear"]
    assert rows["camera=shelf"]["clear"]
    assert rows["odd=1"]["n"] == 150
    assert odd["difference"]["low"] < odd["difference"]["value"] < odd["difference"]["high"]


def test_what_all_pictures_share_is_compared_with_nothing() -> None:
    found = part([{"camera": "door"} for _ in range(30)])
    row = by_name(slice_figures(found, np.ones(30, np.bool_)))["camera=door"]
    assert row["difference"] is None
    assert not row["clear"]


def test_pictures_of_one_group_count_as_fewer() -> None:
    metas = [{"camera": "door" if place < 40 else "shelf"} for place in range(80)]
    correct = np.array([place < 40 or place % 8 < 4 for place in range(80)])
    alone = by_name(slice_figures(part(metas), correct))["camera=door"]["difference"]
    grouped = by_name(slice_figures(part(metas, np.arange(80) // 8), correct))["camera=door"]["difference"]
    assert grouped["low"] < alone["low"]


def test_odd_metadata_breaks_nothing() -> None:
    odd: list[Any] = [None, float("nan"), 3, "3", "x", [1], {"a": 1}, True]
    found = part([{"note": odd[place % 8], "7": 7} if place % 3 else {} for place in range(80)])
    names = by_name(slice_figures(found, np.ones(80, np.bool_)))
    assert "note=(none)" in names


def test_the_difference_of_shares_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        first, second = rng.random(60) < 0.7, rng.random(200) < 0.9
        found = difference_of_shares(first, second, np.arange(60), np.arange(200))
        hits += found.low <= -0.2 <= found.high
    assert 0.92 <= hits / 400 <= 0.99


def test_calibration_is_undone_exactly() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 4)) * 3
    labels = (logits + rng.gumbel(size=logits.shape) * 2).argmax(axis=1)
    calibrated = probabilities(logits, temperature=2.0)
    order = np.argsort(-calibrated, axis=1)
    said = [
        {"confidence": row[best[0]], "alternatives": [{"confidence": row[place]} for place in best[1:]]}
        for row, best in zip(calibrated, order, strict=True)
    ]
    before = np.array([uncalibrated(each, temperature=2.0) for each in said])
    np.testing.assert_allclose(before, probabilities(logits, temperature=1.0).max(axis=1), atol=1e-9)
    found = calibration_figures(calibrated.max(axis=1), order[:, 0] == labels, uncalibrated=before, temperature=2.0)
    assert found["temperature"] == 2.0
    assert found["after"]["ece"] < 0.05 < found["before"]["ece"]
    assert sum(row["n"] for row in found["before"]["bins"]) == 4000


def test_no_pictures_no_calibration() -> None:
    found = calibration_figures(np.zeros(0), np.zeros(0, np.bool_), uncalibrated=np.zeros(0), temperature=1.5)
    assert found["before"] == found["after"] == {"ece": None, "bins": []}
    nothing = calibration_figures(np.zeros(0), np.zeros(0, np.bool_), uncalibrated=None, temperature=1.0)
    assert nothing["before"] is None
