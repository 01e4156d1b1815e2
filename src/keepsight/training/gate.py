"""The gate: whether a challenger may replace the champion, decided from answers to the same held-out pictures.

Each check says ``pass``, ``fail`` or ``cannot_tell``; the last means that the estimate is good enough but its 95 %
bound is not, so more pictures or a person must decide. Pure functions on arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.tasks.intervals import Interval, wilson

Status = Literal["pass", "fail", "cannot_tell"]
Decision = Literal["deploy", "ask", "reject"]

Z_ONE_SIDED_95 = 1.6448536269514722
DRIFT = "drift"


@dataclass(frozen=True)
class Check:
    """One thing that a release must show.

    Attributes:
        name: Stable name, such as ``test`` or ``recall of knife``.
        status: pass, fail or cannot_tell.
        value: The estimate (a difference of shares, a share, or milliseconds); None where nothing was measured.
        threshold: What it was compared with.
        low, high: One-sided 95 % bounds of the value, where it is uncertain.
        n: Pictures behind it.
        reason: The result in plain words, with its numbers.
    """

    name: str
    status: Status
    value: float | None
    threshold: float | None
    low: float | None
    high: float | None
    n: int
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """The check as JSON-able values."""
        return asdict(self)


@dataclass(frozen=True)
class GateResult:
    """``deploy`` where all checks pass, ``reject`` where one fails, ``ask`` (a person) otherwise."""

    decision: Decision
    checks: tuple[Check, ...]

    def as_dict(self) -> dict[str, Any]:
        """``{"decision", "checks": [...]}``."""
        return {"decision": self.decision, "checks": [check.as_dict() for check in self.checks]}


def paired_difference(
    champion_correct: ArrayLike, challenger_correct: ArrayLike, *, groups: ArrayLike | None = None
) -> Interval:
    """How much larger the challenger's share of right answers is, on the same pictures.

    ``low`` and ``high`` are each a one-sided 95 % bound (together a 90 % interval), since the gate asks one-sided
    questions: the adjusted Wald bounds for matched pairs of Agresti and Min (2005), with half a picture added to each
    of the four cells, so that models which never differ on n pictures still have bounds of about 1.6 / n. With groups
    the variance is multiplied by the design effect of cluster sampling, kept between 1 and that of groups which agree
    wholly, and Student's quantile with groups - 1 degrees replaces the normal one.

    Args:
        champion_correct: (n,) whether the champion was right.
        challenger_correct: (n,) whether the challenger was right on the same pictures.
        groups: (n,) groups of pictures that are not independent.

    Returns:
        The difference, from -1 to 1; no value and [-1, 1] where n = 0.
    """
    champion = np.asarray(champion_correct, dtype=bool)
    challenger = np.asarray(challenger_correct, dtype=bool)
    if champion.shape != challenger.shape:
        raise ValueError("champion and challenger must have answered the same pictures")
    n = len(champion)
    if n == 0:
        return Interval(value=None, low=-1.0, high=1.0, n=0)
    gained, lost = int((challenger & ~champion).sum()), int((champion & ~challenger).sum())
    value = (gained - lost) / n
    adjusted = (gained - lost) / (n + 2)
    variance = ((gained + lost + 1) / (n + 2) - adjusted**2) / (n + 2)
    effect, quantile = _design(challenger.astype(np.float64) - champion, groups)
    half = quantile * math.sqrt(variance * effect)
    return Interval(
        value=value,
        low=max(-1.0, min(value, adjusted - half)),
        high=min(1.0, max(value, adjusted + half)),
        n=n,
    )


def decide(
    *,
    challenger_test: NDArray[np.bool_] | None,
    champion_test: NDArray[np.bool_] | None = None,
    challenger_recent: NDArray[np.bool_] | None = None,
    champion_recent: NDArray[np.bool_] | None = None,
    test_groups: ArrayLike | None = None,
    recent_groups: ArrayLike | None = None,
    test_labels: Sequence[str] | None = None,
    trigger: str,
    margin: float = 0.02,
    margin_drift: float = 0.05,
    min_accuracy: float | None = None,
    min_recall: Mapping[str, float] | None = None,
    max_latency_ms: float | None = None,
    latency_ms: float | None = None,
) -> GateResult:
    """What happens to the challenger.

    Against a champion, the lower 95 % bound of the paired difference must lie above -``margin`` on ``test`` and on
    ``recent``; where drift started the run, above 0 on ``recent`` (the model must have learned the new conditions)
    and above -``margin_drift`` on ``test``. Without recent pictures only drift asks for them. Without a champion, and
    besides, the thresholds count: the lower 95 % bound (Wilson) of accuracy and of the recall of named classes on
    ``test``, and the latency as measured.

    Args:
        challenger_test, champion_test: (n,) whether each was right on the test pictures; no champion where None.
        challenger_recent, champion_recent: (m,) likewise on the recent pictures.
        test_groups, recent_groups: Groups of pictures that are not independent.
        test_labels: (n,) true classes, for ``min_recall``.
        trigger: What started the run; "drift" changes the margins.
        margin, margin_drift: Shares, 0..1.
        min_accuracy: Least accuracy on test, or None.
        min_recall: Least recall of named classes on test.
        max_latency_ms: Longest time for a picture, or None.
        latency_ms: The measured time.
    """
    checks: list[Check] = []
    drifted = trigger == DRIFT
    test = np.zeros(0, dtype=bool) if challenger_test is None else np.asarray(challenger_test, dtype=bool)
    if champion_test is not None:
        checks.append(
            _compare("test", champion_test, test, groups=test_groups, allowed=margin_drift if drifted else margin)
        )
        if challenger_recent is not None and champion_recent is not None and len(challenger_recent):
            checks.append(
                _compare(
                    "recent",
                    champion_recent,
                    challenger_recent,
                    groups=recent_groups,
                    allowed=0.0 if drifted else margin,
                )
            )
        elif drifted:
            checks.append(_nothing("recent", 0.0, "There are no recent checked pictures that could show a gain."))
    if min_accuracy is not None:
        checks.append(_at_least("accuracy", "of all test pictures", test, min_accuracy, groups=test_groups))
    labels = np.asarray([] if test_labels is None else test_labels, dtype=object)
    for name, least in sorted((min_recall or {}).items()):
        rows = labels == name
        of = None if test_groups is None else np.asarray(test_groups)[rows]
        checks.append(_at_least(f"recall of {name}", f'of the test pictures of "{name}"', test[rows], least, groups=of))
    if max_latency_ms is not None:
        checks.append(_latency(latency_ms, max_latency_ms))
    statuses = {check.status for check in checks}
    decision: Decision = "reject" if "fail" in statuses else "ask" if "cannot_tell" in statuses else "deploy"
    return GateResult(decision, tuple(checks))


def _compare(
    name: str, champion: ArrayLike, challenger: ArrayLike, *, groups: ArrayLike | None, allowed: float
) -> Check:
    """The paired check: the lower bound of the difference above -``allowed``."""
    found = paired_difference(champion, challenger, groups=groups)
    if found.value is None:
        return _nothing(name, -allowed, f"There are no {name} pictures on which the two models can be compared.")
    new, old = float(np.mean(np.asarray(challenger, dtype=bool))), float(np.mean(np.asarray(champion, dtype=bool)))
    status = _status(found.value, found.low, -allowed)
    told = (
        f"On {_pictures(found.n, name)} the new model is right on {new:.1%} and the live one on {old:.1%}: "
        f"{_points(found.value)}."
    )
    bound = f"{'gain' if found.low > 0 else 'loss'} of {abs(found.low) * 100:.1f} points"
    needed = f"a loss below {allowed * 100:.1f} points is allowed" if allowed > 0 else "it must be better"
    if status == "pass":
        told += f" At worst (95 % sure) that is a {bound}; {needed}."
    elif status == "fail":
        told += f" That is not enough: {needed}."
    else:
        told += f" But it could be a {bound}, and {needed}: too few pictures to tell{_more(found, -allowed)}."
    return Check(name, status, found.value, -allowed, found.low, found.high, found.n, told)


def _at_least(name: str, whose: str, right: NDArray[np.bool_], least: float, *, groups: ArrayLike | None) -> Check:
    """The threshold check: the lower bound of a share not below ``least``."""
    found = wilson(right, groups=groups, z=Z_ONE_SIDED_95)
    if found.value is None:
        return _nothing(name, least, f"There are none {whose}, so nobody can tell whether {least:.1%} are right.")
    status: Status = "pass" if found.low >= least else "fail" if found.value < least else "cannot_tell"
    told = f"The new model is right on {found.value:.1%} {whose} ({found.n}); at least {least:.1%} are asked for."
    if status == "pass":
        told += f" It is {found.low:.1%} or more for sure (95 %)."
    elif status == "cannot_tell":
        told += f" But it could be as low as {found.low:.1%}: too few pictures to tell{_more(found, least)}."
    return Check(name, status, found.value, least, found.low, found.high, found.n, told)


def _latency(measured_ms: float | None, longest_ms: float) -> Check:
    if measured_ms is None:
        return _nothing("latency", longest_ms, f"Nobody measured whether a picture takes at most {longest_ms:g} ms.")
    good = measured_ms <= longest_ms
    told = f"A picture takes {measured_ms:.1f} ms; at most {longest_ms:g} ms are {'asked for' if good else 'allowed'}."
    return Check("latency", "pass" if good else "fail", measured_ms, longest_ms, None, None, 0, told)


def _nothing(name: str, threshold: float, reason: str) -> Check:
    return Check(name, "cannot_tell", None, threshold, None, None, 0, reason)


def _status(value: float, low: float, least: float) -> Status:
    """A difference must lie above ``least``, and so must its lower bound."""
    if low > least:
        return "pass"
    return "cannot_tell" if value > least else "fail"


def _design(differences: NDArray[np.float64], groups: ArrayLike | None) -> tuple[float, float]:
    """The design effect of grouped pictures, and the one-sided 95 % quantile."""
    n = len(differences)
    if groups is None:
        return 1.0, Z_ONE_SIDED_95
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
    return effect, float(stdtrit(count - 1, 0.95))


def _more(found: Interval, least: float) -> str:
    """How many pictures would do if the estimate stays, where that is a number to hope for."""
    value = found.value or 0.0
    if value <= least or found.low >= value:
        return ""
    needed = math.ceil(found.n * ((value - found.low) / (value - least)) ** 2)
    return f"; about {needed} would do" if needed <= 50 * found.n else ""


def _points(difference: float) -> str:
    if difference == 0:
        return "no difference"
    return f"{abs(difference) * 100:.1f} points {'better' if difference > 0 else 'worse'}"


def _pictures(n: int, name: str) -> str:
    return f"{n} {name} picture{'' if n == 1 else 's'}"
