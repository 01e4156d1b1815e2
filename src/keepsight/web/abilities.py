"""What a model can and cannot do, in the order and the words of its page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from keepsight import tasks
from keepsight.review.classes import natural
from keepsight.training.reports.content import Content

# A figure that a task does not have of its classes.
NOT_MEASURED: Mapping[str, Any] = {"value": None, "low": 0.0, "high": 1.0, "n": 0}
ORDERS = ("recall", "precision", "f1", "support", "name")
SHOWN_CLASSES = 60
SHOWN_CONFUSIONS = 10
# The drawing of the calibration plot, in its own units.
PLOT = 100.0


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval."""

    name: str
    words: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ClassRow:
    """One class; ``taken_for`` are the wrong answers to its pictures, most frequent first."""

    name: str
    recall: Mapping[str, Any]
    precision: Mapping[str, Any]
    f1: Mapping[str, Any]
    support: int
    taken_for: list[tuple[str, int]]


@dataclass(frozen=True)
class Confusion:
    """How often pictures of one class were taken for another."""

    true: str
    said: str
    count: int
    of: int


@dataclass(frozen=True)
class Dot:
    """A bin of the calibration plot, in the units of the drawing."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class SliceRow:
    """A part of the pictures.

    ``mark`` is ``weaker`` or ``better`` than the rest, where chance would not show such a difference in any of so many
    parts; else empty.
    """

    value: str
    n: int
    accuracy: Mapping[str, Any]
    difference: Mapping[str, Any] | None
    mark: str


def figures(task: str, metrics: Mapping[str, Any]) -> list[Figure]:
    """The figures of the test split that have a value."""
    return [
        Figure(name, words, figure["value"], figure.get("low"), figure.get("high"))
        for name, words, figure in tasks.figures(task, metrics)
        if figure["value"] is not None
    ]


def classes(metrics: Mapping[str, Any], *, sort: str = "recall", find: str = "") -> list[ClassRow]:
    """The classes with test pictures whose name has ``find``, in the order asked for; a minus turns it round."""
    mistaken = _mistaken(metrics)
    wanted = find.casefold().split()
    rows = [
        ClassRow(
            name=name,
            recall=row.get("recall", NOT_MEASURED),
            precision=row.get("precision", NOT_MEASURED),
            f1=row.get("f1", NOT_MEASURED),
            support=int(row["support"]),
            taken_for=mistaken.get(name, []),
        )
        for name, row in (metrics.get("per_class") or {}).items()
        if row.get("support") and all(word in name.casefold() for word in wanted)
    ]
    key, turned = sort.removeprefix("-"), sort.startswith("-")
    by_name = sorted(rows, key=lambda row: natural(row.name))
    if key == "name":
        return by_name[::-1] if turned else by_name
    if key == "support":
        return sorted(by_name, key=lambda row: row.support, reverse=turned)
    sign = -1 if turned else 1
    # What nobody can tell comes last either way; among equals, what has more pictures behind it comes first.
    return sorted(by_name, key=lambda row: (*_rank(getattr(row, key), sign), -row.support))


def confusions(content: Content) -> list[Confusion]:
    """The most frequent mistakes: a class, and what it was taken for."""
    support = {name: int(row["support"]) for name, row in content.per_class()}
    return [
        Confusion(true, said, count, support.get(true, 0))
        for true, said, count in content.confusions()[:SHOWN_CONFUSIONS]
    ]


def dots(bins: Iterable[Mapping[str, Any]]) -> list[Dot]:
    """Where the bins stand in the calibration plot; their areas are as their pictures."""
    there = [item for item in bins if item["n"] and item["accuracy"] is not None]
    most = max((item["n"] for item in there), default=1)
    return [
        Dot(
            round(PLOT * item["confidence"], 2),
            round(PLOT * (1 - item["accuracy"]), 2),
            round(1.2 + 3.3 * math.sqrt(item["n"] / most), 2),
        )
        for item in there
    ]


def slices(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[SliceRow]]]:
    """The slices by what they tell apart, those with the weakest part first; what tells nothing apart is left out."""
    groups = [
        (key, [_slice(row) for row in items])
        for key, items in groupby(sorted(rows, key=lambda row: str(row["key"])), key=lambda row: str(row["key"]))
    ]
    groups = [(key, items) for key, items in groups if len(items) > 1 or items[0].difference is not None]
    return sorted(groups, key=lambda group: min(_value(row.accuracy) for row in group[1]))


def _slice(row: Mapping[str, Any]) -> SliceRow:
    difference = row.get("difference")
    mark = ""
    if difference is not None and row.get("clear"):
        mark = "weaker" if difference["value"] < 0 else "better"
    return SliceRow(str(row["value"]), int(row["n"]), row["accuracy"], difference, mark)


def _value(figure: Mapping[str, Any]) -> float:
    value = figure.get("value")
    return math.inf if value is None else float(value)


def _rank(figure: Mapping[str, Any], sign: int) -> tuple[bool, float]:
    value = figure.get("value")
    return (True, 0.0) if value is None else (False, sign * float(value))


def _mistaken(metrics: Mapping[str, Any]) -> dict[str, list[tuple[str, int]]]:
    """For each class the wrong answers to its pictures, most frequent first."""
    names = metrics.get("names") or []
    return {
        name: sorted(
            ((names[place], int(count)) for place, count in enumerate(row) if count and names[place] != name),
            key=lambda item: -item[1],
        )
        for name, row in zip(names, metrics.get("confusion") or [], strict=False)
    }
