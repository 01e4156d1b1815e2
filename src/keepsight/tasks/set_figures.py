"""Figures of answers that are sets of labels: each label is a question of its own, to be answered yes or no.

At a label's threshold there are recall, precision, F1 and the false alarm rate (the share of pictures without the label
that got it); over all thresholds the area under the ROC curve, the average precision, and the recall at stated false
alarm rates, which do not depend on where the threshold lies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.tasks.intervals import Interval, effective_size, wilson, wilson_bounds
from keepsight.tasks.reliability import CALIBRATION_BINS, confidence_bins

RESAMPLES = 1000
BATCH = 100
# The stated false alarm rates, with the names of their figures.
RATES = {f"recall_at_{percent}_percent_false_alarms": percent / 100 for percent in (1, 5, 10)}

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Answered:
    """Predictions and the truth as arrays over n pictures and k labels.

    Attributes:
        chances: (n, k) of each label; -1 where the picture has no answer.
        told: (n, k) whether the label was given.
        true: (n, k) whether it is right.
        confidence: (n,) chance that the whole answer is right; 0 where there is none.
        right: (n,) whether it is.
        of: (n,) group of each picture, 0..g-1.
    """

    chances: Floats
    told: Bools
    true: Bools
    confidence: Floats
    right: Bools
    of: NDArray[np.int64]

    @classmethod
    def of_sets(
        cls,
        predictions: Sequence[Mapping[str, Any] | None],
        values: Sequence[Mapping[str, Any]],
        *,
        key: str,
        names: Sequence[str],
        groups: ArrayLike | None,
    ) -> Answered:
        """The arrays of predictions (None: no answer) and annotations whose labels stand under ``key``."""
        n, k = len(values), len(names)
        places = {name: place for place, name in enumerate(names)}
        chances, told, true = np.full((n, k), -1.0), np.zeros((n, k), np.bool_), np.zeros((n, k), np.bool_)
        confidence, right = np.zeros(n), np.zeros(n, np.bool_)
        for row, (prediction, value) in enumerate(zip(predictions, values, strict=True)):
            wanted = set(value[key])
            true[row, [places[label] for label in wanted if label in places]] = True
            if prediction is None:
                continue
            given = {item["label"] for item in prediction[key]}
            told[row, [places[label] for label in given if label in places]] = True
            for item in (*prediction[key], *prediction["alternatives"]):
                if item["label"] in places:
                    chances[row, places[item["label"]]] = item["confidence"]
            confidence[row] = prediction["confidence"]
            right[row] = given == wanted
        of = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        return cls(chances, told, true, confidence, right, of.astype(np.int64))


@dataclass(frozen=True)
class SetMetrics:
    """Figures of answers that are sets of labels; each task names the ones that it shows."""

    figures: Mapping[str, Interval]
    per_class: Mapping[str, Mapping[str, Interval]]
    support: Mapping[str, int]
    absent: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """``{name: {"value", "low", "high", "n"}, ..., "per_class": {label: {name: ..., "support": n}}, "absent"}``."""
        return {
            **{name: figure.as_dict() for name, figure in self.figures.items()},
            "per_class": {
                label: {**{name: figure.as_dict() for name, figure in rows.items()}, "support": self.support[label]}
                for label, rows in self.per_class.items()
            },
            "names": list(self.per_class),
            "absent": list(self.absent),
        }


def measure(answered: Answered, *, names: Sequence[str], shown: Sequence[str], seed: int) -> SetMetrics:
    """The figures called ``shown``, as means over the labels that are seen both ways and for each label.

    Proportions of one label have Wilson intervals, with the effective number of pictures where groups tell which are
    not independent; areas and recalls at a stated rate have percentile intervals of 1,000 bootstrap samples of whole
    groups, never narrower than Wilson's for as many pictures as the rarer side of the label has (a bootstrap would call
    five pictures told apart from five others certain). Means over labels have bootstrap intervals too, never narrower
    than those of the labels combined as if independent (MOVER, Zou and Donner 2008).

    Args:
        answered: Predictions and truth.
        names: The k labels.
        shown: Names of figures: recall, precision, f1, false_alarms, auc, ap, or one of ``RATES``.
        seed: Of the bootstrap.
    """
    n, k = answered.true.shape
    figures = {
        "right": wilson(answered.right, groups=answered.of),
        "ece": _calibration_error(answered, seed=seed),
    }
    columns = list(shown)
    plain = _of_weights(answered, np.ones((1, n)), columns)[0] if n else np.full((k, len(columns)), np.nan)
    samples = _resampled(answered, columns, seed=seed)
    per_class = {}
    for place, name in enumerate(names):
        per_class[name] = {
            column: _figure(answered, place, column, float(plain[place, number]), samples[:, place, number])
            for number, column in enumerate(columns)
        }
    for number, column in enumerate(columns):
        there = ~np.isnan(plain[:, number])
        parts = [rows[column] for rows, kept in zip(per_class.values(), there, strict=True) if kept]
        figures[column] = _mean(plain[there, number], parts, _mean_over_labels(samples[:, :, number]), n=n)
    true = answered.true
    return SetMetrics(
        figures=figures,
        per_class=per_class,
        support={name: int(true[:, place].sum()) for place, name in enumerate(names)},
        absent=tuple(name for place, name in enumerate(names) if not true[:, place].any()),
    )


def _figure(answered: Answered, place: int, column: str, value: float, samples: Floats) -> Interval:
    """One figure of one label."""
    true, told, of = answered.true[:, place], answered.told[:, place], answered.of
    if column in _SHARES:
        of_what, among = _SHARES[column](true, told)
        return wilson(of_what[among], groups=of[among])
    if column == "f1":
        return _f1(true, told, of)
    if math.isnan(value):
        return Interval(None, 0.0, 1.0, 0)
    there = samples[~np.isnan(samples)]
    low, high = np.quantile(there, [0.025, 0.975]) if len(there) else (0.0, 1.0)
    rarer = true if true.sum() <= (~true).sum() else ~true
    size = effective_size(np.ones(int(rarer.sum())), groups=of[rarer])
    outer = wilson_bounds(min(max(value, 0.0), 1.0), size)
    return Interval(value, float(min(low, outer[0])), float(max(high, outer[1])), len(true))


# Of a share: the outcomes, and the pictures among which they are counted.
_SHARES = {
    "recall": lambda true, told: (told, true),
    "precision": lambda true, told: (true, told),
    "false_alarms": lambda true, told: (told, ~true),
}


def _f1(true: Bools, told: Bools, of: NDArray[np.int64]) -> Interval:
    """2 J / (1 + J) with J = TP / (TP + FP + FN), a share; Wilson's bounds of J, transformed."""
    either = true | told
    if not either.any():
        return Interval(None, 0.0, 1.0, 0)
    share = wilson((true & told)[either], groups=of[either])
    value, low, high = share.value or 0.0, share.low, share.high
    return Interval(2 * value / (1 + value), 2 * low / (1 + low), 2 * high / (1 + high), share.n)


def _mean(values: Floats, parts: Sequence[Interval], samples: Floats, *, n: int) -> Interval:
    if not len(values):
        return Interval(None, 0.0, 1.0, 0)
    value = float(values.mean())
    below = math.sqrt(sum((each - part.low) ** 2 for each, part in zip(values, parts, strict=True))) / len(values)
    above = math.sqrt(sum((part.high - each) ** 2 for each, part in zip(values, parts, strict=True))) / len(values)
    there = samples[~np.isnan(samples)]
    low, high = np.quantile(there, [0.025, 0.975]) if len(there) else (0.0, 1.0)
    return Interval(value, float(max(0.0, min(low, value - below))), float(min(1.0, max(high, value + above))), n)


def _mean_over_labels(samples: Floats) -> Floats:
    """(b,): the mean over the labels (b, k) for which a figure exists; NaN where for none."""
    there = ~np.isnan(samples)
    counts = there.sum(axis=1)
    sums = np.where(there, samples, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _resampled(answered: Answered, columns: Sequence[str], *, seed: int) -> Floats:
    """(1000, k, figures): the figures of bootstrap samples of whole groups."""
    n, k = answered.true.shape
    if not n:
        return np.full((1, k, len(columns)), np.nan)
    count = int(answered.of.max()) + 1
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(RESAMPLES // BATCH):
        draws = random.multinomial(count, np.full(count, 1 / count), size=BATCH).astype(np.float64)
        rows.append(_of_weights(answered, draws[:, answered.of], columns))
    return np.concatenate(rows)


def _of_weights(answered: Answered, weights: Floats, columns: Sequence[str]) -> Floats:
    """(b, k, figures) of the pictures weighed with ``weights`` (b, n); NaN where a figure does not exist."""
    k = answered.true.shape[1]
    found = np.full((len(weights), k, len(columns)), np.nan)
    for place in range(k):
        true, told = answered.true[:, place], answered.told[:, place]
        known = _at_threshold(true, told, weights)
        if any(column not in known for column in columns):
            known |= _over_thresholds(answered.chances[:, place], true, weights)
        for number, column in enumerate(columns):
            found[:, place, number] = known[column]
    return found


def _at_threshold(true: Bools, told: Bools, weights: Floats) -> dict[str, Floats]:
    hits, support, predicted = weights @ (true & told), weights @ true, weights @ told
    without = weights @ ~true
    # Of a label that was never given the precision counts as 0 in the mean.
    return {
        "recall": _ratio(hits, support),
        "precision": np.where(support > 0, hits / np.maximum(predicted, 1e-12), np.nan),
        "f1": np.where(support > 0, 2 * hits / np.maximum(support + predicted, 1e-12), np.nan),
        "false_alarms": _ratio(predicted - hits, without),
    }


def _over_thresholds(chances: Floats, true: Bools, weights: Floats) -> dict[str, Floats]:
    """Areas and recalls of the curve that falling thresholds draw; equal chances pass together."""
    order = np.argsort(-chances, kind="stable")
    falling = chances[order]
    starts = np.flatnonzero(np.concatenate([[True], falling[1:] != falling[:-1]]))
    sorted_weights = weights[:, order]
    with_it = np.add.reduceat(sorted_weights * true[order], starts, axis=1)
    without = np.add.reduceat(sorted_weights * ~true[order], starts, axis=1)
    hits, alarms = with_it.cumsum(axis=1), without.cumsum(axis=1)
    positives, negatives = hits[:, -1], alarms[:, -1]
    area = (without * (hits - with_it / 2)).sum(axis=1)
    steps = with_it * hits / np.maximum(hits + alarms, 1e-12)
    found = {"auc": _ratio(area, positives * negatives), "ap": _ratio(steps.sum(axis=1), positives)}
    for name, rate in RATES.items():
        # Rounding must not take a threshold away that just keeps the rate.
        passed = (alarms <= rate * negatives[:, None] + 1e-9).sum(axis=1)
        best = np.where(passed > 0, hits[np.arange(len(hits)), np.maximum(passed - 1, 0)], 0.0)
        found[name] = np.where(negatives > 0, _ratio(best, positives), np.nan)
    return found


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)


def _calibration_error(answered: Answered, *, seed: int) -> Interval:
    """How far confidence and the share of right answers differ, over 15 bins; the interval is shifted by its bias."""
    n = len(answered.right)
    if not n:
        return Interval(None, 0.0, 1.0, 0)
    bins = confidence_bins(answered.confidence, bins=CALIBRATION_BINS)
    gaps = np.zeros((int(answered.of.max()) + 1, CALIBRATION_BINS))
    np.add.at(gaps, (answered.of, bins), answered.confidence - answered.right)
    sizes = np.bincount(answered.of).astype(np.float64)
    value = float(np.abs(gaps.sum(axis=0)).sum() / n)
    draws = np.random.default_rng(seed).multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=RESAMPLES)
    samples = np.abs(draws @ gaps).sum(axis=1) / np.maximum(draws @ sizes, 1)
    low, high = np.clip(np.quantile(samples - (samples.mean() - value), [0.025, 0.975]), 0, 1)
    return Interval(value, float(min(value, low)), float(max(value, high)), n)
