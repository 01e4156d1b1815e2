"""How well a gallery recognises: who it names rightly, whom it takes for somebody else, how similarities tell apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.tasks.intervals import Interval, wilson
from keepsight.tasks.recognition.matching import UNKNOWN, Item, matched, similarities

RESAMPLES = 200
# The false-accept rates of pairs at which verification is told, where there are ten pairs for them.
PAIR_RATES = (0.01, 0.001)
_LEAST_TAIL = 10


@dataclass(frozen=True)
class RecognitionMetrics:
    """Figures of a gallery on labelled pictures.

    Attributes:
        figures: By name. Of those in the gallery: ``identification`` (found and rightly named: the most similar one is
            right and similar enough), ``rank1`` (the most similar one is right, whatever the threshold says). Of
            strangers: ``rejection`` (answered "unknown"), ``false_accepts`` (taken for somebody). ``right``: pictures
            with nothing to correct. Of pairs of a face and a name: ``verification_auc``, and ``accepted_at_0.01`` and
            so on, the share of right pairs accepted where that share of wrong pairs is.
        counts: The numbers behind them.
        per_class: For everybody in the gallery who occurs, how often they were rightly named.
    """

    figures: Mapping[str, Interval]
    counts: Mapping[str, int]
    per_class: Mapping[str, Interval]

    def as_dict(self) -> dict[str, Any]:
        """``{"identification": {"value", "low", "high", "n"}, ..., "counts": {...}, "per_class": {name: ...}}``."""
        return {
            **{name: figure.as_dict() for name, figure in self.figures.items()},
            "counts": dict(self.counts),
            "per_class": {name: {"recall": figure.as_dict()} for name, figure in self.per_class.items()},
        }


@dataclass(frozen=True)
class _Probe:
    """One annotated subject and what was said about it."""

    name: str
    said: Item | None
    group: int

    @property
    def named_rightly(self) -> bool:
        return self.said is not None and self.said["label"] == self.name

    @property
    def first(self) -> str | None:
        """The most similar one in the gallery."""
        found = {} if self.said is None else similarities(self.said)
        return max(found, key=lambda name: found[name]) if found else None


def measure(
    predictions: Sequence[Mapping[str, Any] | None],
    values: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    groups: ArrayLike | None,
    seed: int,
) -> RecognitionMetrics:
    """The figures; see ``keepsight.tasks.recognition.evaluate``. Shares have Wilson intervals, those of pairs the
    percentiles of 200 bootstrap samples of whole groups.
    """
    of = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    enrolled = set(names)
    known: list[_Probe] = []
    strangers: list[_Probe] = []
    counts: Counter[str] = Counter(pictures=len(values))
    clean: list[bool] = []
    for prediction, value, group in zip(predictions, values, of, strict=True):
        said = () if prediction is None else prediction["subjects"]
        fine = prediction is not None
        for answer, true in matched(said, value["subjects"]):
            if true is None:
                counts["found_too_many"] += 1
                fine = False
                continue
            name = str(true["label"])
            probe = _Probe(name if name in enrolled else UNKNOWN, answer, int(group))
            (known if name in enrolled else strangers).append(probe)
            fine &= probe.named_rightly
        clean.append(fine)
    seen = [probe for probe in strangers if probe.said is not None]
    named = [probe.named_rightly for probe in known]
    counts.update(
        known=len(known),
        identified=sum(named),
        misnamed=sum(probe.said is not None and probe.said["label"] not in (probe.name, UNKNOWN) for probe in known),
        not_found=sum(probe.said is None for probe in (*known, *strangers)),
        strangers=len(seen),
        strangers_accepted=sum(not probe.named_rightly for probe in seen),
    )
    refused = [probe.named_rightly for probe in seen]
    where, aside = [probe.group for probe in known], [probe.group for probe in seen]
    figures = {
        "identification": wilson(named, groups=where),
        "rank1": wilson([probe.first == probe.name for probe in known], groups=where),
        "rejection": wilson(refused, groups=aside),
        "false_accepts": wilson([not good for good in refused], groups=aside),
        "right": wilson(clean, groups=of),
        **_verification([*known, *seen], seed=seed),
    }
    per_class = {
        name: wilson([probe.named_rightly for probe in known if probe.name == name])
        for name in sorted({probe.name for probe in known})
    }
    return RecognitionMetrics(figures, dict(counts), per_class)


def _verification(probes: Sequence[_Probe], *, seed: int) -> dict[str, Interval]:
    """How well the similarity of a pair tells whether it is right."""
    same: list[tuple[float, int]] = []
    other: list[tuple[float, int]] = []
    for probe in probes:
        for name, value in ({} if probe.said is None else similarities(probe.said)).items():
            (same if name == probe.name else other).append((value, probe.group))
    rates = [rate for rate in PAIR_RATES if rate * len(other) >= _LEAST_TAIL]
    if not same or not other:
        return {"verification_auc": Interval(None, 0.0, 1.0, 0)}
    right, wrong = np.array(same), np.array(other)
    count = int(max(right[:, 1].max(), wrong[:, 1].max())) + 1
    everybody = np.unique(np.concatenate([right[:, 1], wrong[:, 1]])).astype(np.int64)
    weights = [np.ones(count)]
    random = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        drawn = random.choice(everybody, size=len(everybody))
        weights.append(np.bincount(drawn, minlength=count).astype(np.float64))
    rows = [_curve(right, wrong, weight, rates) for weight in weights]
    table = np.array([row for row in rows if row is not None])
    low, high = np.quantile(table, [0.025, 0.975], axis=0)
    figures = [
        Interval(float(value), float(min(value, a)), float(max(value, b)), len(right))
        for value, a, b in zip(table[0], low, high, strict=True)
    ]
    named = ["verification_auc", *(f"accepted_at_{rate:g}" for rate in rates)]
    return dict(zip(named, figures, strict=True))


def _curve(
    right: NDArray[np.float64], wrong: NDArray[np.float64], weight: NDArray[np.float64], rates: Sequence[float]
) -> list[float] | None:
    """Area under the curve, and the share of right pairs above the threshold of each rate, groups weighted."""
    w_right, w_wrong = weight[right[:, 1].astype(np.int64)], weight[wrong[:, 1].astype(np.int64)]
    if not w_right.sum() or not w_wrong.sum():
        return None
    order = np.argsort(wrong[:, 0])
    values, below = wrong[order, 0], np.cumsum(w_wrong[order])
    total = below[-1]
    under = np.concatenate([[0.0], below])
    # Ties count half.
    smaller = under[np.searchsorted(values, right[:, 0], side="left")]
    not_larger = under[np.searchsorted(values, right[:, 0], side="right")]
    area = float((w_right * (smaller + not_larger) / 2).sum() / (total * w_right.sum()))
    shares = []
    for rate in rates:
        threshold = values[min(len(values) - 1, int(np.searchsorted(below, (1 - rate) * total)))]
        shares.append(float((w_right * (right[:, 0] > threshold)).sum() / w_right.sum()))
    return [area, *shares]
