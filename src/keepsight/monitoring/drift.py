"""The drift alarm: says when pictures stop looking like the reference, and may be looked at after every one of them.

Each unit (see ``units.UnitFilter``) gives one conformal p-value per score: how unlike the training pictures its
features are (four scores), each quality figure, the confidence, the place of the predicted class, and its place along
directions of change that are learned from the stream. Each sequence of p-values has a bettor of its own
(``betting``), and the alarm comes when one of them has won enough.

What is promised, for units that are exchangeable with the held-out pictures as long as nothing changed:

* ``ever``: the chance of ever a false alarm is at most ``alpha`` (Ville 1939).
* ``arl``: on average at least ``one_in`` units pass before a false alarm, and the chance of one within the first ``t``
  units is at most ``t / (2 * one_in)``. It reacts to a late change as fast as to an early one.

The bettors' capitals are martingales each in the filtration of its own p-values. In the common one they need not be,
because ranks of several scores depend on each other through the pool; so their average, though often used, is not
surely a martingale. Here each is held against its own limit, ``1 / weight`` times the budget's, with weights that sum
to 1: a union bound, which needs no common filtration. In ``arl`` mode Doob's inequality for the submartingale of mean
``t`` gives ``weight * t / limit`` for each, hence ``t / limit`` together; the limit ``2 * one_in`` then makes the
mean run length ``one_in`` at least. Days and nights, or an order of shops, are not exchangeable: a reference should
cover them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import BadInputError, ConflictError
from keepsight.monitoring.arrays import pack, unpack
from keepsight.monitoring.betting import Bets
from keepsight.monitoring.conformal import Floats, Ranks, uniforms
from keepsight.monitoring.directions import SLOTS, STRIDE, LearnedDirections
from keepsight.monitoring.reference import Figures, Reference

__all__ = ["DriftBudget", "DriftMonitor", "DriftState", "Figures", "Reference", "Why"]

# Part of the budget that learned directions have together; the other scores share the rest evenly.
_DIRECTIONS_SHARE = 0.25
# Memory in units of the mean p-value that tells "higher" from "lower", and how far from 1/2 it must be for that.
_LEAN_MEMORY = 10
_LEAN_CLEAR = 0.12
_NAMELESS = "directions"

# Score name: (text when it is lower, when it is higher, when it is only different).
_TEXTS = {
    "novelty": (
        "pictures are more alike than usual",
        "pictures look unlike the reference",
        "pictures vary differently",
    ),
    "spread": ("pictures vary less than usual", "pictures vary more than usual", "pictures vary differently"),
    "residual": (
        "pictures show less unusual detail than before",
        "pictures show things that the reference does not have",
        "the detail in the pictures changed",
    ),
    "strength": (
        "the model finds less in the pictures than usual",
        "the model finds more in the pictures than usual",
        "what the model finds in the pictures changed",
    ),
    "blur": ("pictures are blurrier than usual", "pictures are sharper or noisier than usual", "sharpness changed"),
    "brightness": (
        "pictures are darker than usual",
        "pictures are brighter than usual",
        "brightness varies differently",
    ),
    "contrast": ("pictures have less contrast than usual", "pictures have more contrast than usual", "contrast varies"),
    "warmth": ("pictures are bluer than usual", "pictures are redder than usual", "the colour of the light varies"),
    "tint": (
        "pictures are more purple than usual",
        "pictures are greener than usual",
        "the colour of the light varies",
    ),
    "confidence": (
        "the model is less sure than usual",
        "the model is surer than usual",
        "the model's confidence changed",
    ),
    "classes": ("the mix of predicted classes changed",) * 3,
    _NAMELESS: ("pictures differ from the reference in one consistent way",) * 3,
}


@dataclass(frozen=True, slots=True)
class DriftBudget:
    """How many false alarms the owner accepts.

    Attributes:
        mode: ``ever`` (chance of ever a false alarm) or ``arl`` (units between false alarms, on average).
        alpha: The chance in ``ever`` mode.
        one_in: The units in ``arl`` mode.
    """

    mode: Literal["ever", "arl"] = "ever"
    alpha: float = 0.01
    one_in: int = 10_000

    def __post_init__(self) -> None:
        if self.mode not in ("ever", "arl") or not 0.0 < self.alpha < 1.0 or self.one_in < 1:
            raise BadInputError(
                f"The drift budget is mode {self.mode}, alpha {self.alpha}, one in {self.one_in}.",
                expected='mode "ever" or "arl", alpha between 0 and 1, one_in 1 or more.',
                do="Correct the monitor's settings.",
            )

    @property
    def limit(self) -> float:
        """Logarithm of the weighted capital at which the alarm comes."""
        return -math.log(self.alpha) if self.mode == "ever" else math.log(2.0 * self.one_in)


@dataclass(frozen=True, slots=True)
class Why:
    """One reason for the evidence.

    Attributes:
        score: Name of the score.
        text: What changed, in plain words, lower case, without a full stop.
        share: Its part of the evidence, 0 to 1.
    """

    score: str
    text: str
    share: float


@dataclass(frozen=True, slots=True)
class DriftState:
    """What the alarm knows after a unit.

    Attributes:
        units: Units seen.
        evidence: Logarithm of the largest weighted capital now.
        limit: The alarm's limit for ``evidence``.
        alarm: Whether the limit was ever reached; it stays until a new monitor is made.
        alarmed_at: The number of units at which it was reached first.
    """

    units: int
    evidence: float
    limit: float
    alarm: bool
    alarmed_at: int | None

    @property
    def progress(self) -> float:
        """Way to the alarm, 0 to 1, for a gauge."""
        return min(1.0, max(0.0, self.evidence / self.limit))


class DriftMonitor:
    """Anytime-valid drift alarm for one bundle variant. A new deployment or a settled alarm begins a new one.

    Power: a strong change shows within 5 to 20 units, a moderate one within 30 to 60. At least 10 held-out pictures;
    below 100 weak changes are found late.

    Args:
        reference: What the pictures are compared with.
        seed: Random tie-breaks and the reference's halves; draw a new one for each monitor.
        budget: False alarms accepted.
    """

    def __init__(self, reference: Reference, *, seed: int, budget: DriftBudget | None = None) -> None:
        self.reference = reference
        self.seed = seed
        self.budget = budget or DriftBudget()
        heldout = reference.heldout
        half = np.argsort(uniforms(seed, 2**63, len(heldout)), kind="stable") < len(heldout) // 2
        self._directions = LearnedDirections(reference.directions(heldout), half)
        rows = len(reference.row_names)
        self._rows = rows
        self._ranks = Ranks(rows + SLOTS)
        for row, bins in enumerate(reference.row_bins(heldout).T):
            self._ranks.fill(row, bins)
        restarting = np.zeros(rows + SLOTS, np.bool_)
        restarting[:rows] = self.budget.mode == "arl"
        self._bets = Bets(restarting)
        self._log_weights: Floats = np.full(rows + SLOTS, -np.inf)
        self._log_weights[:rows] = math.log((1.0 - _DIRECTIONS_SHARE) / rows)
        self._lean: Floats = np.full(rows + SLOTS, 0.5)
        # Per score and for all directions together: most ever won, and the lean at that time (what explain tells).
        self._peak: Floats = np.zeros(rows + 1)
        self._peak_lean: Floats = np.full(rows + 1, 0.5)
        self._units = 0
        self._alarmed_at: int | None = None
        self._evidence = -math.inf

    def update(
        self,
        features: NDArray[np.floating[Any]],
        quality: NDArray[np.floating[Any]],
        *,
        confidence: float,
        predicted: int,
    ) -> DriftState:
        """The state after one more unit.

        Args:
            features: Served vector, shape (d,).
            quality: Quality figures, shape (q,), in the reference's order.
            confidence: Calibrated confidence of the answer, 0 to 1.
            predicted: Index of the predicted class.

        Raises:
            BadInputError: A shape does not fit the reference, a number is not finite, or the class is unknown; the
                state is then as before.
        """
        scores = self.reference.scores(
            Figures(
                np.asarray(features)[None], np.asarray(quality)[None], np.array([confidence]), np.array([predicted])
            )
        )
        unit = self.reference.directions(scores)[0]
        bins = np.concatenate([self.reference.row_bins(scores)[0], self._directions.bins(unit)])
        p = self._ranks.add(bins, uniforms(self.seed, self._units, bins.size))
        self._lean += (p - self._lean) / _LEAN_MEMORY
        self._note(self._bets.step(p))
        begun = self._directions.learn(unit, self._units - 1)
        if begun is not None:
            self._begin(*begun)
        return self.current()

    def _note(self, capital: Floats) -> None:
        """Takes in the log capital of each row after a unit."""
        self._units += 1
        self._evidence = float((capital + self._log_weights).max())
        won = capital[: self._rows + 1].copy()
        if self.budget.mode == "arl":
            # Restarting bettors hold one unit of capital per unit seen when they have won nothing.
            won -= math.log(self._units)
        # A slot without a direction yet has no weight and plays no part.
        won[-1] = capital[self._rows :].max(where=self._log_weights[self._rows :] > -np.inf, initial=0.0)
        higher = won > self._peak
        self._peak[higher] = won[higher]
        self._peak_lean[higher] = self._lean[: self._rows + 1][higher]
        if self._alarmed_at is None and self._evidence >= self.budget.limit:
            self._alarmed_at = self._units

    def _begin(self, slot: int, pool: NDArray[np.int64]) -> None:
        """Starts a learned direction in its slot, in place of the one that was there."""
        row = self._rows + slot
        epoch = self._units // STRIDE
        self._ranks.fill(row, pool)
        self._bets.reset(row)
        self._lean[row] = 0.5
        # "ever": 1 / (epoch (epoch + 1)) sums to 1 over all epochs. "arl": its units' part of the budget.
        weight = STRIDE if self.budget.mode == "arl" else 1.0 / (epoch * (epoch + 1))
        self._log_weights[row] = math.log(_DIRECTIONS_SHARE * weight)

    def current(self) -> DriftState:
        """The state without a new unit."""
        return DriftState(
            units=self._units,
            evidence=self._evidence,
            limit=self.budget.limit,
            alarm=self._alarmed_at is not None,
            alarmed_at=self._alarmed_at,
        )

    def explain(self) -> list[Why]:
        """What changed, strongest first: the scores that won a tenth or more of the evidence; empty without any.

        Meant for a time when the alarm is on. Before it, it names the strongest suspicion.
        """
        names = (*self.reference.row_names, _NAMELESS)
        total = float(self._peak.sum())
        return [
            Why(names[row], _text(names[row], float(self._peak_lean[row])), float(self._peak[row]) / total)
            for row in np.argsort(-self._peak, kind="stable")
            if self._peak[row] > 0.0 and self._peak[row] >= 0.1 * total
        ]

    def state(self) -> bytes:
        """The state, from which ``restore`` goes on exactly. It holds counts and means, nothing of a single picture."""
        alarmed_at = -1 if self._alarmed_at is None else self._alarmed_at
        return pack(
            {
                "reference": np.array(self.reference.digest),
                "mode": np.array(self.budget.mode),
                "alpha": np.array(self.budget.alpha),
                "whole": np.array([self.budget.one_in, self.seed, self._units, alarmed_at], np.int64),
                "evidence": np.array(self._evidence),
                "cumulative": self._ranks.cumulative,
                "log_weights": self._log_weights,
                "lean": self._lean,
                "peak": self._peak,
                "peak_lean": self._peak_lean,
                **self._bets.arrays(),
                **self._directions.arrays(),
            }
        )

    @classmethod
    def restore(cls, state: bytes, reference: Reference) -> DriftMonitor:
        """The monitor that ``state`` was taken from.

        Raises:
            ConflictError: The state belongs to another reference (another bundle, or one with a picture erased).
            BadInputError: The state is damaged or of another version.
        """
        arrays = unpack(state, {"reference", "mode", "alpha", "whole", "evidence", "cumulative"})
        if str(arrays["reference"]) != reference.digest:
            raise ConflictError(
                "The stored drift state belongs to another reference.",
                expected="the reference of the deployed bundle variant.",
                do="Begin a new monitor: after a deployment or an erasure the watch starts anew.",
            )
        try:
            one_in, seed, units, alarmed_at = (int(value) for value in arrays["whole"])
            mode: Literal["ever", "arl"] = "arl" if str(arrays["mode"]) == "arl" else "ever"
            made = cls(reference, seed=seed, budget=DriftBudget(mode, float(arrays["alpha"]), one_in))
            made._units = units
            made._alarmed_at = None if alarmed_at < 0 else alarmed_at
            made._evidence = float(arrays["evidence"])
            own = {
                "cumulative": made._ranks.cumulative,
                "log_weights": made._log_weights,
                "lean": made._lean,
                "peak": made._peak,
                "peak_lean": made._peak_lean,
            }
            for name, array in own.items():
                if arrays[name].shape != array.shape:
                    raise ValueError(f"{name} has the shape {arrays[name].shape}, not {array.shape}")
                array[...] = arrays[name]
            made._bets.load(arrays)
            made._directions.load(arrays)
        except (KeyError, ValueError) as error:
            raise BadInputError(
                f"A stored drift state cannot be read: {error}.",
                expected="what DriftMonitor.state() gives.",
                do="Begin a new monitor; alarms already stored are not lost.",
            ) from error
        return made


def _text(name: str, mean_p: float) -> str:
    """Plain words for a score; a low mean p-value means that its values are high."""
    lower, higher, different = _TEXTS.get(
        name, (f"{name} is lower than usual", f"{name} is higher than usual", f"{name} varies differently")
    )
    if mean_p < 0.5 - _LEAN_CLEAR:
        return higher
    return lower if mean_p > 0.5 + _LEAN_CLEAR else different
