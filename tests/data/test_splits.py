"""Groups stay whole, classes are spread, near-duplicates are found and runaway chains are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from keepsight.data.splits import (
    assign_splits,
    cluster_near_duplicates,
    grouped_folds,
    join_groups,
    near_duplicate_threshold,
)
from keepsight.errors import DataError


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def shots(random: np.random.Generator, *, scenes: int, per_scene: int, noise: float) -> NDArray[np.float32]:
    """Some scenes, each photographed a few times."""
    places = random.normal(size=(scenes, 64)).repeat(per_scene, axis=0)
    return unit(places + noise * random.normal(size=places.shape))


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=2, max_size=80),
    folds=st.integers(2, 6),
    seed=st.integers(0, 5),
)
def test_no_group_is_divided(groups: list[int], folds: int, seed: int) -> None:
    labels = [group % 3 for group in groups]
    if len(set(groups)) < 2:
        return
    found = grouped_folds(groups, labels, folds=folds, seed=seed)
    assert sorted(set(found)) == list(range(max(found) + 1))
    for group in set(groups):
        assert len({fold for fold, of in zip(found, groups, strict=True) if of == group}) == 1
    names = assign_splits(groups, labels, seed=seed)
    for group in set(groups):
        assert len({name for name, of in zip(names, groups, strict=True) if of == group}) == 1


def test_folds_hold_each_class_evenly() -> None:
    random = np.random.default_rng(0)
    labels = random.choice(8, size=900, p=[0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
    # Groups within classes, of one to six pictures.
    groups = labels * 1000 + random.integers(0, 60, size=900)
    found = grouped_folds(groups, labels, folds=5, seed=1)
    for name in range(8):
        counts = np.bincount(found[labels == name], minlength=5)
        assert counts.max() - counts.min() <= 6
    assert np.ptp(np.bincount(found)) <= 12


def test_folds_repeat_and_depend_on_the_seed() -> None:
    labels = np.arange(200) % 4
    first = grouped_folds(np.arange(200), labels, folds=5, seed=3)
    assert np.array_equal(first, grouped_folds(np.arange(200), labels, folds=5, seed=3))
    assert not np.array_equal(first, grouped_folds(np.arange(200), labels, folds=5, seed=4))


def test_two_groups_make_two_folds_and_one_group_is_an_error() -> None:
    assert set(grouped_folds(["a", "a", "b"], [0, 1, 1], folds=5, seed=0)) == {0, 1}
    with pytest.raises(DataError, match="one group"):
        grouped_folds(["a", "a"], [0, 1], folds=5, seed=0)


def test_splits_come_near_the_fractions_in_each_class() -> None:
    labels = np.repeat([0, 1, 2], [300, 100, 20])
    names = np.array(assign_splits(np.arange(420), labels, seed=0))
    for label, size in ((0, 300), (1, 100), (2, 20)):
        of = names[labels == label]
        assert abs((of == "train").sum() - 0.7 * size) <= 3
        assert abs((of == "test").sum() - 0.2 * size) <= 3


def test_a_class_with_one_group_is_trained_on() -> None:
    labels = ["common"] * 50 + ["rare"] * 4
    groups = [f"shelf {number}" for number in range(50)] + ["the only shelf"] * 4
    assert set(assign_splits(groups, labels, seed=0)[50:]) == {"train"}


def test_small_classes_still_leave_a_test_split() -> None:
    labels = np.arange(81).repeat(2)
    names = assign_splits(np.arange(162), labels, seed=0)
    assert 20 <= names.count("test") <= 45


def test_later_pictures_follow_their_group_and_given_splits_stay() -> None:
    groups = ["shelf", "shelf", "shelf", *[f"other {number}" for number in range(20)]]
    names = assign_splits(groups, ["a"] * 23, seed=0, given=["test", None, None, *[None] * 20])
    assert names[:3] == ["test"] * 3
    assert "train" in names[3:]


def test_a_given_split_without_a_share_is_kept() -> None:
    names = assign_splits(["a", "a", "b", "c"], [0, 0, 0, 1], seed=0, given=["recent", None, None, None])
    assert names[:2] == ["recent", "recent"]
    assert "recent" not in names[2:]


def test_photos_of_one_scene_are_one_cluster() -> None:
    vectors = shots(np.random.default_rng(0), scenes=50, per_scene=4, noise=0.05)
    found = cluster_near_duplicates(vectors, threshold=0.95)
    assert np.array_equal(found, np.arange(50).repeat(4))


def test_clusters_do_not_depend_on_blocks_or_order() -> None:
    random = np.random.default_rng(1)
    vectors = shots(random, scenes=40, per_scene=3, noise=0.15)
    order = random.permutation(len(vectors))
    whole = cluster_near_duplicates(vectors, threshold=0.9)
    assert np.array_equal(whole, cluster_near_duplicates(vectors, threshold=0.9, block=7))
    shuffled = cluster_near_duplicates(vectors[order], threshold=0.9)
    together = whole[order][:, None] == whole[order][None, :]
    assert np.array_equal(together, shuffled[:, None] == shuffled[None, :])


def test_a_sweep_does_not_become_one_cluster() -> None:
    # A camera that turns slowly: each picture is a near-duplicate of the next, the ends are opposite.
    angle = np.linspace(0, np.pi, 400)
    sweep = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    found = cluster_near_duplicates(sweep, threshold=0.99, max_share=0.05)
    assert np.bincount(found).max() <= 20
    assert len(np.unique(found)) < 80


def test_identical_pictures_and_none_at_all() -> None:
    same = unit(np.ones((300, 8)))
    assert np.bincount(cluster_near_duplicates(same, threshold=0.97)).max() <= 15
    assert len(set(cluster_near_duplicates(same[:6], threshold=0.97))) == 1
    assert len(cluster_near_duplicates(np.zeros((0, 8), np.float32))) == 0


def test_the_level_of_near_duplicates_follows_the_data() -> None:
    random = np.random.default_rng(2)
    labels = np.arange(100).repeat(4) % 10
    far = shots(random, scenes=100, per_scene=4, noise=0.1)
    # All pictures share most of what the backbone sees, as handwritten digits do.
    alike = unit(far + 2.2 * unit(np.ones((1, 64))))
    assert near_duplicate_threshold(far, labels, seed=0) == 0.88
    level = near_duplicate_threshold(alike, labels, seed=0)
    assert level > 0.9
    found = cluster_near_duplicates(alike, threshold=level)
    assert np.all([len(set(labels[found == cluster])) == 1 for cluster in np.unique(found)])


def test_groups_join_through_any_column() -> None:
    shops = ["north", "north", None, None, "south", ""]
    clusters = [0, 1, 1, 2, 3, 2]
    assert join_groups(shops, clusters).tolist() == [0, 0, 0, 1, 2, 1]
