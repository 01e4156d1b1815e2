"""Differences: between any two versions, and from a version to how things stand now."""

from __future__ import annotations

import pytest

from keepsight.data import versions
from keepsight.data.adding import NewSample
from keepsight.errors import NotFoundError

from .conftest import Shop, build_picture


def commit(shop: Shop) -> None:
    assert versions.commit(shop.workspace, "shop", message="", author="me") is not None


def kinds(shop: Shop, before: int | str, after: int | str | None) -> dict[str, str]:
    return {change.sample_id: change.kind for change in versions.diff(shop.workspace, "shop", before, after).changes}


def test_each_kind_of_change_is_named(shop: Shop) -> None:
    one, two, three, four, five = shop.fill(5)
    commit(shop)
    shop.label(one, "other")
    shop.remove(two)
    shop.move(three, "test")
    shop.add(NewSample(build_picture(3), "x", None, "train", group="g"))
    (six,) = shop.fill(1, first=10)
    expected = {one: "relabelled", two: "removed", three: "resplit", four: "edited", six: "added"}
    assert kinds(shop, 1, None) == expected
    commit(shop)
    assert kinds(shop, 1, 2) == expected
    assert kinds(shop, 2, 1) == {**expected, two: "added", six: "removed"}
    assert kinds(shop, 2, None) == kinds(shop, 1, 1) == {}
    assert set(kinds(shop, 0, 2)) == {one, three, four, five, six}
    assert set(kinds(shop, 0, 2).values()) == {"added"}


def test_both_sides_are_told(shop: Shop) -> None:
    (one,) = shop.fill(1)
    commit(shop)
    shop.label(one, "other")
    commit(shop)
    (change,) = versions.diff(shop.workspace, "shop", "1", "latest").changes
    assert (change.value_before, change.value_after) == ({"label": "c0"}, {"label": "other"})
    assert (change.split_before, change.split_after, change.name) == ("train", "train", "c0/0.png")
    assert change.as_dict()["kind"] == "relabelled"


def test_counts_are_by_class(shop: Shop) -> None:
    ids = shop.fill(5)
    commit(shop)
    shop.remove(ids[0])
    shop.label(ids[1], "c0")
    shop.fill(3, first=10)
    found = versions.diff(shop.workspace, "shop", 1, None)
    assert found.counts() == {"added": {"c0": 2, "c1": 1}, "relabelled": {"c0": 1}, "removed": {"c0": 1}}
    assert len(found.of_kind("added")) == 3
    assert found.as_dict()["counts"] == found.counts()


def test_a_change_that_was_undone_later_is_none(shop: Shop) -> None:
    (one,) = shop.fill(1)
    commit(shop)
    shop.move(one, "test")
    commit(shop)
    shop.move(one, "train")
    commit(shop)
    assert kinds(shop, 1, 3) == {}
    assert kinds(shop, 1, 2) == {one: "resplit"}


def test_unknown_versions_are_told(shop: Shop) -> None:
    shop.fill(1)
    commit(shop)
    with pytest.raises(NotFoundError, match='version "7"'):
        versions.diff(shop.workspace, "shop", 1, 7)
