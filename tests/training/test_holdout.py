"""When a given val split judges."""

from __future__ import annotations

import numpy as np

from keepsight.training.holdout import LEAST_PICTURES, judge, shows_enough


def test_a_val_split_judges_where_it_is_large_and_shows_half_of_the_classes() -> None:
    labels = (np.arange(1000) % 10).astype(np.int64)
    large = np.arange(1000) < LEAST_PICTURES
    judging = judge(labels, large)
    assert judging is not None and np.array_equal(judging, large)
    assert judge(labels, np.arange(1000) < LEAST_PICTURES - 1) is None
    assert judge(labels, (labels < 4) & (np.arange(1000) < 900)) is None, "four classes of ten"
    assert judge(labels, (labels < 5) & (np.arange(1000) < 900)) is not None


def test_a_class_that_only_val_has_cannot_be_judged() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2], np.int64)
    assert shows_enough(labels, np.array([1, 0, 1, 0, 1, 0], np.bool_))
    assert not shows_enough(labels, np.array([1, 0, 1, 0, 1, 1], np.bool_))
    assert not shows_enough(labels, np.zeros(6, np.bool_))
