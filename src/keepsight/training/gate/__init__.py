"""The gate: whether a challenger may replace the champion, decided from what both did on the same held-out pictures.

Each check says ``pass``, ``fail`` or ``cannot_tell``; the last means that there is too little evidence, so more
pictures or a person must decide. ``decide`` is a pure function of :class:`Evidence` and settings.
"""

from __future__ import annotations

from keepsight.training.gate.checks import CHECKS, decide
from keepsight.training.gate.comparison import paired_difference
from keepsight.training.gate.evidence import Evidence, Int8Answers, Judged, Settings
from keepsight.training.gate.results import Check, Decision, GateResult, Status, open_checks, open_reasons
from keepsight.training.gate.sides import side_by_side

__all__ = [
    "CHECKS",
    "Check",
    "Decision",
    "Evidence",
    "GateResult",
    "Int8Answers",
    "Judged",
    "Settings",
    "Status",
    "decide",
    "open_checks",
    "open_reasons",
    "paired_difference",
    "side_by_side",
]
