"""Directions of change learned from the stream itself.

A camera's change often moves many components a little: no single score shows it, but the mean's displacement does. So
every ``STRIDE`` units a direction is learned, from one half of the reference and the units so far to the mean of the
latest units, and from then on units are ranked along it among the *other* half of the reference and each other. Given
the direction, that half and the units to come are exchangeable, so the p-values along it are valid.

Each direction is a test of its own, in its own filtration. Its alarm level is therefore not added to others' capital
but weighted, and the weights of all directions that can ever start sum to what the budget gives them (a union bound).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.monitoring.conformal import Floats, Ints, bins_of

STRIDE = 16
# Directions live for SLOTS * STRIDE units.
SLOTS = 12
# Every second direction is learned from a longer memory, about 48 units: weaker changes need more units to show.
_SLOW = 1.0 / 3.0


class LearnedDirections:
    """The directions in force and the running means from which the next one is learned.

    Args:
        reference: Direction columns of the held-out pictures, shape (n, columns).
        half: True for the rows that directions are learned against, False for those that units are ranked among.
    """

    def __init__(self, reference: Floats, half: NDArray[np.bool_]) -> None:
        self._learn, self._rank = reference[half], reference[~half]
        self._mean = self._learn.mean(axis=0)
        columns = reference.shape[1]
        self._vectors: Floats = np.zeros((SLOTS, columns))
        self._middle: Floats = np.zeros(SLOTS)
        self._scale: Floats = np.ones(SLOTS)
        self._block: Floats = np.zeros(columns)
        self._slow: Floats = np.zeros(columns)

    def bins(self, unit: Floats) -> Ints:
        """Bins of one unit's columns along each slot's direction, shape (SLOTS,)."""
        return bins_of(np.arcsinh((self._vectors @ unit - self._middle) / self._scale))

    def learn(self, unit: Floats, index: int) -> tuple[int, Ints] | None:
        """Takes unit number ``index`` (from 0) in, after it was ranked.

        Returns:
            Where a new direction begins: its slot, and the bins of the reference half that units are ranked among.
        """
        self._block = self._block + unit
        if (index + 1) % STRIDE:
            return None
        latest = self._block / STRIDE
        self._block = np.zeros_like(self._block)
        epoch = index // STRIDE
        self._slow = latest if epoch == 0 else self._slow + _SLOW * (latest - self._slow)
        moved = (self._slow if epoch % 2 else latest) - self._mean
        slot = epoch % SLOTS
        self._vectors[slot] = moved / max(float(np.linalg.norm(moved)), 1e-12)
        along = self._learn @ self._vectors[slot]
        self._middle[slot] = along.mean()
        self._scale[slot] = max(float(along.std()), 1e-9)
        ranked = (self._rank @ self._vectors[slot] - self._middle[slot]) / self._scale[slot]
        return slot, bins_of(np.arcsinh(ranked))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state as arrays, for ``load``: means and directions, nothing of a single picture."""
        return {
            "directions_vectors": self._vectors,
            "directions_middle": self._middle,
            "directions_scale": self._scale,
            "directions_block": self._block,
            "directions_slow": self._slow,
        }

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Goes on from the state in ``arrays``.

        Raises:
            KeyError: An array is missing.
            ValueError: An array has another shape.
        """
        for name, own in self.arrays().items():
            if arrays[name].shape != own.shape:
                raise ValueError(f"{name} has the shape {arrays[name].shape}, not {own.shape}")
            own[...] = arrays[name]
