"""Two models on the same pictures: how far apart they are, how sure that is, and where one falls behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.tasks.intervals import Interval
from keepsight.training.gate.results import Status

ONE_SIDED = 0.05
Z_ONE_SIDED_95 = 1.6448536269514722


def paired_difference(
    champion_scores: ArrayLike,
    challenger_scores: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    alpha: float = ONE_SIDED,
) -> Interval:
    """How much larger the challenger's mean score is, on the same pictures.

    ``low`` and ``high`` are each a one-sided 95 % bound (together a 90 % interval), since the gate asks one-sided
    questions: the adjusted Wald bounds for matched pairs of Agresti and Min (2005), with half a picture added to each
    of the four cells, so that models which never differ on n pictures still have bounds of about 1.6 / n; scores
    between 0 and 1 enter the same formula. With groups the variance is multiplied by the design effect of cluster
    sampling, kept between 1 and that of groups which agree wholly, and Student's quantile with groups - 1 degrees
    replaces the normal one.

    Args:
        champion_scores: (n,) how right the champion was, 0 to 1.
        challenger_scores: (n,) how right the challenger was on the same pictures.
        groups: (n,) groups of pictures that are not independent.
        alpha: How often each bound may be wrong.

    Returns:
        The difference, from -1 to 1; no value and [-1, 1] where n = 0.
    """
    champion = np.asarray(champion_scores, dtype=np.float64)
    challenger = np.asarray(challenger_scores, dtype=np.float64)
    if champion.shape != challenger.shape:
        raise ValueError("champion and challenger must have answered the same pictures")
    n = len(champion)
    if n == 0:
        return Interval(value=None, low=-1.0, high=1.0, n=0)
    change = challenger - champion
    value = float(change.sum()) / n
    adjusted = float(change.sum()) / (n + 2)
    variance = ((float((change**2).sum()) + 1) / (n + 2) - adjusted**2) / (n + 2)
    effect, quantile = _design(change, groups, alpha)
    half = quantile * math.sqrt(variance * effect)
    return Interval(
        value=value,
        low=max(-1.0, min(value, adjusted - half)),
        high=min(1.0, max(value, adjusted + half)),
        n=n,
    )


@dataclass(frozen=True)
class Change:
    """How a part of the pictures fares before and after.

    Attributes:
        name: The part.
        before, after: Mean scores.
        difference: With one-sided 95 % bounds.
        status: ``fail``: it fell by more than is allowed, and that is no chance; ``cannot_tell``: it looks like that,
            but among so many parts one may; ``pass``: neither.
        fell: Whether it fell by more than is allowed on these pictures, be it by chance.
        excluded: Whether a larger fall than is allowed can be ruled out.
    """

    name: str
    before: float
    after: float
    difference: Interval
    status: Status
    fell: bool
    excluded: bool

    @property
    def value(self) -> float:
        """The difference."""
        return self.difference.value or 0.0

    def as_dict(self) -> dict[str, Any]:
        """The change as JSON-able values."""
        return {
            "name": self.name,
            "n": self.difference.n,
            "before": self.before,
            "after": self.after,
            "difference": self.difference.as_dict(),
            "status": self.status,
            "fell": self.fell,
            "excluded": self.excluded,
        }


def changes(
    parts: Mapping[str, NDArray[np.bool_]],
    before: NDArray[Any],
    after: NDArray[Any],
    *,
    groups: NDArray[np.int64] | None,
    allowed: float,
) -> list[Change]:
    """How each part changed, the worst first.

    Of many small parts some always look worse by chance, and none has enough pictures to rule a fall out. So a part
    fails only where it fell by more than ``allowed`` and the upper bound of the difference lies below 0 even at 5 %
    shared among all parts (Bonferroni): of models that are equal everywhere, at most one in twenty is rejected. Where
    it lies below 0 at 5 % for this part alone, nobody can tell.

    Args:
        parts: By name, bool (n,), which pictures; empty parts are passed over.
        before, after: (n,), how right each model was.
        groups: (n,) groups of pictures that are not independent.
        allowed: The largest fall, a share.
    """
    parts = {name: rows for name, rows in parts.items() if rows.any()}
    found = []
    for name, rows in parts.items():
        of = None if groups is None else groups[rows]
        difference = paired_difference(before[rows], after[rows], groups=of)
        surely = paired_difference(before[rows], after[rows], groups=of, alpha=ONE_SIDED / len(parts)).high < 0
        value = difference.value or 0.0
        fell = value < -allowed - 1e-9
        status: Status = "fail" if fell and surely else "cannot_tell" if fell and difference.high < 0 else "pass"
        found.append(
            Change(
                name=name,
                before=float(before[rows].mean()),
                after=float(after[rows].mean()),
                difference=difference,
                status=status,
                fell=fell,
                excluded=difference.low > -allowed,
            )
        )
    severity = {"fail": 0, "cannot_tell": 1, "pass": 2}
    return sorted(found, key=lambda change: (severity[change.status], change.value))


def _design(differences: NDArray[np.float64], groups: ArrayLike | None, alpha: float) -> tuple[float, float]:
    """The design effect of grouped pictures, and the one-sided quantile."""
    n = len(differences)
    if groups is None:
        return 1.0, NormalDist().inv_cdf(1 - alpha)
    of = np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(of).astype(np.float64)
    count = len(sizes)
    most = float((sizes**2).sum()) / n
    if count < 2:  # one group is one observation: nothing is known about the spread
        return most, math.inf
    from scipy.special import stdtrit

    off = differences - differences.mean()
    plain = float((off**2).sum()) / n**2
    sums = np.bincount(of, weights=off)
    grouped = count / (count - 1) * float((sums**2).sum()) / n**2
    effect = min(most, max(1.0, grouped / plain)) if plain > 0 else most
    return effect, float(stdtrit(count - 1, 1 - alpha))


def pictures_needed(found: Interval, least: float) -> int | None:
    """How many pictures would do if the estimate stays; None where that is no number to hope for."""
    value = found.value or 0.0
    if value <= least or found.low >= value:
        return None
    needed = math.ceil(found.n * ((value - found.low) / (value - least)) ** 2)
    return needed if needed <= 50 * found.n else None


def one_sided(figure: Mapping[str, Any]) -> Interval:
    """A stored figure with two-sided 95 % bounds, with about one-sided ones: drawn in as the normal quantiles are."""
    value, low, high = figure.get("value"), float(figure.get("low", 0.0)), float(figure.get("high", 1.0))
    n = int(figure.get("n", 0))
    if value is None:
        return Interval(None, low, high, n)
    share = Z_ONE_SIDED_95 / NormalDist().inv_cdf(0.975)
    return Interval(float(value), value - (value - low) * share, value + (high - value) * share, n)


def names_of(items: Sequence[str], *, most: int = 12) -> str:
    """Names in a sentence; only some where there are many."""
    shown = ", ".join(items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")
