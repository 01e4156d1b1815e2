"""Moderation: an annotation is the flags that a picture raises, ``{"flags": ["plate visible"]}``; none: it is allowed.

A flag is judged by its recall at a stated false alarm rate: of the pictures that should be flagged, how many are, where
at most so many of the others are flagged too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keepsight.runtime.outputs.moderation import ALLOWED
from keepsight.tasks import label_sets
from keepsight.tasks.intervals import wilson
from keepsight.tasks.label_sets import LabelSets
from keepsight.tasks.set_figures import RATES, Answered, SetMetrics, measure

HEADLINE = "recall_at_5_percent_false_alarms"
"""Recall at 5 % false alarms, the mean over the flags."""

FIXED_PLACES = False

_FLAGS = LabelSets(
    key="flags",
    nothing=ALLOWED,
    noun="flag",
    otherwise=" Or take the network for nudity as it is: --recipe pretrained.",
)
_SHOWN = (*RATES, "recall", "false_alarms", "precision", "f1", "auc", "ap")

parse = _FLAGS.parse
canonical = _FLAGS.canonical
validate = _FLAGS.validate
classes = _FLAGS.labels
summary = _FLAGS.summary
stratum = _FLAGS.summary
score = _FLAGS.score
check_trainable = _FLAGS.check_trainable


def right(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether exactly the right flags were raised."""
    return classes(prediction) == classes(value)


def uncertainty(prediction: Mapping[str, Any]) -> float:
    """How near the nearest flag was to its threshold, 0..1."""
    return label_sets.uncertainty(prediction, key=_FLAGS.key)


def evaluate(
    predictions: Sequence[Mapping[str, Any] | None],
    values: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    groups: ArrayLike | None = None,
    seed: int,
) -> SetMetrics:
    """The figures of a moderator, for each flag and as means over the flags.

    ``recall_at_5_percent_false_alarms``, and those at 1 and 10 %, do not ask where the threshold lies; ``recall``,
    ``precision``, ``f1`` and ``false_alarms`` hold at the model's own thresholds. ``blocked`` is the share of allowed
    pictures that were blocked for any flag, ``right`` the share of pictures with exactly the right flags.

    Args:
        predictions: What was answered; None for a picture that could not be read, of which no flag counts as raised.
        values: The annotations.
        names: The flags that the model knows.
        groups: (n,) groups of pictures that are not independent.
        seed: Of the bootstrap.
    """
    answered = Answered.of_sets(predictions, values, key=_FLAGS.key, names=names, groups=groups)
    found = measure(answered, names=names, shown=_SHOWN, seed=seed)
    harmless = np.flatnonzero(~answered.true.any(axis=1))
    blocked = wilson(answered.told[harmless].any(axis=1), groups=answered.of[harmless])
    return SetMetrics({**found.figures, "blocked": blocked}, found.per_class, found.support, found.absent)
