"""Bets against uniform p-values: capital that grows when a stream stops looking like its past.

Every row holds one sequence of p-values. Under the null hypothesis they are independent and uniform on (0, 1), so a
bet ``f(p)`` with ``f >= 0`` and integral 1 multiplies the capital by a factor of mean 1: the capital is a test
martingale, and by Ville's inequality it ever reaches ``1 / alpha`` with probability at most ``alpha`` (Ville 1939;
Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2nd ed. 2022, chapter 8).

Which bet wins is not known in advance, so each row holds many experts and a fixed-share mixture over them (Herbster
and Warmuth 1998; with linear bets alone this is the "simple jumper" of Vovk et al. 2021): a part ``rate`` of the
capital is dealt out again before every bet, so that the mixture follows a change that comes late. The experts are
fixed densities (low, high, extreme or central p-values) and histograms of the row's own past p-values with
exponential forgetting. These are predictable: they use only what came before the bet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.monitoring.conformal import Floats

# Parts of the capital dealt out again before each bet. On real streams anything from .0005 to .03 does equally well.
RATES: Floats = np.array([0.001, 0.01])
# Histogram experts: (bins, memory in units). The fine ones find a change of the class mix.
HISTOGRAMS = ((6, 40), (32, 50), (64, 100))
# Uniform pseudo-counts of a histogram, as a number of units spread over its bins.
PSEUDO_UNITS = 6.0
FIXED_COUNT = 12
EXPERTS = FIXED_COUNT + len(HISTOGRAMS)
# Half of the capital is dealt to the expert that does not bet: on a quiet stream it is right.
PRIOR: Floats = np.concatenate([[0.5], np.full(EXPERTS - 1, 0.5 / (EXPERTS - 1))])


def fixed_densities(p: Floats) -> Floats:
    """The fixed bets at ``p`` (rows,) as (rows, FIXED_COUNT); each integrates to 1, the first does not bet."""
    q = 1.0 - p
    centred = p - 0.5
    low, high, product = 0.5 / np.sqrt(p), 0.5 / np.sqrt(q), p * q
    square = product * product
    return np.array(
        [
            np.ones_like(p),
            1.0 + centred,
            1.0 - centred,
            p + p,
            q + q,
            low,
            high,
            0.2 * p**-0.8,
            0.2 * q**-0.8,
            0.5 * (low + high),
            6.0 * product,
            630.0 * square * square,
        ]
    ).T


class Bets:
    """Capital of several bettors, each against its own sequence of p-values.

    Args:
        restarting: Per row. False: one bettor from the start (a test martingale). True: a fresh bettor starts before
        every
            unit and the capitals add up, the Shiryaev-Roberts form of an e-detector (Shin, Ramdas and Rinaldo 2022): a
            submartingale whose mean after ``t`` quiet units is exactly ``t``.
    """

    def __init__(self, restarting: NDArray[np.bool_]) -> None:
        self._restarting = restarting.astype(np.float64)
        self._any_restarting = bool(restarting.any())
        rows = restarting.size
        self._row = np.arange(rows)
        self._capital: Floats = np.zeros((rows, RATES.size, EXPERTS))
        self._log_scale: Floats = np.zeros(rows)
        self._counts: list[Floats] = [np.zeros((rows, bins)) for bins, _ in HISTOGRAMS]
        for row in range(rows):
            self.reset(row)

    def reset(self, row: int) -> None:
        """Starts ``row`` anew with capital 1 (0 where restarting: the first bettor comes before the first unit)."""
        self._capital[row] = 0.0 if self._restarting[row] else PRIOR / RATES.size
        self._log_scale[row] = 0.0
        for counts in self._counts:
            counts[row] = 0.0

    def step(self, p: Floats) -> Floats:
        """Log capital of each row after betting on ``p`` of shape (rows,), strictly between 0 and 1."""
        densities = np.empty((p.size, EXPERTS))
        densities[:, :FIXED_COUNT] = fixed_densities(p)
        for index, (bins, memory) in enumerate(HISTOGRAMS):
            counts = self._counts[index]
            place = np.minimum((p * bins).astype(np.int64), bins - 1)
            seen, total = counts[self._row, place], counts.sum(axis=1)
            densities[:, FIXED_COUNT + index] = (bins * seen + PSEUDO_UNITS) / (total + PSEUDO_UNITS)
            counts *= 1.0 - 1.0 / memory
            counts[self._row, place] += 1.0
        capital = self._capital
        if self._any_restarting:
            fresh = self._restarting * np.exp(-self._log_scale) / RATES.size
            capital = capital + fresh[:, None, None] * PRIOR
        shared = capital.sum(axis=2, keepdims=True) * RATES[:, None]
        capital = (capital * (1.0 - RATES)[:, None] + shared * PRIOR) * densities[:, None, :]
        total = capital.sum(axis=(1, 2))
        self._log_scale = self._log_scale + np.log(total)
        self._capital = capital / total[:, None, None]
        return self._log_scale.copy()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state as arrays, for ``load``."""
        counts = {f"bets_counts_{bins}": held for (bins, _), held in zip(HISTOGRAMS, self._counts, strict=True)}
        return {"bets_capital": self._capital, "bets_log_scale": self._log_scale, **counts}

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
