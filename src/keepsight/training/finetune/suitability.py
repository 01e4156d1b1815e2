"""Which changes pictures bear without showing something else: asked of the data, not of the classes' names.

A linear head on the frozen network, fitted on plain pictures, answers held-out ones plain and changed. Photographs of
things are answered nearly as well in a mirror; digits and text are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from keepsight.training.augment import DOUBTFUL, changed
from keepsight.training.corruptions import Picture

MOST_PICTURES = 128
# A head that never saw mirror images loses a little on them, although they show the same.
TOLERATED = 0.04
_SURE = 1.645
# A class that is answered right plain and hardly ever changed has become another one (arrows to the left and right).
_CLASS_PICTURES = 5
_CLASS_LOSS = 0.7


def unsuitable(
    names: Sequence[str],
    pictures: Sequence[Picture],
    labels: NDArray[np.int64],
    answer: Callable[[list[Picture]], NDArray[np.int64]],
    *,
    seed: int,
) -> tuple[str, ...]:
    """Those of the doubtful changes in ``names`` that turn pictures into something else.

    Args:
        names: Changes that are allowed.
        pictures: Held-out pictures.
        labels: Their classes.
        answer: The classes that the head sees.
        seed: Of the changes.
    """
    doubtful = [name for name in names if name in DOUBTFUL]
    if not doubtful or not pictures:
        return ()
    plain = answer(list(pictures)) == labels
    out = []
    for name in doubtful:
        rng = np.random.default_rng((seed, DOUBTFUL.index(name)))
        right = answer([changed(picture, name, rng) for picture in pictures]) == labels
        if _falls(plain, right) or _class_falls(plain, right, labels):
            out.append(name)
    return tuple(out)


def _falls(plain: NDArray[np.bool_], right: NDArray[np.bool_]) -> bool:
    """Whether accuracy surely falls by more than what is tolerated (lower 95 % bound of the paired difference)."""
    lost = plain.astype(np.float64) - right
    error = float(lost.std()) / math.sqrt(len(lost)) if len(lost) > 1 else math.inf
    return float(lost.mean()) - _SURE * error > TOLERATED


def _class_falls(plain: NDArray[np.bool_], right: NDArray[np.bool_], labels: NDArray[np.int64]) -> bool:
    for label in np.unique(labels):
        known = plain & (labels == label)
        if known.sum() >= _CLASS_PICTURES and 1 - right[known].mean() > _CLASS_LOSS:
            return True
    return False
