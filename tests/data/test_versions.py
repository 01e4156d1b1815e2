"""Versions: what was committed stays readable as it was, whatever happens later."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepsight.data import samples, versions
from keepsight.data.adding import NewSample
from keepsight.data.versions import Version
from keepsight.errors import BadInputError, ConflictError, NotFoundError
from keepsight.store import audit, schema
from keepsight.store.workspace import Workspace

from .conftest import Shop, build_picture


def commit(shop: Shop, message: str = "") -> Version | None:
    return versions.commit(shop.workspace, "shop", message=message, author="me")


def must_commit(shop: Shop) -> Version:
    made = commit(shop)
    assert made is not None
    return made


def content(workspace: Workspace, number: int) -> list[Any]:
    return [item.as_dict() for item in samples.at_version(workspace, "shop", number)]


def test_a_version_says_what_it_is(shop: Shop) -> None:
    shop.fill(3)
    made = commit(shop, "first pictures")
    assert made == versions.get(shop.workspace, "shop") == versions.latest(shop.workspace, "shop")
    assert made is not None
    assert (made.number, made.message, made.author, made.created_at) == (1, "first pictures", "me", 1000.0)
    assert (made.samples, made.added, made.removed) == (3, 3, 0)
    assert made.as_dict()["digest"] == made.digest


def test_nothing_changed_makes_no_version(shop: Shop) -> None:
    assert commit(shop) is None
    one, _ = shop.fill(2)
    must_commit(shop)
    assert commit(shop) is None
    shop.label(one, "x")
    shop.retract(one)
    shop.remove(one)
    shop.add(NewSample(build_picture(0), "c0/0.png", {"label": "c0"}, "train"))
    assert commit(shop) is None, "edits that lead back to what was there are none"
    with shop.workspace.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.membership)) == 2


def test_old_versions_stay_as_they_were(shop: Shop) -> None:
    one, two, three = shop.fill(3)
    must_commit(shop)
    first = content(shop.workspace, 1)
    shop.label(one, "other")
    shop.remove(two)
    shop.move(three, "test")
    shop.fill(1, first=9)
    assert content(shop.workspace, 1) == first, "before the next commit as well"
    second = must_commit(shop)
    assert (second.samples, second.added, second.removed) == (3, 1, 1)
    assert content(shop.workspace, 1) == first
    assert {
        item["sample_id"]: (item["value"] or {}).get("label", "") for item in content(shop.workspace, 2)
    } == shop.labels()


def test_a_commit_writes_what_changed_and_no_more(shop: Shop) -> None:
    ids = shop.fill(30)
    must_commit(shop)
    shop.label(ids[0], "other")
    must_commit(shop)
    with shop.workspace.database.read() as connection:
        counts = [
            connection.scalar(sa.select(sa.func.count()).select_from(table).where(table.c.added_in == 2))
            for table in (schema.membership, schema.annotation)
        ]
    assert counts == [0, 1]


def test_equal_content_has_an_equal_digest_and_different_content_another(shop: Shop) -> None:
    (one,) = shop.fill(1)
    first = must_commit(shop)
    shop.label(one, "other", author="me")
    second = must_commit(shop)
    with shop.workspace.database.write() as connection:
        samples.annotate(connection, shop.workspace, "shop", one, {"label": "c0"}, author="me", origin="import")
    third = must_commit(shop)
    assert first.digest == third.digest != second.digest


def test_versions_are_found_by_number_tag_and_latest(shop: Shop) -> None:
    shop.fill(1)
    must_commit(shop)
    shop.fill(1, first=1)
    must_commit(shop)
    versions.tag(shop.workspace, "shop", "summer", 1, actor="me")
    versions.tag(shop.workspace, "shop", "summer", 1, actor="me")
    for which, number in (("latest", 2), (1, 1), ("1", 1), ("summer", 1), ("2", 2)):
        assert versions.get(shop.workspace, "shop", which).number == number
    assert [(item.number, item.tags) for item in versions.log(shop.workspace, "shop")] == [(2, ()), (1, ("summer",))]
    with pytest.raises(NotFoundError, match="summer"):
        versions.get(shop.workspace, "shop", "sumer")
    with pytest.raises(NotFoundError, match="no version"):
        versions.get(shop.workspace, "other")
    assert versions.latest(shop.workspace, "other") is None
    assert audit.verify(shop.workspace.database) == 3


def test_a_tag_never_moves(shop: Shop) -> None:
    shop.fill(1)
    must_commit(shop)
    shop.fill(1, first=1)
    must_commit(shop)
    versions.tag(shop.workspace, "shop", "summer", 1, actor="me")
    with pytest.raises(ConflictError, match="Version 1"):
        versions.tag(shop.workspace, "shop", "summer", 2, actor="me")
    for name in ("7", "latest", " x", "", "x" * 101):
        with pytest.raises(BadInputError):
            versions.tag(shop.workspace, "shop", name, 1, actor="me")
    with pytest.raises(NotFoundError):
        versions.tag(shop.workspace, "shop", "winter", 3, actor="me")


def test_projects_do_not_mix(shop: Shop) -> None:
    shop.fill(2)
    assert versions.commit(shop.workspace, "other", message="", author="me") is None
    assert must_commit(shop).number == 1
    with pytest.raises(NotFoundError):
        versions.commit(shop.workspace, "shp", message="", author="me")


EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 4), st.sampled_from(["train", "test"])),
        st.tuples(st.just("label"), st.integers(0, 4), st.sampled_from(["a", "b"])),
        st.tuples(st.just("move"), st.integers(0, 4), st.sampled_from(["train", "test", "val"])),
        st.tuples(st.just("remove"), st.integers(0, 4), st.just("")),
        st.tuples(st.just("retract"), st.integers(0, 4), st.just("")),
        st.tuples(st.just("commit"), st.just(0), st.just("")),
    ),
    max_size=30,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS)
def test_any_sequence_of_edits_keeps_every_version(workspace: Workspace, edits: list[tuple[str, int, str]]) -> None:
    # One workspace serves all examples: what the last one left is where the next one starts.
    shop = Shop(workspace)
    snapshots: dict[int, tuple[str, list[Any]]] = {}
    for kind, seed, argument in [*edits, ("commit", 0, "")]:
        sample_id = shop.id_of(seed)
        there = sample_id in shop.labels()
        if kind == "add":
            shop.add(NewSample(build_picture(seed), f"{seed}.png", None, argument))
        elif kind == "label" and there:
            shop.label(sample_id, argument)
        elif kind == "move" and there:
            shop.move(sample_id, argument)
        elif kind == "remove" and there:
            shop.remove(sample_id)
        elif kind == "retract":
            shop.retract(sample_id)
        elif kind == "commit":
            now = [item.as_dict() for item in samples.current(workspace, "shop")]
            latest = versions.latest(workspace, "shop")
            made = commit(shop)
            before = content(workspace, latest.number) if latest else []
            assert (made is None) == (now == before)
            if made is not None:
                snapshots[made.number] = (made.digest, now)
                assert latest is None or made.digest != latest.digest
    for number, (_, snapshot) in snapshots.items():
        assert content(workspace, number) == snapshot
    found = list(snapshots.values())
    for digest, snapshot in found:
        for other_digest, other in found:
            assert (digest == other_digest) == (snapshot == other)
    versions.verify(workspace, "shop")
    # A diff applied to one version gives the other.
    for first in snapshots:
        for second in snapshots:
            before_rows = {item["sample_id"]: (item["split"], item["value"]) for item in snapshots[first][1]}
            after_rows = {item["sample_id"]: (item["split"], item["value"]) for item in snapshots[second][1]}
            for change in versions.diff(workspace, "shop", first, second).changes:
                assert before_rows.pop(change.sample_id, (None, None)) == (change.split_before, change.value_before)
                if change.split_after is not None:
                    before_rows[change.sample_id] = (change.split_after, change.value_after)
            assert before_rows == after_rows
