"""What a gallery would have answered to its own pictures, had they not been in it.

Each view is compared twice: with its name known by the name's other views (those of its group, near-duplicates and what
the user named so, left out as well), and with its name unknown. From the first come identification and confidence, from
the second the similarities of strangers that the threshold is taken from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keepsight.runtime.outputs.recognition.calibration import USUAL_KNOWN, USUAL_UNKNOWN, Calibration

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]
NOBODY = -1
_ROWS = 2048
# How strongly the usual weights of the confidence hold against what trials say: as that many trials would.
_PRIOR = 5.0


@dataclass(frozen=True)
class Trials:
    """The comparisons of n views; ``own`` is NaN where the name has no other view.

    Attributes:
        own: Similarity to the name's other views, float64 (n,).
        best: To the most similar other name, -1 where there is none.
        second: To the one after that.
        others: How many other names there were.
    """

    own: NDArray[np.float64]
    best: NDArray[np.float64]
    second: NDArray[np.float64]
    others: int

    @property
    def judged(self) -> NDArray[np.bool_]:
        """bool (n,), the views whose name has others."""
        return ~np.isnan(self.own)

    @property
    def first(self) -> NDArray[np.bool_]:
        """bool (n,), the views whose own name is the most similar one."""
        return self.judged & (np.nan_to_num(self.own, nan=-2.0) > self.best)

    def take(self, places: NDArray[np.bool_]) -> Trials:
        """Those of some views."""
        return Trials(self.own[places], self.best[places], self.second[places], self.others)


def run(vectors: Vectors, of: Ints, groups: Ints, *, places: NDArray[np.bool_] | None = None) -> Trials:
    """Compares views with the centres of all names.

    Args:
        vectors: float32 (n, d).
        of: (n,) whose each is, 0 upwards; -1: a stranger's, who is in no gallery.
        groups: (n,) views of one group are left out together.
        places: bool (n,), the views that are compared; all when not given. The others only make centres.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    count = int(of.max(initial=NOBODY)) + 1
    sums = np.zeros((count, unit.shape[1]), np.float32)
    known = of >= 0
    np.add.at(sums, of[known], unit[known])
    centres = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    chosen = np.flatnonzero(np.ones(len(of), np.bool_) if places is None else places)
    own = np.full(len(chosen), np.nan)
    best, second = np.full(len(chosen), -1.0), np.full(len(chosen), -1.0)
    mates = _mates(of, groups)
    for start in range(0, len(chosen), _ROWS):
        rows = chosen[start : start + _ROWS]
        similar = (unit[rows] @ centres.T).astype(np.float64)
        for at, row in enumerate(rows):
            if of[row] < 0:
                continue
            similar[at, of[row]] = -1.0
            rest = sums[of[row]] - unit[mates[int(of[row]), int(groups[row])]].sum(axis=0)
            length = float(np.linalg.norm(rest))
            # What remains of equal sums is rounding.
            if length > 1e-3:
                own[start + at] = float(rest @ unit[row]) / length
        if count:
            top = -np.sort(-similar, axis=1)[:, :2]
            best[start : start + len(rows)] = top[:, 0]
            second[start : start + len(rows)] = top[:, 1] if count > 1 else -1.0
    return Trials(own, best, second, max(0, count - 1))


def calibrated(trials: Trials, *, false_accepts: float, usual: float, people: int) -> Calibration:
    """What the trials say: the similarities of strangers, and how sure an answer is.

    Known and unknown ones weigh alike in the confidence: how many strangers will come is not known.
    """
    there = trials.best > -1.0
    plain = Calibration(
        false_accepts=false_accepts,
        usual=usual,
        strangers=np.sort(trials.best[there].astype(np.float32)),
        others=trials.others,
    )
    threshold = plain.threshold(people)
    judged = trials.take(trials.judged)
    right = judged.own > judged.best
    top = np.maximum(judged.own, judged.best)
    behind = np.where(right, judged.best, np.maximum(judged.own, judged.second))
    # The second half: the same views, had nobody known them.
    strangers = trials.take(there)
    tops, behinds = np.concatenate([top, strangers.best]), np.concatenate([behind, strangers.second])
    known = np.concatenate([right, np.zeros(len(strangers.best), np.bool_)])
    unknown = np.concatenate([np.zeros(len(top), np.bool_), np.ones(len(strangers.best), np.bool_)])
    taken = tops >= threshold
    lead = tops - np.maximum(behinds, 0.0)
    above = _fit(np.stack([tops - threshold, lead], axis=1)[taken], known[taken], usual=USUAL_KNOWN)
    below = _fit((threshold - tops)[~taken, None], unknown[~taken], usual=USUAL_UNKNOWN)
    return Calibration(
        false_accepts=false_accepts,
        usual=usual,
        strangers=plain.strangers,
        others=plain.others,
        known=(above[0], above[1], above[2]),
        unknown=(below[0], below[1]),
    )


def answered(trials: Trials, calibration: Calibration, *, people: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidence (n,) and whether the name was right (n,), for each view with its name known; 0 and False elsewhere."""
    threshold = calibration.threshold(people)
    confidence, right = np.zeros(len(trials.own)), np.zeros(len(trials.own), np.bool_)
    for at in np.flatnonzero(trials.judged):
        own, best = float(trials.own[at]), float(trials.best[at])
        top, second = (own, best) if own > best else (best, max(own, float(trials.second[at])))
        confidence[at] = calibration.sure_of(top, second=second, threshold=threshold)
        right[at] = own > best and own >= threshold
    return confidence, right


def _mates(of: Ints, groups: Ints) -> dict[tuple[int, int], Ints]:
    """The views of each name and group."""
    found: dict[tuple[int, int], list[int]] = {}
    for place, key in enumerate(zip(of.tolist(), groups.tolist(), strict=True)):
        found.setdefault(key, []).append(place)
    return {key: np.array(places, np.int64) for key, places in found.items()}


def _fit(facts: NDArray[np.float64], outcomes: NDArray[np.bool_], *, usual: Sequence[float]) -> list[float]:
    """Weights of a logistic regression, by Newton's method, drawn to the usual ones; no fact may speak against itself:
    a larger distance or lead never makes less sure.
    """
    x = np.column_stack([np.ones(len(facts)), facts])
    prior = np.asarray(usual, np.float64)
    weights = prior.copy()
    # A distance of 0.1 is a lot, so that a weight of 10 says as much as a bias of 1.
    strength = _PRIOR * np.array([1.0, *[0.01] * (len(usual) - 1)])
    y = outcomes.astype(np.float64)
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -60, 60)))
        slope = x.T @ (p - y) + strength * (weights - prior)
        bend = (x.T * (p * (1 - p))) @ x + np.diag(strength)
        step = np.linalg.solve(bend, slope)
        weights = weights - step
        weights[1:] = np.maximum(weights[1:], 0.0)
        if float(np.abs(step).max()) < 1e-8:
            break
    return [float(value) for value in weights]
