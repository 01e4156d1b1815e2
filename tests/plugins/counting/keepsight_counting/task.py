"""Counting: an annotation is a number of things, ``{"count": 3}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keepsight.errors import AnnotationError, DataError
from keepsight.tasks.intervals import Interval, wilson

HEADLINE = "near"
FIXED_PLACES = False
MOST = 100_000


def parse(raw: Any) -> dict[str, Any]:
    """``{"count": 3}`` from such a mapping, a number, or a text with a number."""
    meant = raw.get("count", raw.get("label")) if isinstance(raw, Mapping) else raw
    try:
        count = int(str(meant).strip())
    except ValueError:
        count = -1
    if isinstance(meant, bool) or not 0 <= count <= MOST:
        raise AnnotationError(
            f'The count is "{meant}".', expected=f"a whole number from 0 to {MOST}.", do="Count again."
        )
    return {"count": count}


def canonical(value: Mapping[str, Any]) -> dict[str, Any]:
    """The count."""
    return parse(value)


def validate(value: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Any count is right; there are no classes."""
    parse(value)


def classes(value: Mapping[str, Any]) -> tuple[str, ...]:
    """None."""
    return ()


def summary(value: Mapping[str, Any]) -> str:
    """The count as text."""
    return str(value["count"])


stratum = summary


def uncertainty(prediction: Mapping[str, Any]) -> float:
    """The chance that the count is wrong."""
    return 1 - float(prediction["confidence"])


def score(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> float:
    """1 for the right count, less the further it is off relative to the truth."""
    return max(0.0, 1 - abs(int(prediction["count"]) - int(value["count"])) / max(1, int(value["count"])))


def right(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether the count is exact."""
    return bool(prediction["count"] == value["count"])


def check_trainable(project: str, values: Sequence[Mapping[str, Any]]) -> None:
    """At least two different counts."""
    counts = {value["count"] for value in values}
    if len(counts) < 2:
        raise DataError(
            f"{project} has {len(counts)} different counts in train and val.",
            expected="pictures with different counts.",
            do="Import more.",
        )


@dataclass(frozen=True)
class CountingMetrics:
    """``right``: exact counts; ``near``: mean score."""

    right: Interval
    near: Interval

    def as_dict(self) -> dict[str, Any]:
        """Both figures."""
        return {"right": self.right.as_dict(), "near": self.near.as_dict()}


def evaluate(
    predictions: Sequence[Mapping[str, Any] | None],
    values: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    groups: ArrayLike | None = None,
    seed: int,
) -> CountingMetrics:
    """The figures; a picture that could not be read counts as wrong."""
    pairs = list(zip(predictions, values, strict=True))
    exact = np.array([said is not None and right(said, value) for said, value in pairs], np.float64)
    near = np.array([0.0 if said is None else score(said, value) for said, value in pairs], np.float64)
    return CountingMetrics(wilson(exact, groups=groups), wilson(near, groups=groups))
