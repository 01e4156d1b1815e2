"""The ``head`` recipe's numerics: a linear classifier on the frozen backbone's features, in seconds on a CPU.

The features x of a picture go through a signed square root and L2 normalisation (power normalisation, Perronnin 2010:
it tames the few loud channels of average-pooled activations), then one linear layer. The layer is a multinomial
logistic regression that is regularised not by the length of its weights but by how much they see inside classes: the
penalty is w' S w with S the shrunk within-class covariance (the metric of linear discriminant analysis), so
directions in which pictures of one class differ anyway (light, distance, shelf) are distrusted. Computed as an
ordinary ridge penalty after whitening by S. Classes weigh equally in the fit; the class frequencies come back, as far
as held-out pictures support it, as an offset of the logits (logit adjustment, Menon et al. 2021).

Shrinkage, strength, prior and temperature are chosen by the negative log likelihood of grouped out-of-fold predictions;
then all rows are fitted. Everything linear is folded into one weight matrix and bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.data.splits import cluster_near_duplicates, grouped_folds, join_groups, near_duplicate_threshold
from keepsight.errors import DataError
from keepsight.training.calibration import (
    ABSENT_LOGIT,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from keepsight.training.holdout import shows_enough

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_MAX_RANK = 640
_ITERATIONS = 60
_TOLERANCE = 1e-4
_FULL_SEARCH_COST = 2e9


@dataclass(frozen=True)
class Search:
    """What the out-of-fold comparison tries.

    Attributes:
        shrinkages: Shares of the identity in the within-class covariance, 0..1.
        strengths: Penalties; tried from strong to weak, each started from the one before.
        priors: Shares of the log class frequencies added to the logits: 0 all classes alike, 1 as frequent as in
            training.
        power: Exponent of the signed power normalisation (0.5 is the square root, 1 leaves the features as they are).
    """

    shrinkages: tuple[float, ...] = (0.15, 0.5)
    strengths: tuple[float, ...] = (1e-3, 3e-4, 1e-4, 3e-5)
    priors: tuple[float, ...] = (0.0, 0.5, 1.0)
    power: float = 0.5


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of each row by a model that saw no row of its group.

    Attributes:
        logits: (n, k) uncalibrated; 0 throughout for rows that were never held out.
        judged: (n,) rows that count: held out, the first view of their picture, of a class that the others show too.
        accuracy, macro_recall, nll, ece: over the judged rows after calibration; None where nothing could be judged.
    """

    logits: Floats
    judged: NDArray[np.bool_]
    accuracy: float | None
    macro_recall: float | None
    nll: float | None
    ece: float | None


@dataclass(frozen=True)
class Head:
    """A linear classifier on normalised features; ``logits`` is what the merged ONNX graph computes.

    Attributes:
        weight: (k, d) float32, bias (k,) float32: act on power- and L2-normalised features.
        power: Exponent of the power normalisation.
        temperature: The runtime divides the logits by it.
        strength, shrinkage, prior: What the search chose.
        oof: The out-of-fold predictions behind that choice.
        plan: JSON-able record of the search: candidates with their out-of-fold figures, folds, rank.
    """

    weight: Floats
    bias: Floats
    power: float
    temperature: float
    strength: float
    shrinkage: float
    prior: float
    oof: OutOfFold
    plan: Mapping[str, Any] = field(default_factory=dict)

    def logits(self, features: NDArray[np.floating]) -> Floats:
        """Uncalibrated logits (n, k) of raw backbone features (n, d)."""
        return normalise(features, power=self.power) @ self.weight.T + self.bias

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Calibrated probabilities (n, k), rows summing to 1."""
        return softmax(self.logits(features), temperature=self.temperature)


@dataclass(frozen=True)
class Axes:
    """Normalised features in their principal axes: rows (n, r), the axes (d, r) and the mean (d,)."""

    rows: Floats
    basis: Floats
    mean: Floats


def principal_axes(features: NDArray[np.floating], *, power: float, most: int = _MAX_RANK) -> Axes:
    """The rows of ``features`` (n, d), power- and L2-normalised, in at most ``most`` principal axes."""
    return _reduce(normalise(features, power=power), most=most)


def normalise(features: NDArray[np.floating], *, power: float) -> Floats:
    """sign(x) |x|^power, then divided by the L2 norm of the row (rows of zeros stay zero)."""
    x = np.asarray(features, dtype=np.float32)
    if power != 1:
        x = np.sign(x) * (np.sqrt(np.abs(x)) if power == 0.5 else np.abs(x) ** np.float32(power))
    norms = np.sqrt(np.sum(x * x, axis=1, keepdims=True))
    return np.asarray(x / np.maximum(norms, np.float32(1e-12)), dtype=np.float32)


def softmax(logits: NDArray[np.floating], *, temperature: float = 1.0) -> NDArray[np.float64]:
    """exp(logits / temperature) normalised over the last axis, in float64."""
    z = np.asarray(logits, dtype=np.float64) / temperature
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(z / z.sum(axis=-1, keepdims=True))


def fit_head(
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    groups: NDArray[Any],
    *,
    n_classes: int,
    seed: int,
    folds: int = 5,
    search: Search | None = None,
    first_view: NDArray[np.bool_] | None = None,
    validation: NDArray[np.bool_] | None = None,
    axes: Axes | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Head:
    """The head fitted to all rows, with its hyper-parameters and temperature from held-out groups.

    Equal inputs, seed, libraries and thread count give equal bits.

    Args:
        features: (n, d) raw features of the frozen backbone.
        labels: (n,) classes 0..n_classes-1. Classes without a row get probability 0.
        groups: (n,) rows that must not stand on both sides of a fold (one shelf, one customer). Near-duplicates at
            the level that the labels show (:func:`keepsight.data.splits.near_duplicate_threshold`) are joined to them
            here.
        n_classes: Number of classes, at least 2; two of them need a row.
        seed: Decides the folds.
        folds: Number of folds; fewer where there are fewer groups.
        search: Candidates to compare.
        first_view: (n,) False for further views (crops) of a picture: they train, but are never judged, as serving
            sees one view only. They carry their picture's group.
        validation: (n,) rows of a given validation split. Where they show at least half of the classes, they are what
            is held out instead of folds.
        axes: Those of ``features``, where several heads are fitted on them. The groups then stand as they are given.
        on_progress: Called with the finished share, 0..1; may raise to stop.

    Raises:
        DataError: fewer than two classes have pictures.
    """
    true = np.asarray(labels, dtype=np.int64)
    present = np.unique(true)
    if len(present) < 2:
        raise DataError(
            "All pictures have the same label." if len(true) else "There are no pictures to learn from.",
            expected="pictures of at least two classes.",
            do="Add pictures of another class, or correct the labels.",
            classes=len(present),
        )
    options = search or Search()
    tell = on_progress or (lambda _share: None)
    first = np.ones(len(true), dtype=bool) if first_view is None else np.asarray(first_view, dtype=bool)
    shared = axes is not None
    axes = axes or principal_axes(features, power=options.power)
    rows, basis, mean = axes.rows, axes.basis, axes.mean
    if len(rows) * rows.shape[1] * len(present) > _FULL_SEARCH_COST:
        # So much data needs little regularisation, and each fit takes many seconds: compare strengths only.
        options = Search(
            (options.shrinkages[len(options.shrinkages) // 2],), options.strengths, options.priors, options.power
        )
    scenes, level = (
        (np.asarray(groups), None) if shared else _scenes(features, true, groups, first, folds=folds, seed=seed)
    )
    fold_of, held_out_by = _hold_out(true, scenes, folds=folds, seed=seed, validation=validation)
    judged = first & _seen_elsewhere(true, fold_of)

    pairs = [
        (shrinkage, strength)
        for shrinkage in options.shrinkages
        for strength in sorted(options.strengths, reverse=True)
    ]
    logits = {pair: np.zeros((len(rows), n_classes), dtype=np.float32) for pair in pairs}
    numbers = [number for number in np.unique(fold_of) if number >= 0]
    for done, number in enumerate(numbers):
        out = fold_of == number
        whitened = _Whitening(rows[~out], true[~out])
        start = None
        for shrinkage in options.shrinkages:
            for strength in sorted(options.strengths, reverse=True):
                start = whitened.fit(shrinkage=shrinkage, strength=strength, start=start)
                weight, bias = whitened.linear(start, n_classes=n_classes)
                logits[shrinkage, strength][out] = rows[out] @ weight.T + bias
            tell((done + (options.shrinkages.index(shrinkage) + 1) / len(options.shrinkages)) / (len(numbers) + 1))
    log_prior = np.log(np.maximum(np.bincount(true[first], minlength=n_classes), 1e-6) / first.sum())
    chosen, candidates = _choose(logits, true, judged, priors=options.priors, log_prior=log_prior)
    shrinkage, strength, prior, temperature = chosen

    whitened = _Whitening(rows, true)
    weight, bias = whitened.linear(whitened.fit(shrinkage=shrinkage, strength=strength), n_classes=n_classes)
    # The offset is scaled by the temperature, because the runtime divides the whole logit by it.
    offset = np.where(np.isin(np.arange(n_classes), present), prior * temperature * log_prior, 0.0).astype(np.float32)
    full = weight @ basis.T
    oof_logits = np.where(fold_of[:, None] >= 0, logits[shrinkage, strength] + offset, np.float32(0))
    tell(1.0)
    return Head(
        weight=np.ascontiguousarray(full, dtype=np.float32),
        bias=(bias - full @ mean + offset).astype(np.float32),
        power=options.power,
        temperature=temperature,
        strength=strength,
        shrinkage=shrinkage,
        prior=prior,
        oof=_out_of_fold(oof_logits.astype(np.float32), true, judged, temperature),
        plan={
            "recipe": "head",
            "rows": len(rows),
            "pictures": int(first.sum()),
            "judged": int(judged.sum()),
            "held_out_by": held_out_by,
            "near_duplicate": level,
            "groups": len(np.unique(scenes)),
            "folds": len(numbers),
            "seed": seed,
            "rank": rows.shape[1],
            "power": options.power,
            "shrinkage": shrinkage,
            "strength": strength,
            "prior": prior,
            "temperature": temperature,
            "candidates": candidates,
        },
    )


def _scenes(
    features: NDArray[np.floating],
    labels: Ints,
    groups: NDArray[Any],
    first: NDArray[np.bool_],
    *,
    folds: int,
    seed: int,
) -> tuple[Ints, float | None]:
    """The groups with near-duplicates joined to them, and the cosine from which on pictures count as such.

    Out-of-fold figures are too good where the same crate stands in another fold, and the temperature with them. Where
    joining would leave fewer groups than folds, the groups stay as they were given (level None).
    """
    given = np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
    unit = normalise(np.asarray(features)[first], power=1)
    level = near_duplicate_threshold(unit, labels[first], seed=seed)
    clusters = np.full(len(labels), None, dtype=object)
    clusters[first] = cluster_near_duplicates(unit, threshold=level)
    joined = join_groups(given, clusters)
    if len(np.unique(joined)) < folds:
        return given, None
    return joined, level


def _hold_out(
    labels: Ints, groups: NDArray[Any], *, folds: int, seed: int, validation: NDArray[np.bool_] | None
) -> tuple[Ints, str]:
    """The fold of each row (-1: never held out), and how it was made."""
    if validation is not None:
        inside = np.asarray(validation, dtype=bool)
        if shows_enough(labels, inside):
            return np.where(inside, 0, -1).astype(np.int64), "validation"
    if len(np.unique(groups)) < 2:
        return np.full(len(labels), -1, dtype=np.int64), "nothing"
    fold_of = grouped_folds(groups, labels, folds=folds, seed=seed)
    # A fold without which fewer than two classes remain cannot be predicted.
    for number in np.unique(fold_of):
        if len(np.unique(labels[fold_of != number])) < 2:
            fold_of = np.where(fold_of == number, -1, fold_of)
    return fold_of, "folds"


def _seen_elsewhere(labels: Ints, fold_of: Ints) -> NDArray[np.bool_]:
    """Rows held out whose class the model of their fold has seen."""
    seen = np.zeros(len(labels), dtype=bool)
    for number in np.unique(fold_of[fold_of >= 0]):
        out = fold_of == number
        seen[out] = np.isin(labels[out], labels[~out])
    return seen


def _reduce(unit: Floats, *, most: int) -> Axes:
    """Centred rows in their principal axes.

    By default at most 640 axes are kept: what lies beyond holds a few percent of the energy and no measurable accuracy,
    and halves the time. The axes use no labels, so sharing them between folds does not tell a fold what it is asked.
    """
    mean = unit.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = unit - mean
    n, d = centred.shape
    if n > d:
        energy, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    else:
        energy, left = np.linalg.eigh((centred @ centred.T).astype(np.float64))
        axes = centred.T.astype(np.float64) @ (left / np.sqrt(np.maximum(energy, 1e-30)))
    order = np.argsort(-energy, kind="stable")[: min(most, n, d)]
    order = order[energy[order] > 1e-7 * max(float(energy.max()), 1e-12)]
    if len(order) == 0:  # all features equal: nothing to see, the classes' frequencies remain
        order = np.array([0])
        axes = np.eye(d, 1)
    basis = np.ascontiguousarray(axes[:, order], dtype=np.float32)
    return Axes(centred @ basis, basis, mean)


@dataclass(frozen=True)
class _Fit:
    """A solution in the axes of the within-class covariance: coefficients (c, r) of unwhitened columns, bias (c,)."""

    coefficients: Floats
    bias: Floats


class _Whitening:
    """Training rows in the axes of their within-class covariance, where whitening is a factor per column.

    So one eigendecomposition serves every shrinkage, and a solution for one starts the next.
    """

    def __init__(self, rows: Floats, labels: Ints) -> None:
        self.classes, of = np.unique(labels, return_inverse=True)
        counts = np.bincount(of).astype(np.float64)
        one_hot = np.zeros((len(rows), len(self.classes)), dtype=np.float32)
        one_hot[np.arange(len(rows)), of] = 1
        means = (one_hot.T @ rows).astype(np.float64) / counts[:, None]
        total = (rows.T @ rows).astype(np.float64)
        within = (total - (means * counts[:, None]).T @ means) / len(rows)
        spread, axes = np.linalg.eigh(within)
        # A little of the total spread keeps the metric finite where each class has one picture.
        self._floor = (max(float(np.trace(within)), 0.0) + 1e-3 * float(np.trace(total)) / len(rows)) / len(
            within
        ) + 1e-12
        self._spread = np.maximum(spread, 0.0)
        self._axes = axes.astype(np.float32)
        self._rows = rows @ self._axes
        self._of = of
        # Classes weigh equally; within a class its rows do.
        self._weights = (1 / (counts[of] * len(self.classes))).astype(np.float32)

    def fit(self, *, shrinkage: float, strength: float, start: _Fit | None = None) -> _Fit:
        """The solution for one shrinkage and strength."""
        scale = 1 / np.sqrt((1 - shrinkage) * self._spread + shrinkage * self._floor)
        energy = np.mean((self._rows.astype(np.float64) * scale) ** 2, axis=0)
        scale, energy = scale / np.sqrt(energy.sum() + 1e-30), energy / (energy.sum() + 1e-30)
        return _logistic(
            self._rows,
            self._of,
            self._weights,
            scale=scale,
            energy=energy,
            strength=strength,
            classes=len(self.classes),
            start=start,
        )

    def linear(self, fit: _Fit, *, n_classes: int) -> tuple[Floats, Floats]:
        """Weight (n_classes, r) and bias (n_classes,) for rows as they were given."""
        weight = np.zeros((n_classes, len(self._axes)), dtype=np.float32)
        bias = np.full(n_classes, ABSENT_LOGIT, dtype=np.float32)
        weight[self.classes] = fit.coefficients @ self._axes.T
        bias[self.classes] = fit.bias
        return weight, bias


def _logistic(
    rows: Floats,
    of: Ints,
    weights: Floats,
    *,
    scale: NDArray[np.float64],
    energy: NDArray[np.float64],
    strength: float,
    classes: int,
    start: _Fit | None,
) -> _Fit:
    """Weighted multinomial logistic regression on ``rows * scale`` with penalty strength / 2 * |W|^2, by L-BFGS.

    The unknowns are divided by the root of an estimate of the curvature (that of a uniform prediction plus the
    penalty), which brings the number of iterations from a hundred to about fifteen.
    """
    from scipy.optimize import minimize

    n, rank = rows.shape
    curvature = 2 / classes
    inner = 1 / np.sqrt(curvature * energy + strength)
    columns = (scale * inner).astype(np.float32)
    data = rows * columns
    penalty = (strength * inner**2).astype(np.float32)
    bias_scale = np.float32(1 / np.sqrt(curvature))
    index = np.arange(n)
    cut = classes * rank

    def loss(packed: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        unknowns = packed.astype(np.float32)
        matrix = unknowns[:cut].reshape(classes, rank)
        logits = data @ matrix.T
        logits += unknowns[cut:] * bias_scale
        logits -= logits.max(axis=1, keepdims=True)
        # Below e^-60 products with weights turn into denormal numbers, which cost ten times as much.
        np.maximum(logits, np.float32(-60), out=logits)
        true = logits[index, of]
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1)
        value = float(weights.astype(np.float64) @ (np.log(sums) - true)) + 0.5 * float(
            np.sum(penalty * matrix * matrix)
        )
        logits *= (weights / sums)[:, None]
        logits[index, of] -= weights
        gradient = logits.T @ data
        gradient += penalty * matrix
        return value, np.concatenate([gradient.ravel(), logits.sum(axis=0) * bias_scale]).astype(np.float64)

    first = np.zeros(cut + classes)
    if start is not None:
        first[:cut] = (start.coefficients / columns).ravel()
        first[cut:] = start.bias / bias_scale
    found = minimize(
        loss,
        first,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _ITERATIONS, "maxcor": 10, "ftol": _TOLERANCE, "gtol": 1e-6},
    )
    solution = found.x.astype(np.float32)
    return _Fit(solution[:cut].reshape(classes, rank) * columns, solution[cut:] * bias_scale)


def _choose(
    logits: Mapping[tuple[float, float], Floats],
    labels: Ints,
    judged: NDArray[np.bool_],
    *,
    priors: tuple[float, ...],
    log_prior: NDArray[np.float64],
) -> tuple[tuple[float, float, float, float], list[dict[str, float]]]:
    """The (shrinkage, strength, prior, temperature) with the lowest out-of-fold loss, and all that were compared."""
    if not judged.any():
        shrinkage, strength = sorted(logits)[len(logits) // 2]
        return (shrinkage, strength, priors[0], 1.0), []
    true = labels[judged]
    candidates = []
    for (shrinkage, strength), values in logits.items():
        held = values[judged]
        for prior in priors:
            offset = prior * log_prior
            temperature = fit_temperature(held, true, offset=offset)
            nll = negative_log_likelihood(held, true, temperature=temperature, offset=offset)
            accuracy = float(np.mean((held / temperature + offset).argmax(axis=1) == true))
            candidates.append(
                {
                    "shrinkage": shrinkage,
                    "strength": strength,
                    "prior": prior,
                    "temperature": temperature,
                    "nll": nll,
                    "accuracy": accuracy,
                }
            )
    best = min(candidates, key=lambda candidate: candidate["nll"])
    return (best["shrinkage"], best["strength"], best["prior"], best["temperature"]), candidates


def _out_of_fold(logits: Floats, labels: Ints, judged: NDArray[np.bool_], temperature: float) -> OutOfFold:
    if not judged.any():
        return OutOfFold(logits, judged, accuracy=None, macro_recall=None, nll=None, ece=None)
    true = labels[judged]
    probabilities = softmax(logits[judged], temperature=temperature)
    right = probabilities.argmax(axis=1) == true
    return OutOfFold(
        logits=logits,
        judged=judged,
        accuracy=float(right.mean()),
        macro_recall=float(np.mean([right[true == number].mean() for number in np.unique(true)])),
        nll=negative_log_likelihood(logits[judged], true, temperature=temperature),
        ece=expected_calibration_error(probabilities, true),
    )
