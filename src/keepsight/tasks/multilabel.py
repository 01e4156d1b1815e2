"""Multi-label classification: an annotation is any number of labels, ``{"labels": ["red", "round"]}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from keepsight.runtime.outputs.multilabel import NOTHING
from keepsight.tasks import label_sets
from keepsight.tasks.label_sets import LabelSets
from keepsight.tasks.set_figures import Answered, SetMetrics, measure

HEADLINE = "f1"
FIXED_PLACES = False

_LABELS = LabelSets(key="labels", nothing=NOTHING, noun="label")
_SHOWN = ("f1", "precision", "recall", "ap", "auc")

parse = _LABELS.parse
canonical = _LABELS.canonical
validate = _LABELS.validate
classes = _LABELS.labels
summary = _LABELS.summary
stratum = _LABELS.summary
score = _LABELS.score
check_trainable = _LABELS.check_trainable


def right(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether exactly the right labels were given."""
    return classes(prediction) == classes(value)


def uncertainty(prediction: Mapping[str, Any]) -> float:
    """How near the nearest label was to its threshold, 0..1."""
    return label_sets.uncertainty(prediction, key=_LABELS.key)


def evaluate(
    predictions: Sequence[Mapping[str, Any] | None],
    values: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    groups: ArrayLike | None = None,
    seed: int,
) -> SetMetrics:
    """The figures of a multi-label classifier, for each label and as means over the labels.

    ``right`` is the share of exact matches; the mean of ``ap`` over the labels is the mean average precision.

    Args:
        predictions: What was answered; None for a picture that could not be read, which counts as no label.
        values: The annotations.
        names: The labels that the model knows.
        groups: (n,) groups of pictures that are not independent.
        seed: Of the bootstrap.
    """
    answered = Answered.of_sets(predictions, values, key=_LABELS.key, names=names, groups=groups)
    return measure(answered, names=names, shown=_SHOWN, seed=seed)
