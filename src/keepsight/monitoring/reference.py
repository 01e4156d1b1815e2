"""What ordinary pictures look like to one bundle variant: the drift alarm's reference.

Training pictures fit the score functions (components, prototypes, scales). Held-out pictures, which fit nothing, are
kept as rows of scores: they are exchangeable with the pictures that come if nothing has changed. Building a
reference from pictures that the head was trained on would make the stream look drifted from the first day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import BadInputError, BundleError, ConflictError, DataError
from keepsight.monitoring.conformal import BINS, Floats, Ints, bins_of

QUALITY_NAMES = ("blur", "brightness", "contrast")
FEATURE_SCORES = ("novelty", "spread", "residual", "strength")
MINIMUM_PICTURES = 10
_FORMAT = 1
_MOST_COMPONENTS = 64
_MOST_PROTOTYPES = 128
# More training pictures than this refine nothing that the scores need.
_MOST_TRAINING = 4000
# Smallest scale of each feature score, so that rounding noise of a constant figure is not magnified into a signal.
_SMALLEST = {"novelty": 1e-4, "spread": 1e-3, "residual": 1e-4, "strength": 1e-3}


@dataclass(frozen=True, slots=True)
class Figures:
    """What a served graph says of n pictures.

    Attributes:
        features: Served vectors, shape (n, d).
        quality: Quality figures, shape (n, q), in the order of the reference's ``quality_names``.
        confidence: Calibrated confidence of each answer, shape (n,), 0 to 1.
        predicted: Index of the predicted class, shape (n,).
    """

    features: NDArray[np.floating[Any]]
    quality: NDArray[np.floating[Any]]
    confidence: NDArray[np.floating[Any]]
    predicted: NDArray[np.integer[Any]]

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, which: NDArray[Any]) -> Figures:
        """The pictures at the given positions or mask."""
        return Figures(self.features[which], self.quality[which], self.confidence[which], self.predicted[which])


@dataclass(frozen=True, slots=True, eq=False)
class _Functions:
    """The score functions, fitted on training pictures. All columns of a score row are float16 exactly.

    A row holds whitened principal components, then the feature scores, the quality figures and the confidence on
    an asinh scale around their training medians, then the class's place by training frequency.
    """

    mean: NDArray[np.float32]  # (d,) of length-1 features
    components: NDArray[np.float16]  # (c, d)
    spread: NDArray[np.float32]  # (c,) standard deviations
    prototypes: NDArray[np.float16]  # (p, d), length 1
    middle: NDArray[np.float32]  # (4 + q + 1,) medians
    scale: NDArray[np.float32]  # (4 + q + 1,)
    class_place: NDArray[np.int64]  # (classes,) 0 for the most frequent in training


class _Projection(NamedTuple):
    """Single-precision products that every picture needs."""

    rows: NDArray[np.float32]  # components and prototypes below one another, so that one product serves both
    centre: NDArray[np.float32]  # the mean's components


@dataclass(frozen=True, eq=False)
class Reference:
    """Score functions of one bundle variant and the scores of its held-out pictures.

    Attributes:
        quality_names: Names of the quality figures, in order.
        heldout: Scores of the held-out pictures, shape (n, columns), float16.
        keys: Sample ids of the held-out pictures, so that an erased one can be taken out; empty if none were given.
    """

    quality_names: tuple[str, ...]
    heldout: NDArray[np.float16]
    keys: tuple[str, ...]
    _functions: _Functions

    @classmethod
    def build(
        cls,
        train: Figures,
        heldout: Figures,
        *,
        classes: int,
        seed: int,
        quality_names: Sequence[str] = QUALITY_NAMES,
        keys: Sequence[str] = (),
    ) -> Reference:
        """The reference of a bundle variant.

        Args:
            train: Training pictures; any subset of a few hundred does (at most 4,000 are used).
            heldout: Pictures that the model was not fitted on, 100 or better 300 to 1,000; bursts already counted once.
            classes: Number of classes that ``predicted`` may take.
            seed: Choice of training rows and first prototypes.
            quality_names: Name of each quality column.
            keys: Sample id of each held-out picture.

        Raises:
            DataError: Fewer than 10 training or held-out pictures.
            BadInputError: Shapes do not fit together, or a number is not finite.
        """
        if min(len(train), len(heldout)) < MINIMUM_PICTURES:
            raise DataError(
                f"There are {len(train)} training and {len(heldout)} held-out pictures for the drift reference.",
                expected=f"at least {MINIMUM_PICTURES} of each, better 300 held-out ones.",
                do="Add pictures to the val split.",
            )
        names = tuple(str(name) for name in quality_names)
        if len(set(names)) != len(names) or classes < 1 or len(keys) not in (0, len(heldout)):
            raise BadInputError(
                f"A drift reference of {len(heldout)} pictures got quality names {names}, {classes} classes and "
                f"{len(keys)} keys.",
                expected="different names, at least one class, and a key for each held-out picture or none.",
                do="Correct the call.",
            )
        functions = _fit(_checked(train, names, classes, None), classes, np.random.default_rng(seed))
        made = cls(names, np.zeros((0, 0), np.float16), tuple(map(str, keys)), functions)
        return replace(made, heldout=made.scores(heldout))

    @property
    def dimensions(self) -> int:
        """Length of a served vector."""
        return int(self._functions.mean.size)

    @property
    def components(self) -> int:
        """Number of principal components."""
        return int(self._functions.spread.size)

    @property
    def row_names(self) -> tuple[str, ...]:
        """Names of the scores that are ranked each by itself: feature scores, quality figures, confidence, classes."""
        last = ("classes",) if self._functions.class_place.size > 1 else ()
        return (*FEATURE_SCORES, *self.quality_names, "confidence", *last)

    @cached_property
    def digest(self) -> str:
        """Sha256 of the content, hex; a monitor's state belongs to one digest."""
        total = hashlib.sha256()
        for name, array in sorted(self.to_arrays().items()):
            total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()

    @cached_property
    def _projection(self) -> _Projection:
        return _projection(self._functions)

    def scores(self, figures: Figures) -> NDArray[np.float16]:
        """Score rows of any pictures, shape (n, columns).

        Raises:
            BadInputError: Shapes do not fit the reference, a number is not finite, or a class is unknown.
        """
        fitted = self._functions
        figures = _checked(figures, self.quality_names, fitted.class_place.size, fitted.mean.size)
        raw, whitened = _raw_scores(figures, fitted, self._projection)
        shaped = np.arcsinh((raw - fitted.middle) / fitted.scale)
        place = fitted.class_place[figures.predicted]
        if fitted.class_place.size > BINS:
            place = place * BINS // fitted.class_place.size
        return np.concatenate([np.clip(whitened, -6e4, 6e4), shaped, place[:, None]], axis=1).astype(np.float16)

    def row_bins(self, scores: NDArray[np.float16]) -> Ints:
        """Bins of the ``row_names`` scores, shape (n, rows)."""
        ranked = scores[:, self.components : self.components + len(self.row_names)].astype(np.float64)
        bins = bins_of(ranked)
        if self.row_names[-1] == "classes":
            bins[:, -1] = ranked[:, -1].astype(np.int64)
        return bins

    def directions(self, scores: NDArray[np.float16]) -> Floats:
        """The columns in which a direction of change is looked for, each about 1 wide, (n, components + 5 + q)."""
        return scores[:, :-1].astype(np.float64)

    def without(self, keys: Collection[str]) -> Reference:
        """The reference without the held-out pictures of these sample ids (for erasure); others' rows are untouched.

        The score functions keep what they learned from training pictures; erasing one of those needs a new bundle.

        Raises:
            ConflictError: The reference was built without keys.
        """
        if not self.keys:
            raise ConflictError(
                "This drift reference does not say which row belongs to which sample.",
                expected="a reference built with keys.",
                do="Rebuild the bundle's reference.",
            )
        gone = set(keys)
        stay = [index for index, key in enumerate(self.keys) if key not in gone]
        if len(stay) == len(self.keys):
            return self
        return replace(self, heldout=self.heldout[stay], keys=tuple(self.keys[index] for index in stay))

    def with_heldout(self, heldout: Figures, *, keys: Sequence[str] = ()) -> Reference:
        """The same score functions with other held-out pictures: for "this is normal from now on".

        Raises:
            DataError: Fewer than 10 pictures.
            BadInputError: As ``scores``, or keys that do not fit.
        """
        if len(heldout) < MINIMUM_PICTURES:
            raise DataError(
                f"{len(heldout)} pictures were given as the new normal.",
                expected=f"at least {MINIMUM_PICTURES}, better 300.",
                do="Wait for more traffic, or mark more of it as normal.",
            )
        if len(keys) not in (0, len(heldout)):
            raise BadInputError(
                f"{len(keys)} keys came for {len(heldout)} pictures.",
                expected="a key for each.",
                do="Correct the call.",
            )
        return replace(self, heldout=self.scores(heldout), keys=tuple(map(str, keys)))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays for ``np.savez``; no pickle is needed to read them."""
        fitted = self._functions
        return {
            "format": np.array(_FORMAT),
            "quality_names": np.array(self.quality_names, np.str_),
            "keys": np.array(self.keys, np.str_),
            "heldout": self.heldout,
            "mean": fitted.mean,
            "components": fitted.components,
            "spread": fitted.spread,
            "prototypes": fitted.prototypes,
            "middle": fitted.middle,
            "scale": fitted.scale,
            "class_place": fitted.class_place,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Reference:
        """The reference that ``to_arrays`` wrote.

        Raises:
            BundleError: An array is missing or does not fit, or a newer version wrote them.
        """
        try:
            version = int(arrays["format"])
            if version != _FORMAT:
                raise ValueError(f"it has format {version}")
            fitted = _Functions(
                np.asarray(arrays["mean"], np.float32),
                np.asarray(arrays["components"], np.float16),
                np.asarray(arrays["spread"], np.float32),
                np.asarray(arrays["prototypes"], np.float16),
                np.asarray(arrays["middle"], np.float32),
                np.asarray(arrays["scale"], np.float32),
                np.asarray(arrays["class_place"], np.int64),
            )
            names = tuple(map(str, arrays["quality_names"]))
            heldout = np.asarray(arrays["heldout"], np.float16)
            columns = fitted.spread.size + len(FEATURE_SCORES) + len(names) + 2
            if heldout.shape[1] != columns or fitted.middle.size != columns - fitted.spread.size - 1:
                raise ValueError(f"held-out scores have {heldout.shape[1]} columns, not {columns}")
            return cls(names, heldout, tuple(map(str, arrays["keys"])), fitted)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise BundleError(
                f"The bundle's drift reference cannot be read: {error}.",
                expected=f"the arrays of format {_FORMAT}.",
                do="Rebuild the bundle, or upgrade Keepsight if a newer version wrote it.",
            ) from error


def _checked(figures: Figures, names: Sequence[str], classes: int, dimensions: int | None) -> Figures:
    """The figures in the dtypes that the scores compute with."""
    features = np.asarray(figures.features, np.float32)
    quality = np.asarray(figures.quality, np.float64)
    confidence = np.asarray(figures.confidence, np.float64)
    predicted = np.asarray(figures.predicted, np.int64)
    n = features.shape[0]
    wanted = ((n, dimensions or features.shape[-1]), (n, len(names)), (n,), (n,))
    shapes = (features.shape, quality.shape, confidence.shape, predicted.shape)
    # One sum says whether all numbers are finite.
    if shapes != wanted or not np.isfinite(features.sum(dtype=np.float64) + quality.sum() + confidence.sum()):
        raise BadInputError(
            f"Drift figures have the shapes {shapes} (features, quality, confidence, predicted) or are not all finite.",
            expected=f"the shapes {wanted} and finite numbers.",
            do=f"Give the served features, the quality figures {tuple(names)}, the confidence and the class's index.",
        )
    if n and (predicted.min() < 0 or predicted.max() >= classes):
        raise BadInputError(
            f"A predicted class is outside 0 to {classes - 1}.",
            expected="an index into the bundle's labels.",
            do="Use the reference that belongs to the deployed bundle.",
        )
    return Figures(features, quality, confidence, predicted)


def _normalised(features: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Length-1 vectors and the logarithms of their lengths."""
    length = np.maximum(np.linalg.norm(features, axis=1), 1e-12)
    return (features / length[:, None]).astype(np.float32), np.log(length)


def _raw_scores(figures: Figures, fitted: _Functions, projection: _Projection) -> tuple[Floats, NDArray[np.float32]]:
    """Feature scores, quality and log-odds of the confidence, (n, 4 + q + 1), and whitened components, (n, c)."""
    unit, log_length = _normalised(figures.features)
    count = fitted.spread.size
    products = unit @ projection.rows.T
    whitened = (products[:, :count] - projection.centre) / fitted.spread
    along = whitened * fitted.spread
    centred = unit - fitted.mean
    residual = np.sqrt(np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0))
    novelty = -products[:, count:].max(axis=1)
    distance = np.log1p((whitened**2).mean(axis=1))
    sure = np.clip(figures.confidence, 1e-6, 1.0 - 1e-6)
    odds = np.log(sure / (1.0 - sure))
    raw = np.column_stack([novelty, distance, residual, log_length, figures.quality, odds]).astype(np.float64)
    return raw, whitened.astype(np.float32)


def _projection(fitted: _Functions) -> _Projection:
    rows = np.concatenate([fitted.components, fitted.prototypes]).astype(np.float32)
    return _Projection(rows, rows[: fitted.spread.size] @ fitted.mean)


def _fit(train: Figures, classes: int, rng: np.random.Generator) -> _Functions:
    """Score functions from training pictures.

    A third of them (at most 500) sets the scales only: scored by functions fitted on themselves they would look nearer
    to the prototypes and the components than new pictures do.
    """
    order = rng.permutation(len(train))[:_MOST_TRAINING]
    scaling = min(len(order) // 3, 500)
    scale_rows, fit_rows = train.rows(order[:scaling]), train.rows(order[scaling:])
    unit, _ = _normalised(fit_rows.features)
    mean = unit.mean(axis=0)
    components = _principal(unit - mean, min(_MOST_COMPONENTS, len(unit) - 1))
    every, _ = _normalised(scale_rows.features)
    prototypes = _prototypes(unit, max(1, min(_MOST_PROTOTYPES, len(unit) // 4)), rng)
    spread = ((np.concatenate([unit, every]) - mean) @ components.astype(np.float32).T).std(axis=0)
    spread = np.maximum(spread, max(1e-3 * float(spread.max()), 1e-6)).astype(np.float32)
    counts = np.bincount(train.predicted, minlength=classes)
    place = np.empty(classes, np.int64)
    place[np.argsort(-counts, kind="stable")] = np.arange(classes)
    columns = len(FEATURE_SCORES) + fit_rows.quality.shape[1] + 1
    fitted = _Functions(
        mean.astype(np.float32),
        components,
        spread,
        prototypes,
        np.zeros(columns, np.float32),
        np.ones(columns, np.float32),
        place,
    )
    raw, _ = _raw_scores(scale_rows, fitted, _projection(fitted))
    low, middle, high = np.quantile(raw, [0.16, 0.5, 0.84], axis=0)
    smallest = 1e-3 * np.abs(middle) + 1e-9
    smallest[: len(FEATURE_SCORES)] = [_SMALLEST[name] for name in FEATURE_SCORES]
    smallest[-1] = 1e-2
    scale = np.maximum((high - low) / 2.0, smallest)
    return replace(fitted, middle=middle.astype(np.float32), scale=scale.astype(np.float32))


def _principal(centred: NDArray[np.float32], count: int) -> NDArray[np.float16]:
    """The first ``count`` principal directions as rows (c, d), the largest entry of each positive."""
    from scipy.linalg import eigh

    size = centred.shape[1]
    count = max(1, min(count, size))
    _, vectors = eigh(centred.T.astype(np.float64) @ centred, subset_by_index=(size - count, size - 1))
    chosen = vectors[:, ::-1].T
    signs = np.sign(chosen[np.arange(count), np.abs(chosen).argmax(axis=1)])
    directed: NDArray[np.float16] = (chosen * signs[:, None]).astype(np.float16)
    return directed


def _prototypes(unit: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float16]:
    """Spherical k-means centres (Dhillon and Modha 2001), at most ``count`` rows of length 1."""
    centres = unit[rng.choice(len(unit), count, replace=False)]
    for _ in range(8):
        nearest = (unit @ centres.T).argmax(axis=1)
        sums = np.zeros((len(centres), unit.shape[1]), np.float32)
        np.add.at(sums, nearest, unit)
        filled = np.bincount(nearest, minlength=len(centres)) > 0
        centres, _ = _normalised(sums[filled])
    return centres.astype(np.float16)
