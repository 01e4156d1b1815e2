"""Annotations that are a set of labels: what tasks with any number of labels a picture share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keepsight.errors import AnnotationError, DataError
from keepsight.runtime.label_sets import in_words
from keepsight.tasks import classification

SEPARATOR = "|"
MOST_LABELS = 200


@dataclass(frozen=True)
class LabelSets:
    """How one task writes its annotations.

    Attributes:
        key: Where the labels stand: ``{key: ["a", "b"]}``.
        nothing: The empty set as a text, in tables and as a folder's name.
        noun: What one label is called.
        otherwise: What else a user can do who has nothing to learn from.
    """

    key: str
    nothing: str
    noun: str
    otherwise: str = ""

    def parse(self, raw: Any) -> dict[str, Any]:
        """The annotation meant by such a mapping, a list of labels, or a text ``a|b``.

        The items of a prediction are mappings with a ``label``; ``{"label": "a"}`` is one label alone.

        Raises:
            AnnotationError: It means none.
        """
        meant = raw
        if isinstance(raw, Mapping):
            meant = raw[self.key] if self.key in raw else raw.get("label")
        if isinstance(meant, str):
            text = meant.strip()
            meant = [] if text == self.nothing else text.split(SEPARATOR)
        if not isinstance(meant, (list, tuple)):
            raise AnnotationError(
                f"The annotation has no {self.noun}s." if meant is None else f"The {self.noun}s are a {_kind(meant)}.",
                expected=f'{{"{self.key}": ["a", "b"]}}, or a text such as a{SEPARATOR}b; "{self.nothing}" for none.',
                do=f"Give the list of {self.noun}s; an empty list where none fits.",
            )
        return self.canonical({self.key: [self._label(item) for item in meant]})

    def canonical(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Each label once, in its composed form without needless blanks, sorted.

        Raises:
            AnnotationError: A label is empty, overlong or has signs that no label may have, or there are too many.
        """
        labels = sorted({classification.canonical({"label": item})["label"] for item in value.get(self.key, ())})
        wrong = next((label for label in labels if SEPARATOR in label or label == self.nothing), None)
        if wrong is not None:
            raise AnnotationError(
                f'A {self.noun} is called "{wrong}".',
                expected=f'names without "{SEPARATOR}", which stands between {self.noun}s, and other than '
                f'"{self.nothing}", which means none.',
                do=f"Give the {self.noun} another name.",
                label=wrong,
            )
        if len(labels) > MOST_LABELS:
            raise AnnotationError(
                f"The annotation has {len(labels)} {self.noun}s.",
                expected=f"at most {MOST_LABELS}.",
                do="Check the column that it came from.",
            )
        return {self.key: labels}

    def validate(self, value: Mapping[str, Any], labels: Sequence[str]) -> None:
        """Makes sure that the annotation is a set of ``labels``.

        Raises:
            AnnotationError: It is not; names the nearest label.
        """
        for label in self.parse(value)[self.key]:
            classification.validate({"label": label}, labels)

    def labels(self, value: Mapping[str, Any]) -> tuple[str, ...]:
        """The labels of an annotation or a prediction, each once, sorted."""
        return tuple(sorted({self._label(item) for item in value.get(self.key, ())}))

    def summary(self, value: Mapping[str, Any]) -> str:
        """The labels as one text."""
        return in_words(self.labels(value), nothing=self.nothing)

    def score(self, prediction: Mapping[str, Any], value: Mapping[str, Any]) -> float:
        """How far two sets agree: twice the common labels over all (Dice 1945); 1 where both are empty."""
        told, true = set(self.labels(prediction)), set(self.labels(value))
        return 2 * len(told & true) / (len(told) + len(true)) if told or true else 1.0

    def check_trainable(self, project: str, values: Iterable[Mapping[str, Any]]) -> None:
        """Makes sure that there is a label to learn: one that some pictures have and others do not.

        Raises:
            DataError: There is none.
        """
        rows = [set(self.labels(value)) for value in values]
        known = sorted(set().union(*rows))
        if any(any(label not in row for row in rows) for label in known):
            return
        alone = f'only pictures with the {self.noun} "{known[0]}"' if known else f"no picture with a {self.noun}"
        raise DataError(
            f"{project} has {alone} in train and val.",
            expected=f"pictures with a {self.noun}, and others without it.",
            do=f"Import more: `keepsight data import {project} labels.csv` with the {self.noun}s of a picture written "
            f'a{SEPARATOR}b, and "{self.nothing}" for none.{self.otherwise}',
            classes=known,
        )

    def _label(self, item: Any) -> str:
        label = item.get("label") if isinstance(item, Mapping) else item
        if not isinstance(label, str):
            raise AnnotationError(
                f"A {self.noun} is a {_kind(label)}.",
                expected=f"{self.noun}s as texts.",
                do=f"Write the name of the {self.noun}.",
            )
        return label


def uncertainty(prediction: Mapping[str, Any], *, key: str) -> float:
    """How near the nearest decision was, 0..1: one at the threshold, falling with the distance of the odds from it."""
    items = [*prediction.get(key, ()), *prediction.get("alternatives", ())]
    distances = [abs(_log_odds(item["confidence"]) - _log_odds(item["threshold"])) for item in items]
    return math.exp(-min(distances)) if distances else 1.0


def _log_odds(share: float) -> float:
    held = min(max(float(share), 1e-9), 1 - 1e-9)
    return math.log(held / (1 - held))


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
