"""How a phase of training went, step by step, so that it can go the same way again without a clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The time of a phase is noted in so many parts: fine enough for a learning rate, few enough for a run's record.
PARTS = 500
# Step, parts of the phase's time that are over.
Mark = tuple[int, int]


@dataclass(frozen=True)
class Course:
    """How a phase went.

    Attributes:
        steps: Of its schedule.
        ended_at: Steps that were done: fewer where time was over or the held-out loss no longer fell.
        kept_at: The step whose averaged weights are kept.
        pace: Where time was ahead of the steps: from which step on, and how many of 500 parts of it were over.
    """

    steps: int
    ended_at: int
    kept_at: int
    pace: tuple[Mark, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For a run's record; the pace as ``step:parts`` in a line, since people look at records."""
        pace = " ".join(f"{step}:{parts}" for step, parts in self.pace)
        return {"steps": self.steps, "ended_at": self.ended_at, "kept_at": self.kept_at, "pace": pace}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Course:
        """The course that ``as_dict`` wrote."""
        marks = (mark.split(":") for mark in values["pace"].split())
        pace = tuple((int(step), int(parts)) for step, parts in marks)
        return cls(values["steps"], values["ended_at"], values["kept_at"], pace)


class Pace:
    """Which share of a phase is done: the larger of its steps and its time.

    Args:
        steps: Of the schedule.
        marks: What is known of the time already: of a phase that is taken up again, or followed.
    """

    def __init__(self, steps: int, marks: Sequence[Mark] = ()) -> None:
        self.steps = steps
        self.marks: list[Mark] = list(marks)

    def measured(self, step: int, *, spent: float) -> float:
        """The share at a step when this share of the time is over; notes what following needs."""
        parts = min(int(spent * PARTS), PARTS)
        share = max(step / self.steps, parts / PARTS)
        if share != self.followed(step):
            self.marks.append((step, parts))
        return share

    def followed(self, step: int) -> float:
        """The share at a step by what was noted."""
        place = bisect_right(self.marks, (step, PARTS))
        return max(step / self.steps, self.marks[place - 1][1] / PARTS if place else 0.0)
