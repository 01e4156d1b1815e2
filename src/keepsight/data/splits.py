"""Who stands on which side: folds, splits and clusters of near-duplicates, never dividing a group.

Photos of one shelf taken a second apart are one observation, not two. Whatever compares what a model was trained on
with what it is judged on (folds, splits, the gate's ``recent`` pictures) therefore works on groups: those the user
names (shop, customer, camera run), and clusters of near-duplicates that :func:`cluster_near_duplicates` finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.errors import DataError

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}

NEAR_DUPLICATE_COSINE = 0.97
MAX_CLUSTER_SHARE = 0.05
_LEVEL_WITHOUT_CLASSES = 0.95
_LOWEST_LEVEL, _HIGHEST_LEVEL, _LEVEL_STEP = 0.88, 0.99, 0.005


def grouped_folds(groups: ArrayLike, labels: ArrayLike, *, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold 0..folds-1 of each row, with no group divided and each class spread as evenly as its groups allow.

    Where there are fewer groups than ``folds``, there are as many folds as groups.

    Args:
        groups: (n,) group of each row, any sortable values.
        labels: (n,) class of each row.
        folds: Number of folds wanted, at least 2.
        seed: Decides among equally good placements.

    Returns:
        (n,) fold numbers. Every number from 0 to the highest occurs.

    Raises:
        DataError: fewer than two groups (nothing could be held out).
    """
    if folds < 2:
        raise ValueError("folds must be at least 2")
    group_of, group_count = _numbered(groups)
    if group_count < 2:
        raise DataError(
            f"All {len(group_of)} pictures belong to one group.",
            expected="at least two groups, so that one can be held out while the other trains.",
            do="Add pictures taken at another time or place, or give the pictures different groups.",
            pictures=len(group_of),
            groups=group_count,
        )
    count = min(folds, group_count)
    parts = _allocate(group_of, group_count, labels, shares=np.full(count, 1 / count), seed=seed)
    # Renumber so that no number is missing when a part stayed empty (very unequal groups).
    return np.unique(parts[group_of], return_inverse=True)[1].astype(np.int64)


def assign_splits(
    groups: ArrayLike,
    labels: ArrayLike,
    *,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    seed: int,
    given: Sequence[str | None] | None = None,
) -> list[str]:
    """The split of each row, with no group divided and each class near the wanted ``fractions``.

    A class with a single group goes to the largest split (train), where a model can at least learn it. Splits that are
    already ``given`` stay; further rows of their groups follow them, so that pictures imported later never bring the
    same shelf to the other side.

    Args:
        groups: (n,) group of each row.
        labels: (n,) class of each row.
        fractions: Share of each split; normalised to 1.
        seed: Decides among equally good placements.
        given: (n,) split that a row already has, or None where it is to be decided. A group given to several splits
            keeps them; its undecided rows join the one that most of its rows have.

    Returns:
        (n,) split names.
    """
    names = sorted(fractions, key=lambda name: -fractions[name])
    shares = np.array([fractions[name] for name in names], dtype=np.float64)
    if not names or np.any(shares < 0) or shares.sum() <= 0:
        raise ValueError("fractions must name at least one split with a positive share")
    names = [name for name, share in zip(names, shares, strict=True) if share > 0]
    shares = shares[shares > 0] / shares.sum()
    group_of, group_count = _numbered(groups)
    decided = list(given) if given is not None else [None] * len(group_of)
    if len(decided) != len(group_of):
        raise ValueError("given must have one entry per row")
    every = names + sorted({name for name in decided if name is not None and name not in names})
    votes = np.zeros((group_count, len(every)), dtype=np.int64)
    for row, name in enumerate(decided):
        if name is not None:
            votes[group_of[row], every.index(name)] += 1
    fixed = np.where(votes.any(axis=1), votes.argmax(axis=1), -1)
    parts = _allocate(group_of, group_count, labels, shares=shares, seed=seed, fixed=fixed)
    return [name if name is not None else every[parts[group]] for name, group in zip(decided, group_of, strict=True)]


def cluster_near_duplicates(
    vectors: NDArray[np.floating],
    *,
    threshold: float = NEAR_DUPLICATE_COSINE,
    max_share: float = MAX_CLUSTER_SHARE,
    block: int = 2048,
) -> NDArray[np.int64]:
    """The cluster of each picture: pictures connected by a chain of near-duplicates have the same number.

    Single linkage over cosine similarity, strongest links first (Kruskal's order), so the result does not depend on the
    order of the pictures beyond their numbering. Chains can run away where a class is photographed in a continuous
    sweep or a backbone sees little difference at all; so a link is refused that would make a cluster larger than
    ``max_share`` of the pictures (never below 8): the weakest links of a runaway chain are cut, the strongest stay.

    Cost: n^2 d / 2 multiplications in blocks, with at most ``block`` x n similarities in memory, and the 32 strongest
    links of each picture kept.

    Args:
        vectors: (n, d) L2-normalised features of the frozen backbone.
        threshold: Lowest cosine that counts as a near-duplicate. It belongs to the backbone.
        max_share: Largest share of the pictures that one cluster may hold.
        block: Rows compared at once.

    Returns:
        (n,) cluster numbers from 0, in order of first appearance.
    """
    unit = np.ascontiguousarray(vectors, dtype=np.float32)
    n = len(unit)
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    left, right, cosine = _links(unit, threshold=threshold, block=block)
    limit = max(8, int(max_share * n))
    parent = np.arange(n)
    size = np.ones(n, dtype=np.int64)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = int(parent[node])
        return node

    for link in np.lexsort((right, left, -cosine)):
        a, b = root(int(left[link])), root(int(right[link]))
        if a != b and size[a] + size[b] <= limit:
            keep, drop = min(a, b), max(a, b)
            parent[drop] = keep
            size[keep] += size[drop]
    # Roots are the lowest row of their cluster, so sorting them is the order of first appearance.
    roots = np.array([root(node) for node in range(n)])
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def near_duplicate_threshold(vectors: NDArray[np.floating], labels: ArrayLike, *, seed: int) -> float:
    """The cosine from which on two pictures of this data set can be taken for the same scene.

    How alike different scenes look to a backbone depends on the data: to EfficientNet-Lite0, 5 % of the Grocery Store
    val pictures (other visits) reach 0.87 with a training picture, while different handwritten digits reach 0.95. The
    labels show the level: links between near-duplicates stay inside a class, chance likeness does not. So this is the
    lowest level, between 0.88 and 0.99 in steps of 0.005, at and above which at most 1 % of the links join different
    classes.

    Why 0.88: in the Grocery Store training pictures 2 % of the links at 0.88 to 0.90 join different classes and none
    above, against 8 % at 0.86; looked at by eye, pairs at 0.90 show the same crate or carton from a step aside, pairs
    at 0.86 as often another crate. Digits get 0.975.

    With one class, or none, nothing can cross and the labels show nothing: the level is 0.95. At that level 141 of 150
    frames of a driving car, all of 150 blood smears and 103 of 130 receipts stand alone; at 0.88 it is 81, 66 and 46,
    although each shows another place, patient or purchase.

    At most 4,000 pictures, drawn with ``seed``, are compared.

    Args:
        vectors: (n, d) L2-normalised features.
        labels: (n,) classes.
        seed: Draws the sample.
    """
    names, of = np.unique(np.asarray(labels), return_inverse=True)
    if len(names) < 2:
        return _LEVEL_WITHOUT_CLASSES
    chosen = np.sort(np.random.default_rng(seed).permutation(len(of))[:4000])
    unit, of = np.asarray(vectors, dtype=np.float32)[chosen], of[chosen]
    steps = round((_HIGHEST_LEVEL - _LOWEST_LEVEL) / _LEVEL_STEP) + 1
    links = np.zeros(steps)
    crossing = np.zeros(steps)
    for start in range(0, len(unit), 1000):
        similar = unit[start : start + 1000] @ unit[start:].T
        row, column = np.nonzero(similar >= _LOWEST_LEVEL)
        row, column = row[column > row], column[column > row]
        level = np.minimum(((similar[row, column] - _LOWEST_LEVEL) / _LEVEL_STEP).astype(np.int64), steps - 1)
        links += np.bincount(level, minlength=steps)
        crossing += np.bincount(level, weights=of[row + start] != of[column + start], minlength=steps)
    above, crossing_above = np.cumsum(links[::-1])[::-1], np.cumsum(crossing[::-1])[::-1]
    clean = crossing_above <= 0.01 * above
    # The lowest level from which on all higher ones are clean too; the highest where none is.
    lowest = steps - 1 if not clean[-1] else steps - int(np.argmin(np.append(clean[::-1], False)))
    return round(_LOWEST_LEVEL + _LEVEL_STEP * lowest, 3)


def join_groups(*groupings: Sequence[object] | NDArray[Any]) -> NDArray[np.int64]:
    """Groups in which rows are together that share a value in any of the ``groupings``.

    Joins the user's groups with near-duplicate clusters: rows connected through either end up in one group. A missing
    value (None or "") connects to nothing.

    Args:
        groupings: one or more (n,) arrays.

    Returns:
        (n,) group numbers from 0, in order of first appearance.
    """
    columns = [np.asarray(grouping, dtype=object) for grouping in groupings]
    n = len(columns[0])
    parent = list(range(n))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for column in columns:
        first: dict[object, int] = {}
        for row, value in enumerate(column):
            if value is None or value == "":
                continue
            other = root(first.setdefault(value, row))
            mine = root(row)
            parent[max(mine, other)] = min(mine, other)
    roots = np.array([root(row) for row in range(n)], dtype=np.int64)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def _numbered(groups: ArrayLike) -> tuple[NDArray[np.int64], int]:
    values, inverse = np.unique(np.asarray(groups), return_inverse=True)
    return inverse.astype(np.int64), len(values)


def _allocate(
    group_of: NDArray[np.int64],
    group_count: int,
    labels: ArrayLike,
    *,
    shares: NDArray[np.float64],
    seed: int,
    fixed: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """The part of each group: large groups first, each to the part that lacks most of what the group brings.

    How full a part is of a class is its count, with half of the new group, over what its share asks for: the divisor
    rule of Sainte-Lague, which favours neither large nor small parts. The mean over the group's rows of that figure,
    plus the same figure for all classes together, decides.
    """
    names, class_of = np.unique(np.asarray(labels), return_inverse=True)
    pairs, amounts = np.unique(np.stack([group_of, class_of], axis=1), axis=0, return_counts=True)
    starts = np.searchsorted(pairs[:, 0], np.arange(group_count + 1))
    sizes = np.bincount(group_of, minlength=group_count)
    wanted = np.bincount(class_of, minlength=len(names))[:, None] * shares[None, :]
    counts = np.zeros((len(names), len(shares)))
    totals = np.zeros(len(shares))
    total_wanted = len(group_of) * shares
    random = np.random.default_rng(seed)
    # Ties go to the larger part; among equal parts the seed decides.
    preference = np.argsort(np.lexsort((random.permutation(len(shares)), -shares))) * 1e-9
    order = np.lexsort((random.permutation(group_count), -sizes))
    parts = np.full(group_count, -1, dtype=np.int64) if fixed is None else fixed.copy()
    for group in np.flatnonzero(parts >= 0):
        # A split without a share (given, but not asked for) takes no part in the balance.
        if parts[group] < len(shares):
            rows = slice(starts[group], starts[group + 1])
            counts[pairs[rows, 1], parts[group]] += amounts[rows]
            totals[parts[group]] += sizes[group]
    for group in order:
        if parts[group] >= 0:
            continue
        classes, brought = pairs[starts[group] : starts[group + 1], 1], amounts[starts[group] : starts[group + 1]]
        fill = (counts[classes] + brought[:, None] / 2) / wanted[classes]
        overall = (totals + sizes[group] / 2) / total_wanted
        part = int(np.argmin(brought @ fill / sizes[group] + overall + preference))
        parts[group] = part
        counts[classes, part] += brought
        totals[part] += sizes[group]
    return parts


def _links(
    unit: NDArray[np.float32], *, threshold: float, block: int, keep: int = 32
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Links (left < right) at or above ``threshold``, at most ``keep`` per picture towards later pictures."""
    n = len(unit)
    kept: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
    for start in range(0, n, block):
        rows = unit[start : start + block]
        found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        for other in range(start, n, block):
            similar = rows @ unit[other : other + block].T
            row, column = np.nonzero(similar >= threshold)
            later = column + other > row + start
            row, column = row[later], column[later]
            # Already here: where everything is alike, all links together would not fit in memory.
            found.append(_strongest(row + start, column + other, similar[row, column], keep=keep))
        kept.append(_strongest(*_together(found), keep=keep))
    return _together(kept)


def _together(
    links: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    left, right, cosine = (np.concatenate(part) for part in zip(*links, strict=True))
    return left, right, cosine


def _strongest(
    left: NDArray[np.int64], right: NDArray[np.int64], cosine: NDArray[np.float32], *, keep: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The ``keep`` strongest links of each left end, sorted by left end."""
    order = np.lexsort((right, -cosine, left))
    left, right, cosine = left[order], right[order], cosine[order]
    rank = np.arange(len(left)) - np.searchsorted(left, left)
    chosen = rank < keep
    return left[chosen], right[chosen], cosine[chosen]
