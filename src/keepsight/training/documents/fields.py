"""Learns which part of which line is a field, from documents whose fields are labelled.

Three linear models for each field (`keepsight.runtime.outputs.ocr.fields`) are logistic regressions on hashed features;
what comes after them, the ranking of candidates and the calibration, is fitted on documents that were held out from
them, in grouped folds. Seconds on one processor for a hundred receipts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import DataError
from keepsight.runtime.outputs.ocr import fields as runtime
from keepsight.runtime.outputs.ocr.fields import Candidate, Document, FieldModel, FieldValue
from keepsight.runtime.outputs.ocr.text import Piece, normalised
from keepsight.training.documents.alignment import locate

Floats = NDArray[np.float64]

FOLDS = 5
_PENALTY = 3e-5
_RANKING_PENALTY = 1e-2
_ITERATIONS = 40
_IN_DOCUMENTS = 2
# Runs may be this much longer than the longest one seen.
_LONGER = 1.5


@dataclass(frozen=True)
class Learned:
    """What was learned, and how well it does on documents that were held out.

    Attributes:
        model: Fitted on all documents.
        held_out: For each document the fields that a model found that had not seen it.
        confidence: For each document the calibrated chance that all of its fields are right, float64 (n,).
        located: Share of the labelled values that stand in the lines that were read; more cannot be learned.
    """

    model: FieldModel
    held_out: tuple[Mapping[str, FieldValue], ...]
    confidence: Floats
    located: float


@dataclass(frozen=True)
class _Prepared:
    document: Document
    pieces: Sequence[Piece]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    runs: Mapping[str, list[tuple[int, int]]]
    fields: Mapping[str, str]


def learn(
    documents: Sequence[Document],
    values: Sequence[Mapping[str, str]],
    *,
    names: Sequence[str],
    groups: NDArray[np.integer],
    seed: int,
    on_progress: Callable[[float], None] | None = None,
) -> Learned:
    """The fields as learned from ``documents`` and their labelled ``values``.

    Args:
        documents: The lines that were read.
        values: For each document its fields by name; a document without a field says that it has none.
        names: The fields.
        groups: (n,) documents that must not stand on both sides of a fold (one shop, near-duplicates).
        seed: Of the folds.
        on_progress: Called with the finished share, 0..1; may raise to stop.

    Raises:
        DataError: Fewer than two groups, or no value stands in the lines.
    """
    prepared = [_prepare(document, value) for document, value in zip(documents, values, strict=True)]
    wanted = sum(len(item.fields) for item in prepared)
    located = sum(bool(runs) for item in prepared for runs in item.runs.values())
    if len(np.unique(groups)) < 2 or not located:
        raise DataError(
            f"There are {len(np.unique(groups))} independent documents with labelled fields, and {located} of their "
            f"{wanted} values stand in the lines that were read.",
            expected="at least two documents whose fields can be read in the picture.",
            do="Label more documents, or write the fields as they stand in the picture.",
        )
    longest = tuple(max(2, int(_LONGER * _most(prepared, name, _length))) for name in names)
    lines = tuple(_most(prepared, name, _lines) + (_most(prepared, name, _lines) > 1) for name in names)
    folds = _folds(groups, seed=seed)
    runs: list[list[list[Candidate]]] = [[] for _ in prepared]
    count = int(folds.max()) + 1
    for fold in range(count):
        weights = _fit_roles([prepared[place] for place in np.flatnonzero(folds != fold)], names)
        for place in np.flatnonzero(folds == fold):
            runs[place] = _candidates(prepared[place], weights, longest=longest, lines=lines)
        if on_progress is not None:
            on_progress((fold + 1) / (count + 1))
    ranking = np.stack([_fit_ranking(prepared, runs, number, name) for number, name in enumerate(names)])
    model = FieldModel(
        names=tuple(names),
        weights=_fit_roles(prepared, names),
        ranking=ranking,
        longest=longest,
        lines=lines,
        least=tuple(0.0 for _ in names),
    )
    model = replace(model, least=tuple(_least(prepared, runs, model, number) for number in range(len(names))))
    found = tuple(_found(item, runs[place], model) for place, item in enumerate(prepared))
    model = _calibrated(model, prepared, found)
    confidence = np.array([runtime.all_right(model, values_) for values_ in found])
    return Learned(model, found, confidence, located / max(wanted, 1))


def _prepare(document: Document, value: Mapping[str, str]) -> _Prepared:
    found = runtime.document_pieces(document)
    rows, columns = runtime.features(document, found)
    runs = {name: locate(found, text) for name, text in value.items()}
    return _Prepared(document, found, rows, columns, runs, value)


def _most(prepared: Sequence[_Prepared], name: str, of: Callable[[_Prepared, tuple[int, int]], int]) -> int:
    return max((of(item, run) for item in prepared for run in item.runs.get(name, ())), default=1)


def _length(item: _Prepared, run: tuple[int, int]) -> int:  # noqa: ARG001 - one of two measures
    return run[1] - run[0] + 1


def _lines(item: _Prepared, run: tuple[int, int]) -> int:
    return item.pieces[run[1]].line - item.pieces[run[0]].line + 1


def _folds(groups: NDArray[np.integer], *, seed: int) -> NDArray[np.int64]:
    """The fold of each document; groups are dealt out largest first, ties by chance."""
    of = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(of)
    count = min(FOLDS, len(sizes))
    order = np.random.default_rng(seed).permutation(len(sizes))
    load = np.zeros(count, np.int64)
    fold = np.zeros(len(sizes), np.int64)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold[group] = load.argmin()
        load[fold[group]] += sizes[group]
    return fold[of]


def _fit_roles(prepared: Sequence[_Prepared], names: Sequence[str]) -> NDArray[np.float32]:
    """The weights (fields, 3, 2^15 + 1) of the pieces' roles."""
    from scipy import sparse

    offsets = np.cumsum([0] + [len(item.pieces) for item in prepared])
    rows = np.concatenate([item.rows + offset for item, offset in zip(prepared, offsets, strict=False)])
    columns = np.concatenate([item.columns for item in prepared])
    documents = np.bincount(np.concatenate([np.unique(item.columns) for item in prepared]), minlength=runtime.WIDTH)
    # What stands in one document only could be learned by heart, and tells nothing about the next one.
    used = np.flatnonzero(documents >= min(_IN_DOCUMENTS, len(prepared)))
    place = np.full(runtime.WIDTH, -1)
    place[used] = np.arange(len(used))
    kept = place[columns] >= 0
    matrix = sparse.csr_matrix(
        (np.ones(int(kept.sum()), np.float32), (rows[kept], place[columns[kept]])), shape=(int(offsets[-1]), len(used))
    )
    targets = np.zeros((int(offsets[-1]), len(names), len(runtime.ROLES)), np.float32)
    counts = np.ones((int(offsets[-1]), len(names), 1), np.float32)
    for item, offset in zip(prepared, offsets, strict=False):
        for number, name in enumerate(names):
            if item.fields.get(name) and not item.runs[name]:
                # It is somewhere in the picture, but not where it could be read: that says nothing about any piece.
                counts[offset : offset + len(item.pieces), number] = 0
            for first, last in item.runs.get(name, ()):
                targets[offset + first : offset + last + 1, number, 0] = 1
                targets[offset + first, number, 1] = 1
                targets[offset + last, number, 2] = 1
    flat = targets.reshape(len(targets), -1)
    weights = _logistic(matrix, flat, np.repeat(counts[:, :, 0], len(runtime.ROLES), axis=1), penalty=_PENALTY)
    result = np.zeros((len(names), len(runtime.ROLES), runtime.WIDTH), np.float32)
    result[:, :, used] = weights.T.reshape(len(names), len(runtime.ROLES), len(used))
    return result


def _logistic(matrix: Any, targets: NDArray[Any], counts: NDArray[Any], *, penalty: float) -> Floats:
    """The weights (d, k) of k logistic regressions on the rows of a matrix (n, d); L-BFGS (Liu and Nocedal 1989)."""
    from scipy.optimize import minimize

    rows, width = matrix.shape
    kinds = targets.shape[1]
    transposed = matrix.T.tocsr() if hasattr(matrix, "tocsr") else matrix.T

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(width, kinds)
        scores = np.asarray(matrix @ weights.astype(matrix.dtype), np.float64)
        value = float((counts * (np.logaddexp(0, scores) - targets * scores)).sum()) / rows
        slope = counts * (1 / (1 + np.exp(-np.clip(scores, -60, 60))) - targets) / rows
        gradient = np.asarray(transposed @ slope.astype(matrix.dtype), np.float64) + penalty * weights
        return value + penalty / 2 * float((weights**2).sum()), gradient.ravel()

    done = minimize(
        loss, np.zeros(width * kinds), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS, "maxcor": 8}
    )
    return np.asarray(done.x, np.float64).reshape(width, kinds)


def _candidates(
    item: _Prepared, weights: NDArray[np.float32], *, longest: Sequence[int], lines: Sequence[int]
) -> list[list[Candidate]]:
    scores = runtime.scores_of(item.rows, item.columns, weights=weights, count=len(item.pieces))
    return [
        runtime.candidates(item.document, item.pieces, scores[number], longest=longest[number], lines=lines[number])
        for number in range(len(weights))
    ]


def _fit_ranking(
    prepared: Sequence[_Prepared], runs: Sequence[Sequence[Sequence[Candidate]]], number: int, name: str
) -> Floats:
    """How probable a candidate of one field is right, from its facts."""
    facts, hits = [], []
    for item, candidates in zip(prepared, runs, strict=True):
        for run in candidates[number]:
            facts.append([*run.facts, 1.0])
            hits.append(_is_right(run.text, item.fields.get(name, "")))
    if not facts:
        return np.zeros(runtime.FACTS + 1)
    matrix = np.array(facts)
    return _logistic(matrix, np.array(hits, np.float64)[:, None], np.ones((len(hits), 1)), penalty=_RANKING_PENALTY)[
        :, 0
    ]


def _is_right(told: str, true: str) -> bool:
    return bool(true) and normalised(told) == normalised(true)


def _least(
    prepared: Sequence[_Prepared], runs: Sequence[Sequence[Sequence[Candidate]]], model: FieldModel, number: int
) -> float:
    """The probability below which a field is better left empty; 0 where every document has it."""
    name = model.names[number]
    if all(item.fields.get(name) for item in prepared):
        return 0.0
    told = []
    for item, candidates in zip(prepared, runs, strict=True):
        value = runtime.ranked(item.pieces, candidates[number], model.ranking[number])
        if value is not None:
            true = item.fields.get(name, "")
            told.append((value.confidence, _is_right(value.text, true), not true))
    # At each threshold: right answers above it and rightly empty ones below it.
    best, at = -1, 0.0
    for threshold in sorted({0.0, *(share for share, _, _ in told)}):
        right = sum(hit if share >= threshold else absent for share, hit, absent in told)
        if right > best:
            best, at = right, threshold
    return at


def _found(item: _Prepared, candidates: Sequence[Sequence[Candidate]], model: FieldModel) -> dict[str, FieldValue]:
    result = {}
    for number, name in enumerate(model.names):
        value = runtime.ranked(item.pieces, candidates[number], model.ranking[number])
        if value is not None and value.confidence >= model.least[number]:
            result[name] = value
    return result


def _calibrated(
    model: FieldModel, prepared: Sequence[_Prepared], found: Sequence[Mapping[str, FieldValue]]
) -> FieldModel:
    """The model with slope and shift of Platt (1999), whose targets keep few documents from ending in certainty."""
    shares = np.array([runtime.all_right(model, values) for values in found])
    hits = np.array(
        [
            all(_is_right(values[name].text if name in values else "", text) for name, text in item.fields.items())
            for item, values in zip(prepared, found, strict=True)
        ]
    )
    odds = np.log(np.clip(shares, 1e-9, 1 - 1e-9) / np.clip(1 - shares, 1e-9, 1 - 1e-9))
    slope, shift = platt(odds, hits)
    return replace(model, slope=slope, shift=shift)


def platt(odds: Floats, hits: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope (at least 0) and shift of sigmoid(slope * odds + shift) as the chance of a hit (Platt 1999)."""
    from scipy.optimize import minimize

    yes, no = int(hits.sum()), int((~hits).sum())
    targets = np.where(hits, (yes + 1) / (yes + 2), 1 / (no + 2))

    def loss(both: Floats) -> float:
        z = both[0] * odds + both[1]
        return float((np.logaddexp(0, z) - targets * z).mean() + 1e-4 * both[0] ** 2)

    done = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0, None), (-20, 20)])
    return float(done.x[0]), float(done.x[1])
