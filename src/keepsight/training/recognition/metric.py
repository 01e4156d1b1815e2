"""A metric head: directions in which views of one name differ anyway count less (linear discriminant analysis).

Unit vectors are whitened by their shrunk within-name covariance (Fisher 1936; the shrinkage of Ledoit and Wolf's kind,
its strength chosen here), so it takes a few hundred views of a few dozen names and no gradient step. Names that come
later gain as well, since what differs from view to view (light, distance, shelf) is much the same for them. Whether
they do is tried: each name's views are compared under a head that was made from the other names only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import TrainingError
from keepsight.training.recognition import trials
from keepsight.training.recognition.network import Projection, unit
from keepsight.training.recognition.trials import Ints, Trials, Vectors

SHRINKAGES = (0.1, 0.3, 0.6)
FOLDS = 5
# With fewer there is more noise than knowledge in the covariance.
LEAST_NAMES = 10
LEAST_VIEWS = 100


@dataclass(frozen=True)
class Metric:
    """A head that was made from all views, and the trials of each view under a head that had not seen its name."""

    projection: Projection
    trials: Trials
    shrinkage: float
    compared: dict[str, float]


def fit(
    vectors: Vectors, of: Ints, groups: Ints, *, seed: int, tell: Callable[[float], None] = lambda _share: None
) -> Metric:
    """The head with the shrinkage that names most views of unseen names rightly.

    Args:
        vectors: float32 (n, d).
        of: (n,) whose each is; -1 for strangers, who are compared and teach nothing.
        groups: (n,) views of one group are left out together.
        seed: Of the folds of names.
        tell: Called with the finished share.

    Raises:
        TrainingError: There are too few names with several views.
    """
    _, counts = np.unique(of[of >= 0], return_counts=True)
    several = int((counts > 1).sum())
    if several < LEAST_NAMES or len(of) < LEAST_VIEWS:
        raise TrainingError(
            f"There are {several} names with several views, and {len(of)} views in all.",
            expected=f"at least {LEAST_NAMES} and {LEAST_VIEWS}: it learns from how views of one name differ.",
            do="Use the recipe gallery, which needs none of them, until there are more.",
        )
    fold_of = np.random.default_rng(seed).permutation(np.arange(int(of.max()) + 1) % FOLDS)
    folds = np.where(of >= 0, fold_of[np.maximum(of, 0)], 0)
    found: dict[float, Trials] = {}
    for number, shrinkage in enumerate(SHRINKAGES):
        found[shrinkage] = _out_of_fold(vectors, of, groups, folds, shrinkage)
        tell((number + 1) / len(SHRINKAGES))
    shares = {shrinkage: _named(found[shrinkage]) for shrinkage in SHRINKAGES}
    best = max(SHRINKAGES, key=lambda shrinkage: (shares[shrinkage], shrinkage))
    known = of >= 0
    return Metric(
        projection=whitening(vectors[known], of[known], shrinkage=best),
        trials=found[best],
        shrinkage=best,
        compared={f"{shrinkage:g}": share for shrinkage, share in shares.items()},
    )


def whitening(vectors: Vectors, of: Ints, *, shrinkage: float) -> Projection:
    """The projection that whitens what is within names.

    Args:
        vectors: float32 (n, d).
        of: (n,) names as numbers.
        shrinkage: Share of the identity in the covariance, above 0 and at most 1.
    """
    x = unit(vectors).astype(np.float64)
    _, number = np.unique(of, return_inverse=True)
    counts = np.bincount(number)
    means = np.zeros((len(counts), x.shape[1]))
    np.add.at(means, number, x)
    means /= counts[:, None]
    within = x - means[number]
    # A name with one view says nothing about how views differ.
    freedom = max(1, int((counts - 1).sum()))
    covariance = within.T @ within / freedom
    level = max(float(np.trace(covariance)) / len(covariance), 1e-12)
    spread, axes = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * level * np.eye(len(covariance)))
    matrix = axes / np.sqrt(np.maximum(spread, 1e-9 * level))
    return Projection(x.mean(axis=0).astype(np.float32), (matrix @ axes.T).astype(np.float32))


def _out_of_fold(vectors: Vectors, of: Ints, groups: Ints, folds: Ints, shrinkage: float) -> Trials:
    """The trials of each view under a head made without its name, in the gallery of all names."""
    n = len(of)
    own, best, second = np.full(n, np.nan), np.full(n, -1.0), np.full(n, -1.0)
    others = 0
    for fold in range(FOLDS):
        out = folds == fold
        taught = ~out & (of >= 0)
        if not out.any() or not taught.any():
            continue
        head = whitening(vectors[taught], of[taught], shrinkage=shrinkage)
        found = trials.run(head.apply(vectors), of, groups, places=out)
        own[out], best[out], second[out] = found.own, found.best, found.second
        others = max(others, found.others)
    return Trials(own, best, second, others)


def _named(found: Trials) -> float:
    judged: NDArray[np.bool_] = found.judged
    return float(found.first[judged].mean()) if judged.any() else 0.0
