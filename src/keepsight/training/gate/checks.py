"""The gate's checks in order, and the decision."""

from __future__ import annotations

from collections.abc import Callable

from keepsight.training.gate import figures, fitness
from keepsight.training.gate.evidence import Evidence, Settings
from keepsight.training.gate.results import Check, GateResult

CHECKS: tuple[Callable[[Evidence, Settings], list[Check]], ...] = (
    figures.against_champion,
    figures.enough_pictures,
    figures.accuracy,
    figures.metrics,
    figures.recall,
    figures.slices,
    figures.slice_drop,
    fitness.calibration,
    fitness.robustness,
    fitness.latency,
    fitness.size,
    fitness.int8_parity,
    fitness.licences,
    fitness.consent,
)
"""Each gives the checks that the settings ask for; none where they ask for nothing."""


def decide(evidence: Evidence, settings: Settings) -> GateResult:
    """What happens to the challenger: every check passed on what is known, and the decision that follows."""
    return GateResult.of([check for each in CHECKS for check in each(evidence, settings)])
