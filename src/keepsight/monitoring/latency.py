"""Latency percentiles from a histogram of fixed size.

The buckets grow by a constant factor (as in DDSketch: Masson, Rim and Lee 2019), so a percentile is right within a
fixed relative error whatever the distribution, histograms of servers and minutes add up exactly, and a state is 170
integers. Every eighth bucket edge is a bucket of the Prometheus histogram, so those counts are exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from keepsight.errors import BadInputError

# 24 buckets per factor of ten: neighbours differ by 10.07 %, the middle is at most 4.8 % from either edge.
PER_DECADE = 24
LOWEST_MS = 0.1
DECADES = 7
EDGES = PER_DECADE * DECADES
HIGHEST_MS = LOWEST_MS * 10.0**DECADES
_STEP: float = 10.0 ** (1.0 / PER_DECADE)
# The point of a bucket whose relative error towards both edges is the same: 2 * lower * upper / (lower + upper).
_MIDDLE = 2.0 * _STEP / (1.0 + _STEP)
_PROMETHEUS_EVERY = 8
RELATIVE_ERROR = (_STEP - 1.0) / (_STEP + 1.0)


class LatencyHistogram:
    """Counts of latencies between 0.1 ms and 1,000 s; shorter and longer ones count at the ends.

    Not locked: feed one from one thread (or under the caller's lock) and add several with ``merge``.
    """

    def __init__(self) -> None:
        # Bucket i holds (edge i-1, edge i], bucket 0 all up to LOWEST_MS, the last all above HIGHEST_MS.
        self._counts = [0] * (EDGES + 2)
        self._sum_ms = 0.0

    def observe(self, latency_ms: float) -> None:
        """Counts one latency.

        Raises:
            BadInputError: The latency is negative or not a number.
        """
        if not (math.isfinite(latency_ms) and latency_ms >= 0.0):
            raise BadInputError(
                f"A latency of {latency_ms} ms was measured.",
                expected="a finite number of milliseconds, zero or more.",
                do="Measure with a monotonic clock (time.perf_counter).",
            )
        self._counts[_bucket(latency_ms)] += 1
        self._sum_ms += latency_ms

    @property
    def count(self) -> int:
        """Latencies counted so far."""
        return sum(self._counts)

    @property
    def sum_ms(self) -> float:
        """Sum of all latencies in milliseconds."""
        return self._sum_ms

    def percentile(self, percent: float) -> float | None:
        """The latency in ms that ``percent`` (0-100) of the observations do not exceed; None before the first one.

        The nearest-rank percentile, at most 4.8 % off between 0.1 ms and 1,000 s. Outside that range it is the end's
        value.

        Raises:
            BadInputError: ``percent`` is not between 0 and 100.
        """
        if not 0.0 <= percent <= 100.0:
            raise BadInputError(
                f"Percentile {percent} was asked for.", expected="a number from 0 to 100.", do="Ask for 50, 95 or 99."
            )
        count = self.count
        if count == 0:
            return None
        rank = max(1, math.ceil(percent / 100.0 * count - 1e-9))
        index = 0
        while rank > self._counts[index]:
            rank -= self._counts[index]
            index += 1
        if index == 0:
            return LOWEST_MS
        return HIGHEST_MS if index == EDGES + 1 else _edge(index - 1) * _MIDDLE

    def summary(self) -> dict[str, float | int | None]:
        """``count``, ``mean_ms``, ``p50_ms``, ``p95_ms``, ``p99_ms`` for the dashboard; None before the first one."""
        count = self.count
        return {
            "count": count,
            "mean_ms": self._sum_ms / count if count else None,
            "p50_ms": self.percentile(50),
            "p95_ms": self.percentile(95),
            "p99_ms": self.percentile(99),
        }

    def prometheus_buckets(self) -> list[tuple[float, int]]:
        """Cumulative counts as (``le`` in seconds, count), three per factor of ten, the last ``(inf, count)``.

        With ``sum_ms / 1000`` and ``count`` this is what a Prometheus histogram exposes.
        """
        out, running = [], 0
        for index, size in enumerate(self._counts[:-1]):
            running += size
            if index % _PROMETHEUS_EVERY == 0:
                out.append((float(f"{_edge(index) / 1000.0:.3g}"), running))
        out.append((math.inf, running + self._counts[-1]))
        return out

    def merge(self, other: LatencyHistogram) -> LatencyHistogram:
        """A new histogram with the counts of both."""
        both = LatencyHistogram()
        both._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        both._sum_ms = self._sum_ms + other._sum_ms
        return both

    def state(self) -> dict[str, Any]:
        """JSON-able state: the scale, the buckets that are not empty, and the sum."""
        return {
            "scale": [LOWEST_MS, DECADES, PER_DECADE],
            "counts": {str(index): size for index, size in enumerate(self._counts) if size},
            "sum_ms": self._sum_ms,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> LatencyHistogram:
        """The histogram that ``state`` was taken from.

        Raises:
            BadInputError: The state is not one of this class or was written with another scale.
        """
        made = cls()
        try:
            if list(state["scale"]) != [LOWEST_MS, DECADES, PER_DECADE]:
                raise ValueError("another scale")
            for index, size in state["counts"].items():
                if not 0 <= int(index) < EDGES + 2 or int(size) < 0:
                    raise ValueError("a bucket outside the scale")
                made._counts[int(index)] = int(size)
            made._sum_ms = float(state["sum_ms"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInputError(
                f"A stored latency histogram cannot be read: {error}.",
                expected=f"scale {[LOWEST_MS, DECADES, PER_DECADE]}, counts and sum_ms.",
                do="Begin a new histogram; older percentiles stay as they were stored.",
            ) from error
        return made


def _edge(index: int) -> float:
    """Upper edge of bucket ``index`` in ms; bucket 0 ends at LOWEST_MS."""
    return float(LOWEST_MS * 10.0 ** (index / PER_DECADE))


def _bucket(latency_ms: float) -> int:
    if latency_ms <= LOWEST_MS:
        return 0
    index = math.ceil(PER_DECADE * math.log10(latency_ms / LOWEST_MS) - 1e-9)
    return min(max(index, 1), EDGES + 1)
