"""Classification: an annotation is one label, ``{"label": "apple"}``.

Metrics follow the usual definitions (scikit-learn's with ``zero_division=0``), each with a 95 % interval.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.errors import AnnotationError, DataError
from keepsight.tasks.intervals import Interval, effective_size, wilson, wilson_bounds
from keepsight.tasks.reliability import (
    CALIBRATION_BINS,
    ReliabilityBin,
    confidence_bins,
    expected_calibration_error,
    reliability_table,
)

HEADLINE = "accuracy"
FIGURES = {
    "accuracy": "right answers",
    "precision": "precision (of what it calls a class, so much is)",
    "recall": "recall (of what is a class, so much it finds)",
    "f1": "F1 (precision and recall in one figure)",
    "ece": "calibration error (how far its confidence is off)",
}
FIXED_PLACES = False
LONGEST_LABEL = 200
RESAMPLES = 1000


def parse(raw: Any) -> dict[str, Any]:
    """``{"label": ...}`` from such a mapping (further keys, as predictions have, are dropped) or from a bare text.

    Raises:
        AnnotationError: neither, or an empty or overlong label.
    """
    label = raw.get("label") if isinstance(raw, Mapping) else raw
    if not isinstance(label, str):
        shown = type(raw).__name__ if not isinstance(raw, Mapping) else f"label of type {type(label).__name__}"
        raise AnnotationError(
            f"The annotation is a {shown}." if label is not None else "The annotation has no label.",
            expected='a label, as in {"label": "apple"}.',
            do="Give the class of the picture as a text.",
        )
    return canonical({"label": label})


def canonical(value: Mapping[str, Any]) -> dict[str, Any]:
    """The label in Unicode's composed form (NFC), without blanks around it and with single ones inside.

    Raises:
        AnnotationError: an empty or overlong label, or one with control characters.
    """
    label = " ".join(unicodedata.normalize("NFC", str(value.get("label", ""))).split())
    if not label or len(label) > LONGEST_LABEL or any(unicodedata.category(sign) == "Cc" for sign in label):
        raise AnnotationError(
            f'The label "{label[:40]}" is too long or has control characters.' if label else "The label is empty.",
            expected=f"a label of 1 to {LONGEST_LABEL} printable characters.",
            do="Name the class of the picture.",
        )
    return {"label": label}


def validate(value: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Makes sure that the annotation is a label, and one of ``labels``.

    Raises:
        AnnotationError: it is not; names the nearest label.
    """
    label = parse(value)["label"]
    if label in labels:
        return
    near = difflib.get_close_matches(label, labels, n=1)
    shown = ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
    raise AnnotationError(
        f'There is no class "{label}".',
        expected=f"one of: {shown}." if labels else "a known class; there is none yet.",
        do=f'Did you mean "{near[0]}"? Else add the class.' if near else "Correct the label, or add the class first.",
        label=label,
        nearest=near[0] if near else None,
    )


def uncertainty(prediction: Mapping[str, Any]) -> float:
    """How near the decision was, 0..1: one minus the margin between the first and the second class."""
    alternatives = prediction.get("alternatives") or ({"confidence": 0.0},)
    second = max(float(item["confidence"]) for item in alternatives)
    return min(1.0, max(0.0, 1.0 - (float(prediction["confidence"]) - second)))


def classes(value: Mapping[str, Any]) -> tuple[str, ...]:
    """The one class."""
    return (str(value["label"]),)


def summary(value: Mapping[str, Any]) -> str:
    """The class's name."""
    return str(value["label"])


def stratum(value: Mapping[str, Any]) -> str:
    """The class: each is divided evenly."""
    return str(value["label"])


def score(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> float:
    """1 where the class is the right one, else 0."""
    return float(prediction["label"] == value["label"])


def right(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether the class is the right one."""
    return bool(prediction["label"] == value["label"])


def check_trainable(project: str, values: Sequence[Mapping[str, Any]]) -> None:
    """Makes sure that there are at least two classes.

    Raises:
        DataError: No labels, or one class only.
    """
    known = sorted({str(value["label"]) for value in values})
    if len(known) < 2:
        what = f'one class only ("{known[0]}")' if known else "no labelled training pictures"
        raise DataError(
            f"{project} has {what}.",
            expected="labelled pictures of at least two classes in train or val.",
            do=f"Import more: `keepsight data import {project} PHOTOS/` with one folder per class.",
            classes=known,
        )


def uncalibrated(prediction: Mapping[str, Any], *, temperature: float) -> float:
    """The confidence that the prediction would have at temperature 1, from all its probabilities."""
    shares = np.array([prediction["confidence"], *(item["confidence"] for item in prediction["alternatives"])])
    # Through logarithms, so that a large temperature underflows no row to zeros; the zeros themselves stay.
    logs = temperature * np.log(np.maximum(shares, np.finfo(np.float64).tiny))
    powers = np.exp(logs - logs.max())
    return float(powers[0] / powers.sum())


def probabilities(predictions: Sequence[Mapping[str, Any] | None], names: Sequence[str]) -> NDArray[np.float64]:
    """The probability of each class (n, k), from predictions that list every class; even where there is none."""
    places = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(predictions), len(names)))
    for row, prediction in zip(table, predictions, strict=True):
        if prediction is None:
            row[:] = 1 / len(names)
            continue
        row[places[prediction["label"]]] = prediction["confidence"]
        for item in prediction["alternatives"]:
            row[places[item["label"]]] = item["confidence"]
    return table


@dataclass(frozen=True)
class ClassMetrics:
    """Figures of one class; ``support`` is the number of its pictures, ``predicted`` how often it was the answer."""

    precision: Interval
    recall: Interval
    f1: Interval
    support: int
    predicted: int

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        return {
            "precision": self.precision.as_dict(),
            "recall": self.recall.as_dict(),
            "f1": self.f1.as_dict(),
            "support": self.support,
            "predicted": self.predicted,
        }


@dataclass(frozen=True)
class ClassificationMetrics:
    """Figures of a classifier on labelled pictures.

    Attributes:
        accuracy: Share of right answers.
        precision, recall, f1: Means over the classes that have pictures (macro); an undefined precision counts as 0.
        ece: Expected calibration error over 15 bins.
        per_class: By class name, in the order of the names.
        confusion: (k, k) counts; row: true class, column: answer.
        names: The classes.
        absent: Classes without a picture here; nothing can be said about their recall.
        reliability: The table behind ``ece``.
    """

    accuracy: Interval
    precision: Interval
    recall: Interval
    f1: Interval
    ece: Interval
    per_class: Mapping[str, ClassMetrics]
    confusion: NDArray[np.int64]
    names: tuple[str, ...]
    absent: tuple[str, ...]
    reliability: tuple[ReliabilityBin, ...]

    def as_dict(self) -> dict[str, Any]:
        """``{"accuracy": {"value", "low", "high", "n"}, ..., "per_class": {name: ...}, "confusion": [[...]], ...}``."""
        return {
            "accuracy": self.accuracy.as_dict(),
            "precision": self.precision.as_dict(),
            "recall": self.recall.as_dict(),
            "f1": self.f1.as_dict(),
            "ece": self.ece.as_dict(),
            "per_class": {name: figures.as_dict() for name, figures in self.per_class.items()},
            "confusion": self.confusion.tolist(),
            "names": list(self.names),
            "absent": list(self.absent),
            "reliability": [row.as_dict() for row in self.reliability],
        }


def evaluate(
    predictions: Sequence[Mapping[str, Any] | None],
    values: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    groups: ArrayLike | None = None,
    seed: int,
) -> ClassificationMetrics:
    """The figures of predictions that list every class, as :func:`measure` says.

    A picture without an answer counts as wrong, as if one of the other classes had been guessed.
    """
    places = {name: place for place, name in enumerate(names)}
    labels = np.array([places[str(value["label"])] for value in values], np.int64)
    shares = probabilities(predictions, names)
    for row, label, prediction in zip(shares, labels, predictions, strict=True):
        if prediction is None and len(names) > 1:
            row[:] = 1 / (len(names) - 1)
            row[label] = 0.0
    return measure(shares, labels, names=names, groups=groups, seed=seed)


def measure(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    names: Sequence[str],
    groups: ArrayLike | None = None,
    seed: int,
) -> ClassificationMetrics:
    """The figures of calibrated ``probabilities`` against the true ``labels``.

    Proportions (accuracy; recall and precision of a class) have Wilson intervals, with the effective number of
    pictures where ``groups`` tell which are not independent. F1 of a class is 2 J / (1 + J) with J = TP / (TP + FP +
    FN), a proportion too, so its interval is Wilson's for J, transformed; a bootstrap would call a class with five
    right answers out of five certain. Macro figures and the calibration error have percentile intervals of 1,000
    bootstrap samples of whole groups, those of the calibration error shifted by its bootstrap bias (Efron and
    Tibshirani 1993).

    Args:
        probabilities: (n, k), rows summing to 1.
        labels: (n,) true classes 0..k-1.
        names: k class names.
        groups: (n,) groups of pictures that are not independent (near-duplicates, one shelf).
        seed: Of the bootstrap.
    """
    shares = np.asarray(probabilities, dtype=np.float64)
    true = np.asarray(labels, dtype=np.int64)
    k = len(names)
    if shares.shape != (len(true), k):
        raise ValueError(f"probabilities have shape {shares.shape}, not ({len(true)}, {k})")
    of = np.arange(len(true)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    told = shares.argmax(axis=1) if len(true) else np.zeros(0, dtype=np.int64)
    confusion = np.zeros((k, k), dtype=np.int64)
    np.add.at(confusion, (true, told), 1)
    per_class = {name: _class_metrics(true == number, told == number, of) for number, name in enumerate(names)}
    macro, ece = _resampled(shares, true, told, of, seed=seed)
    return ClassificationMetrics(
        accuracy=wilson(true == told, groups=of),
        precision=macro[0],
        recall=macro[1],
        f1=macro[2],
        ece=ece,
        per_class=per_class,
        confusion=confusion,
        names=tuple(names),
        absent=tuple(name for name, figures in per_class.items() if figures.support == 0),
        reliability=reliability_table(shares, true) if len(true) else (),
    )


def _class_metrics(is_class: NDArray[np.bool_], told: NDArray[np.bool_], of: NDArray[np.int64]) -> ClassMetrics:
    either = is_class | told
    both = is_class & told
    if either.any():
        share = float(both[either].mean())
        low, high = wilson_bounds(share, effective_size(both[either], groups=of[either]))
        f1 = Interval(2 * share / (1 + share), 2 * low / (1 + low), 2 * high / (1 + high), int(either.sum()))
    else:
        f1 = Interval(None, 0.0, 1.0, 0)
    return ClassMetrics(
        precision=wilson(is_class[told], groups=of[told]),
        recall=wilson(told[is_class], groups=of[is_class]),
        f1=f1,
        support=int(is_class.sum()),
        predicted=int(told.sum()),
    )


def _resampled(
    shares: NDArray[np.float64],
    true: NDArray[np.int64],
    told: NDArray[np.int64],
    of: NDArray[np.int64],
    *,
    seed: int,
) -> tuple[tuple[Interval, Interval, Interval], Interval]:
    """Macro precision, recall and F1, and the calibration error, with bootstrap intervals over groups."""
    from scipy import sparse

    n, k = shares.shape
    if n == 0:
        nothing = Interval(None, 0.0, 1.0, 0)
        return (nothing, nothing, nothing), nothing
    count = int(of.max()) + 1
    confidence = shares.max(axis=1)
    bins = confidence_bins(confidence, bins=CALIBRATION_BINS)
    right = (true == told).astype(np.float64)

    def by_group(columns: NDArray[np.int64], weights: NDArray[np.float64], width: int) -> Any:
        return sparse.csr_matrix((weights, (of, columns)), shape=(count, width))

    ones = np.ones(n)
    table = sparse.hstack(
        [
            by_group(true, right, k),
            by_group(true, ones, k),
            by_group(told, ones, k),
            by_group(bins, confidence - right, CALIBRATION_BINS),
        ]
    ).tocsr()
    random = np.random.default_rng(seed)
    figures = [_figures(np.asarray(table.sum(axis=0)).reshape(1, -1), k=k)]
    for start in range(0, RESAMPLES, 100):
        size = min(100, RESAMPLES - start)
        draws = random.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)
        figures.append(_figures(np.asarray((table.T @ draws.T).T), k=k))
    values, samples = figures[0][0], np.concatenate(figures[1:])
    # A resample exceeds the pictures by as much as the pictures exceed the truth, on average.
    samples[:, 3] -= samples[:, 3].mean() - values[3]
    lows, highs = np.clip(np.quantile(samples, [0.025, 0.975], axis=0), 0, 1)
    intervals = [
        Interval(float(value), float(min(value, low)), float(max(value, high)), n)
        for value, low, high in zip(values, lows, highs, strict=True)
    ]
    exact = Interval(expected_calibration_error(shares, true), intervals[3].low, intervals[3].high, n)
    return (intervals[0], intervals[1], intervals[2]), exact


def _figures(sums: NDArray[np.float64], *, k: int) -> NDArray[np.float64]:
    """(b, 4): macro precision, recall, F1 and calibration error of b samples, from summed counts (b, 3 k + bins)."""
    hits, support, predicted = sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k]
    there = support > 0
    classes = np.maximum(there.sum(axis=1), 1)
    precision = np.where(there, hits / np.maximum(predicted, 1), 0.0).sum(axis=1) / classes
    recall = np.where(there, hits / np.maximum(support, 1), 0.0).sum(axis=1) / classes
    f1 = np.where(there, 2 * hits / np.maximum(support + predicted, 1), 0.0).sum(axis=1) / classes
    total = np.maximum(support.sum(axis=1), 1)
    ece = np.abs(sums[:, 3 * k :]).sum(axis=1) / total
    return np.stack([precision, recall, f1, ece], axis=1)
