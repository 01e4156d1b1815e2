"""What a training run may take: time, and money as time at the machine's hourly price.

A budget is asked during training; nothing is killed by it. A run that was cut off goes on with what it had left: what
was used is written with each checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Budget:
    """Time for one run.

    Attributes:
        total_s: All that the run may take, in seconds; ``math.inf`` for no limit.
        used_s: What earlier attempts of this run took.
        clock: Monotonic seconds.
    """

    total_s: float
    used_s: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    @property
    def spent_s(self) -> float:
        """Seconds taken, earlier attempts included."""
        return self.used_s + self.clock() - self._began

    @property
    def left_s(self) -> float:
        """Seconds left; never below 0."""
        return max(0.0, self.total_s - self.spent_s)

    def share(self, fraction: float) -> Budget:
        """A budget of a part of what is left, from now on."""
        return Budget(self.left_s * fraction, clock=self.clock)


def seconds_for(*, minutes: float | None, cost_eur: float | None, eur_per_hour: float) -> float:
    """The tighter of a limit of time and one of money, in seconds; ``math.inf`` where neither binds."""
    limits = [math.inf]
    if minutes is not None:
        limits.append(minutes * 60)
    if cost_eur is not None and eur_per_hour > 0:
        limits.append(cost_eur / eur_per_hour * 3600)
    return min(limits)
