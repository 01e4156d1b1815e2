"""Which events count as units of evidence: a burst of the same scene counts once.

The drift alarm's guarantee holds for exchangeable units. Ten frames of one shelf in ten seconds are one observation,
not ten, and would make an ordinary scene look like a change.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import BadInputError
from keepsight.monitoring.arrays import pack, unpack


class UnitFilter:
    """Lets the first event of a burst pass.

    An event is passed over if its source had a counted event less than ``gap_s`` ago, or if its features' cosine with
    one of the last ``window`` counted events is above ``cosine``. A camera that never pauses still counts once every
    ``gap_s``.

    The state holds the features of the last counted pictures, so it is derived data: register it and drop it on
    erasure.

    Args:
        window: Counted events to compare with.
        gap_s: Seconds within which events of one source count once.
        cosine: Similarity above which two pictures show the same scene.
    """

    def __init__(self, *, window: int = 32, gap_s: float = 10.0, cosine: float = 0.995) -> None:
        if window < 1 or gap_s < 0.0 or not 0.0 < cosine <= 1.0:
            raise BadInputError(
                f"A unit filter was set up with window {window}, gap {gap_s} s and cosine {cosine}.",
                expected="a window of 1 or more, a gap of 0 s or more, a cosine above 0 and at most 1.",
                do="Correct these settings.",
            )
        self.window, self.gap_s, self.cosine = window, gap_s, cosine
        self._last_s: dict[str, float] = {}
        # Half precision from the start, so that a restored filter compares with the same numbers.
        self._recent: NDArray[np.float32] | None = None
        self._admitted = 0

    def admit(self, features: NDArray[np.floating[Any]], *, at_s: float, source: str | None = None) -> bool:
        """Whether this event counts; if so it is remembered.

        Args:
            features: The served vector, shape (d,).
            at_s: Time of the event in seconds, of any origin; earlier than before is taken as it comes.
            source: Camera or customer; None is no source, so that only similarity is judged.

        Raises:
            BadInputError: The features are not a finite vector of the length seen before.
        """
        vector = np.asarray(features, np.float32)
        length = float(np.linalg.norm(vector)) if vector.ndim == 1 else math.nan
        known = vector.size if self._recent is None else self._recent.shape[1]
        if not math.isfinite(length) or vector.size != known:
            raise BadInputError(
                f"Features of shape {vector.shape} came to the unit filter.",
                expected=f"a finite vector of {known} numbers.",
                do="Make a new filter when another bundle is deployed.",
            )
        unit = (vector / max(length, 1e-12)).astype(np.float16).astype(np.float32)
        if self._recent is None:
            self._recent = np.zeros((self.window, vector.size), np.float32)
        last_s = self._last_s.get(source) if source is not None else None
        if last_s is not None and abs(at_s - last_s) < self.gap_s:
            return False
        if float((self._recent @ unit).max()) > self.cosine:
            return False
        self._recent[self._admitted % self.window] = unit
        self._admitted += 1
        if source is not None:
            # Sources whose gap is over are forgotten, so that the table stays as small as the traffic is.
            self._last_s = {name: time for name, time in self._last_s.items() if abs(at_s - time) < self.gap_s}
            self._last_s[source] = at_s
        return True

    def state(self) -> bytes:
        """The state, from which ``restore`` goes on exactly."""
        recent = np.zeros((self.window, 0), np.float32) if self._recent is None else self._recent
        return pack(
            {
                "settings": np.array([self.window, self.gap_s, self.cosine, self._admitted], np.float64),
                "recent": recent.astype(np.float16),
                "sources": np.array(list(self._last_s), np.str_),
                "last_s": np.array(list(self._last_s.values()), np.float64),
            }
        )

    @classmethod
    def restore(cls, state: bytes) -> UnitFilter:
        """The filter that ``state`` was taken from.

        Raises:
            BadInputError: The state is not one of this class.
        """
        arrays = unpack(state, {"settings", "recent", "sources", "last_s"})
        window, gap_s, cosine, admitted = (float(value) for value in arrays["settings"])
        made = cls(window=int(window), gap_s=gap_s, cosine=cosine)
        made._admitted = int(admitted)
        made._last_s = dict(zip(map(str, arrays["sources"]), map(float, arrays["last_s"]), strict=True))
        if arrays["recent"].shape[1]:
            made._recent = arrays["recent"].astype(np.float32)
        return made
