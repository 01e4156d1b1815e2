"""How often the model is right in production, from audited verdicts only.

An audit is drawn at random with a known probability and judged before the model's answer is shown. Everything else that
people report (customers' feedback, the review queue of uncertain or risky pictures) is a biased sample: useful as
labels, worthless as a measurement. So it never moves these figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, get_args

from keepsight.errors import BadInputError

SelectedBy = Literal["audit", "uncertain", "risky", "feedback"]

# Bets as parts of the largest that cannot go bankrupt, and parts of the capital dealt out again before each bet.
_FRACTIONS = (0.0, 0.03, 0.06, 0.12, 0.25, 0.5, 0.9)
_RATES = (0.0005, 0.01)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One reviewed (or not yet reviewed) prediction.

    Attributes:
        correct: Whether the model was right; None while nobody has answered.
        selected_by: Why the picture was shown to a person.
        probability: Chance with which it was selected, above 0 and at most 1; read for audits only.
    """

    correct: bool | None
    selected_by: SelectedBy
    probability: float = 1.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """Accuracy with its interval.

    Attributes:
        value: Weighted share of correct answers among the answered audits; None where there is none.
        low: Lower end of the interval, 0 to 1.
        high: Upper end.
        n_answered: Audits with a verdict.
        n_unanswered: Audits without one; they widen the interval.
    """

    value: float | None
    low: float
    high: float
    n_answered: int
    n_unanswered: int

    def as_dict(self) -> dict[str, float | int | None]:
        """The figures under their names."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n_answered": self.n_answered,
            "n_unanswered": self.n_unanswered,
        }


def estimate(verdicts: Iterable[Verdict], *, confidence: float = 0.95) -> Estimate:
    """The model's accuracy on the traffic that the audits were drawn from.

    Each audit counts with one over its inclusion probability (the ratio estimator of Hajek 1971, after Horvitz and
    Thompson 1952). The interval is Wilson's (1927) with the effective sample size of Kish (1965), ``sum(w)^2 /
    sum(w^2)``. Unanswered audits may all be wrong or all be right: the lower end supposes the one, the upper end the
    other (Manski 1990), so no assumption about why they are unanswered is made. ``value`` alone supposes that
    answering does not depend on being right.

    Args:
        verdicts: Any verdicts; all but audits are passed over.
        confidence: Coverage of the interval, for a figure that is looked at once. For an alarm under repeated looks use
            ``AccuracyMonitor``.

    Raises:
        BadInputError: An audit without a usable inclusion probability, or a confidence outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise BadInputError(
            f"The confidence is {confidence}.", expected="a number between 0 and 1.", do="Use 0.95 or 0.99."
        )
    right = answered = missing = squares = 0.0
    n_answered = n_unanswered = 0
    for verdict in verdicts:
        if not _is_audit(verdict):
            continue
        weight = 1.0 / verdict.probability
        squares += weight * weight
        if verdict.correct is None:
            n_unanswered += 1
            missing += weight
        else:
            n_answered += 1
            answered += weight
            right += weight * verdict.correct
    total = answered + missing
    if n_answered == 0:
        return Estimate(None, 0.0, 1.0, 0, n_unanswered)
    effective = total * total / squares
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    low = _wilson(right / total, effective, z)[0]
    high = _wilson((right + missing) / total, effective, z)[1]
    return Estimate(right / answered, low, high, n_answered, n_unanswered)


@dataclass(frozen=True, slots=True)
class AccuracyState:
    """What the accuracy alarm knows.

    Attributes:
        answered: Audits used.
        evidence: Natural logarithm of the capital won by betting that accuracy is below the threshold.
        limit: The alarm's limit for ``evidence``.
        alarm: Whether ``evidence`` ever reached ``limit``.
        alarmed_at: The number of audits at which it did first.
    """

    answered: int
    evidence: float
    limit: float
    alarm: bool
    alarmed_at: int | None


class AccuracyMonitor:
    """Alarm for "accuracy fell below its release figure" that may be looked at after every verdict.

    Null hypothesis: every audited answer is right with probability at least ``threshold = release_accuracy -
    tolerance``, given all before it. A bet on the contrary multiplies the capital by ``1 + b * (threshold -
    correct)``, of mean at most 1, so by Ville's inequality the chance of ever a false alarm is at most ``alpha``
    (testing by betting: Waudby-Smith and Ramdas 2023). Several bets share the capital by fixed share, so that a fall
    after a long good time is found too. Differing inclusion probabilities enter as ``audit_share / probability``,
    which keeps the mean that of the traffic.

    Assumes that whether an audit is answered does not depend on the answer's being right. To suppose nothing, pass
    those given up as correct: the guarantee then holds whatever they were, at some cost in speed.
    The release figure is itself an estimate; ``tolerance`` should cover its interval.
    Needs at least about ``log(1 / alpha)`` audits divided by the information of one: 20 to 60 for a fall of .2.

    Args:
        release_accuracy: Accuracy at release, 0 to 1.
        tolerance: How far below it is still well.
        alpha: Chance of ever a false alarm.
        audit_share: The smallest inclusion probability that audits may have.

    Raises:
        BadInputError: A number out of range.
    """

    def __init__(
        self, *, release_accuracy: float, tolerance: float = 0.05, alpha: float = 0.01, audit_share: float = 1.0
    ) -> None:
        threshold = release_accuracy - tolerance
        if not (0.0 < threshold < 1.0 and 0.0 < alpha < 1.0 and 0.0 < audit_share <= 1.0):
            raise BadInputError(
                f"An accuracy alarm was set up with release accuracy {release_accuracy}, tolerance {tolerance}, "
                f"alpha {alpha} and audit share {audit_share}.",
                expected="release accuracy minus tolerance, alpha and audit share between 0 and 1.",
                do="Correct these settings.",
            )
        self.threshold = threshold
        self.alpha = alpha
        self.audit_share = audit_share
        share = 0.5 / (len(_FRACTIONS) - 1)
        self._prior = [0.5] + [share] * (len(_FRACTIONS) - 1)
        self._capital = [[part / len(_RATES) for part in self._prior] for _ in _RATES]
        self._log_scale = 0.0
        self._answered = 0
        self._alarmed_at: int | None = None

    def update(self, verdict: Verdict) -> AccuracyState:
        """The state after one verdict; all but answered audits leave it as it was.

        Raises:
            BadInputError: An audit's inclusion probability is below ``audit_share``.
        """
        if not _is_audit(verdict) or verdict.correct is None:
            return self.current()
        if verdict.probability < self.audit_share * (1.0 - 1e-9):
            raise BadInputError(
                f"An audit was drawn with probability {verdict.probability}, below the monitor's {self.audit_share}.",
                expected="audit_share to be the smallest inclusion probability in use.",
                do="Make a new monitor when the audit share is lowered.",
            )
        # The payoff is at least -(1 - threshold), so bets up to 1 / (1 - threshold) never go bankrupt.
        payoff = (self.threshold - verdict.correct) * min(1.0, self.audit_share / verdict.probability)
        factors = [1.0 + fraction / (1.0 - self.threshold) * payoff for fraction in _FRACTIONS]
        for row, rate in zip(self._capital, _RATES, strict=True):
            shared = sum(row) * rate
            row[:] = [
                (part * (1.0 - rate) + shared * prior) * factor
                for part, prior, factor in zip(row, self._prior, factors, strict=True)
            ]
        total = sum(map(sum, self._capital))
        self._capital = [[part / total for part in row] for row in self._capital]
        self._log_scale += math.log(total)
        self._answered += 1
        if self._alarmed_at is None and self._log_scale >= -math.log(self.alpha):
            self._alarmed_at = self._answered
        return self.current()

    def current(self) -> AccuracyState:
        """The state without a new verdict."""
        return AccuracyState(
            answered=self._answered,
            evidence=self._log_scale,
            limit=-math.log(self.alpha),
            alarm=self._alarmed_at is not None,
            alarmed_at=self._alarmed_at,
        )

    def state(self) -> dict[str, Any]:
        """JSON-able state, from which ``restore`` goes on exactly."""
        return {
            "threshold": self.threshold,
            "alpha": self.alpha,
            "audit_share": self.audit_share,
            "capital": [list(row) for row in self._capital],
            "log_scale": self._log_scale,
            "answered": self._answered,
            "alarmed_at": self._alarmed_at,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> AccuracyMonitor:
        """The monitor that ``state`` was taken from.

        Raises:
            BadInputError: The state is not one of this class.
        """
        try:
            made = cls(
                release_accuracy=float(state["threshold"]),
                tolerance=0.0,
                alpha=float(state["alpha"]),
                audit_share=float(state["audit_share"]),
            )
            capital = [[float(part) for part in row] for row in state["capital"]]
            if [len(row) for row in capital] != [len(_FRACTIONS)] * len(_RATES):
                raise ValueError("another number of bets")
            made._capital = capital
            made._log_scale = float(state["log_scale"])
            made._answered = int(state["answered"])
            made._alarmed_at = None if state["alarmed_at"] is None else int(state["alarmed_at"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadInputError(
                f"A stored accuracy monitor cannot be read: {error}.",
                expected="what AccuracyMonitor.state() gives.",
                do="Begin a new monitor.",
            ) from error
        return made


def _is_audit(verdict: Verdict) -> bool:
    if verdict.selected_by not in get_args(SelectedBy):
        raise BadInputError(
            f'A verdict was selected by "{verdict.selected_by}".',
            expected=f"one of: {', '.join(get_args(SelectedBy))}.",
            do="Store the reason with the event.",
        )
    if verdict.selected_by != "audit":
        return False
    if not 0.0 < verdict.probability <= 1.0:
        raise BadInputError(
            f"An audit has the inclusion probability {verdict.probability}.",
            expected="a number above 0 and at most 1.",
            do="Store the audit share that was in force when the picture was drawn.",
        )
    return True


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval for ``share`` of ``n`` (which need not be whole)."""
    middle = (share + z * z / (2.0 * n)) / (1.0 + z * z / n)
    half = z / (1.0 + z * z / n) * math.sqrt(max(0.0, share * (1.0 - share) / n + z * z / (4.0 * n * n)))
    return max(0.0, middle - half), min(1.0, middle + half)
