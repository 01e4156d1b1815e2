"""The threshold keeps its promise on strangers, and confidence grows with distance and lead."""

from __future__ import annotations

import numpy as np
import pytest

from keepsight.runtime.outputs.recognition.calibration import Calibration


def test_strangers_are_accepted_as_often_as_promised() -> None:
    random = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        held_out = np.sort(random.normal(0.3, 0.1, 199).astype(np.float32))
        threshold = Calibration(0.05, 0.5, strangers=held_out, others=20).threshold(21)
        shares.append((random.normal(0.3, 0.1, 2000) >= threshold).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.01)
    assert np.mean(shares) <= 0.055


def test_a_larger_gallery_asks_for_more() -> None:
    random = np.random.default_rng(1)
    others = 10
    held_out = random.normal(0.2, 0.1, (40_000, others)).max(axis=1)
    calibration = Calibration(0.05, 0.9, strangers=np.sort(held_out.astype(np.float32)), others=others)
    assert calibration.threshold(10) < calibration.threshold(40) < calibration.threshold(200)
    fresh = random.normal(0.2, 0.1, (40_000, 40)).max(axis=1)
    assert (fresh >= calibration.threshold(40)).mean() == pytest.approx(0.05, abs=0.008)


def test_few_strangers_leave_the_usual_threshold() -> None:
    few = np.array([0.1, 0.2], np.float32)
    assert Calibration(0.01, 0.45).threshold(5) == 0.45
    assert Calibration(0.01, 0.45, strangers=few, others=3).threshold(4) == 0.45
    # None of them is accepted, whatever is usual.
    assert Calibration(0.01, 0.15, strangers=few, others=3).threshold(4) == pytest.approx(0.2)


def test_confidence_follows_distance_and_lead() -> None:
    calibration = Calibration(0.01, 0.45)
    sure = [calibration.sure_of(value, second=0.2, threshold=0.45) for value in (0.46, 0.6, 0.8)]
    assert sure == sorted(sure)
    assert calibration.sure_of(0.6, second=0.58, threshold=0.45) < calibration.sure_of(0.6, second=0.1, threshold=0.45)
    unsure = [calibration.sure_of(value, second=0.1, threshold=0.45) for value in (0.44, 0.3, 0.1)]
    assert unsure == sorted(unsure)
    assert all(0 < value < 1 for value in (*sure, *unsure))


def test_it_survives_as_arrays() -> None:
    made = Calibration(0.02, 0.4, np.array([0.1, 0.3], np.float32), 7, known=(1.0, 2.0, 3.0), unknown=(4.0, 5.0))
    again = Calibration.of_arrays(made.arrays())
    assert again.arrays().keys() == made.arrays().keys()
    assert all((again.arrays()[name] == array).all() for name, array in made.arrays().items())
    many = Calibration(0.02, 0.4, np.sort(np.random.default_rng(0).random(50_000).astype(np.float32)), 7)
    kept = Calibration.of_arrays(many.arrays())
    assert len(kept.strangers) == 20_000
    assert kept.threshold(8) == pytest.approx(many.threshold(8), abs=1e-3)
