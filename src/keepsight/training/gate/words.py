"""Numbers of the gate in plain words."""

from __future__ import annotations

from keepsight.tasks.intervals import Interval
from keepsight.training.gate.comparison import pictures_needed


def points(difference: float) -> str:
    """``2.3 points better``."""
    if difference == 0:
        return "no difference"
    return f"{abs(difference) * 100:.1f} points {'better' if difference > 0 else 'worse'}"


def pictures(n: int, kind: str = "") -> str:
    """``1 test picture``, ``600 test pictures``."""
    return f"{n} {kind}{' ' if kind else ''}picture{'' if n == 1 else 's'}"


def more(found: Interval, least: float) -> str:
    """How many pictures would do if the estimate stays, where that is a number to hope for."""
    needed = pictures_needed(found, least)
    return "" if needed is None else f"; about {needed} would do"
