"""Figures of read documents: character and word error rate, lines found, and right fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.runtime.outputs.ocr.text import normalised
from keepsight.tasks.intervals import Interval, wilson
from keepsight.tasks.ocr.distance import blocks, edit_distance, overlaps

RESAMPLES = 1000
FOUND_AT = 0.5

Value = Mapping[str, Any]


@dataclass(frozen=True)
class FieldFigures:
    """Figures of one field.

    Attributes:
        recall: Share of the documents that have it whose value is exactly right (exact match).
        precision: Share of the values told that are right.
        f1: Of both.
        support: Documents that have it.
    """

    recall: Interval
    precision: Interval
    f1: Interval
    support: int

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        return {
            "recall": self.recall.as_dict(),
            "precision": self.precision.as_dict(),
            "f1": self.f1.as_dict(),
            "support": self.support,
        }


@dataclass(frozen=True)
class OcrMetrics:
    """Figures of a reader on annotated documents.

    Attributes:
        score: Mean over documents of the share of right fields, or of one minus the character error rate.
        right: Share of documents with nothing to correct.
        cer, wer: Wrong characters and words over true ones, of all documents together; above 1 where more is wrong
            than there is.
        cer_caseless: The same with upper and lower case taken as equal.
        found: Share of the true lines with a line told at intersection over union of at least 0.5.
        fields: Share of all labelled fields that are exactly right.
        per_class: By field.
    """

    score: Interval
    right: Interval
    cer: Interval
    wer: Interval
    cer_caseless: Interval
    found: Interval
    fields: Interval
    per_class: Mapping[str, FieldFigures]

    def as_dict(self) -> dict[str, Any]:
        """``{"score": {"value", "low", "high", "n"}, ..., "per_class": {field: {"recall": ..., ...}}}``."""
        return {
            **{
                name: getattr(self, name).as_dict()
                for name in ("score", "right", "cer", "wer", "cer_caseless", "found", "fields")
            },
            "per_class": {name: figures.as_dict() for name, figures in self.per_class.items()},
        }


def score(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> float:
    """The share of the labelled fields that are right; where none is labelled, one minus the character error rate."""
    fields = value.get("fields") or {}
    if fields:
        told = prediction.get("fields") or {}
        return sum(normalised(told.get(name, "")) == normalised(text) for name, text in fields.items()) / len(fields)
    pairs = blocks(prediction.get("lines") or (), value.get("lines") or ())
    length = sum(len(true) for _, true in pairs)
    wrong = sum(edit_distance(told, true) for told, true in pairs)
    return max(0.0, 1.0 - wrong / length) if length else 0.0


def right(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether all labelled fields are right; where none is labelled, whether all lines are."""
    return score(prediction, value) >= 1.0


def evaluate(
    predictions: Sequence[Value | None],
    values: Sequence[Value],
    *,
    names: Sequence[str],
    groups: ArrayLike | None = None,
    seed: int,
) -> OcrMetrics:
    """The figures of ``predictions`` against the annotations ``values``; None is a picture that could not be read.

    Shares of documents have Wilson intervals with the effective number where ``groups`` tell which documents are not
    independent; error rates and F1 percentile intervals of 1,000 bootstrap samples of whole groups (Efron and
    Tibshirani 1993).

    Args:
        predictions: What was told, as ``as_dict`` of the output has it.
        values: The truth, in the same order.
        names: The fields.
        groups: (n,) documents that are not independent (one shop, near-duplicates).
        seed: Of the bootstrap.
    """
    told = [prediction or {} for prediction in predictions]
    of = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    scores = np.array([score(one, value) for one, value in zip(told, values, strict=True)])
    draw = _bootstrap(of, seed=seed)
    with_lines = [place for place, value in enumerate(values) if value.get("lines")]
    errors = _errors([told[place] for place in with_lines], [values[place] for place in with_lines])
    lines = np.zeros((len(values), errors.shape[1]))
    lines[with_lines] = errors
    answers = {name: _answers(told, values, name=name) for name in names}
    hits = np.concatenate([rows[rows[:, 1] > 0, 0] for rows in answers.values()]) if answers else np.zeros(0)
    where = np.concatenate([of[rows[:, 1] > 0] for rows in answers.values()]) if answers else np.zeros(0, np.int64)
    return OcrMetrics(
        score=wilson(scores, groups=of),
        right=wilson(scores >= 1, groups=of),
        cer=draw(lines[:, 0], lines[:, 1]),
        cer_caseless=draw(lines[:, 2], lines[:, 1]),
        wer=draw(lines[:, 3], lines[:, 4]),
        found=draw(lines[:, 5], lines[:, 6]),
        fields=wilson(hits, groups=where),
        per_class={name: _field_figures(rows, of, draw) for name, rows in answers.items()},
    )


def _errors(told: Sequence[Value], true: Sequence[Value]) -> NDArray[np.float64]:
    """Of each document: characters wrong, in all, wrong but for case; words wrong, in all; lines found, in all."""
    rows = []
    for one, value in zip(told, true, strict=True):
        pairs = [(_plain(first), _plain(second)) for first, second in blocks(one.get("lines") or (), value["lines"])]
        boxes = [
            np.array([line["box"] for line in side.get("lines") or ()], np.float64).reshape(-1, 4)
            for side in (value, one)
        ]
        table = overlaps(boxes[0], boxes[1])
        rows.append(
            [
                sum(edit_distance(first, second) for first, second in pairs),
                sum(len(second) for _, second in pairs),
                sum(edit_distance(first.casefold(), second.casefold()) for first, second in pairs),
                sum(edit_distance(first.split(), second.split()) for first, second in pairs),
                sum(len(second.split()) for _, second in pairs),
                int((table.max(axis=1, initial=0) >= FOUND_AT).sum()),
                len(boxes[0]),
            ]
        )
    return np.array(rows, np.float64).reshape(-1, 7)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _answers(told: Sequence[Value], true: Sequence[Value], *, name: str) -> NDArray[np.float64]:
    """(n, 3): whether the field is right, whether the document has it, whether a value was told.

    Documents without labelled fields say nothing about any.
    """
    rows = []
    for one, value in zip(told, true, strict=True):
        labelled = value.get("fields") or {}
        wanted = normalised(labelled.get(name, ""))
        given = normalised((one.get("fields") or {}).get(name, "")) if labelled else ""
        rows.append([float(bool(wanted) and given == wanted), float(bool(wanted)), float(bool(given))])
    return np.array(rows, np.float64).reshape(-1, 3)


Draw = Callable[[NDArray[np.float64], NDArray[np.float64]], Interval]


def _field_figures(rows: NDArray[np.float64], of: NDArray[np.int64], draw: Draw) -> FieldFigures:
    has, said = rows[:, 1] > 0, rows[:, 2] > 0
    f1 = draw(2 * rows[:, 0], rows[:, 1] + rows[:, 2])
    return FieldFigures(
        recall=wilson(rows[has, 0], groups=of[has]),
        precision=wilson(rows[said, 0], groups=of[said]),
        f1=Interval(f1.value, f1.low, f1.high, int(has.sum())),
        support=int(has.sum()),
    )


def _bootstrap(of: NDArray[np.int64], *, seed: int) -> Draw:
    """A function that gives the ratio of two sums over documents with its interval over groups."""
    count = int(of.max()) + 1 if len(of) else 0
    random = np.random.default_rng(seed)
    draws = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) if count else np.zeros((0, 0))

    def ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> Interval:
        total = float(below.sum())
        n = int((below > 0).sum())
        if not total:
            return Interval(None, 0.0, 1.0, 0)
        sums = [np.bincount(of, weights=weights, minlength=count) for weights in (above, below)]
        samples = (draws @ sums[0]) / np.maximum(draws @ sums[1], 1e-9)
        samples = samples[draws @ sums[1] > 0]
        value = float(above.sum()) / total
        low, high = np.quantile(samples, [0.025, 0.975])
        return Interval(value, float(min(value, low)), float(max(value, high)), n)

    return ratio
