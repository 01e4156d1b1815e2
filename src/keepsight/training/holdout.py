"""Whether a given val split is to judge while training: pictures of other days and places than those of train.

Folds of one collection look alike, however carefully they are divided; a val split that somebody made judges more
honestly. It has to be large enough, though, and to show most of what there is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Fewer say too little about calibration and about which answers need no review.
LEAST_PICTURES = 200
LEAST_CLASSES = 0.5


def shows_enough(labels: NDArray[np.int64], part: NDArray[np.bool_]) -> bool:
    """Whether at least half of the classes stand in the part, all of them in the rest, and neither is empty."""
    classes, inside = np.unique(labels), np.unique(labels[part])
    return bool(len(inside) and len(inside) >= LEAST_CLASSES * len(classes) and np.isin(classes, labels[~part]).all())


def judge(labels: NDArray[np.int64], validation: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The val split where it is to judge, else None.

    Args:
        labels: (n,) classes.
        validation: (n,) which pictures are in val.
    """
    good = int(validation.sum()) >= LEAST_PICTURES and shows_enough(labels, validation)
    return validation.copy() if good else None
