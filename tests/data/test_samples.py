"""Single edits of samples, and what is read back."""

from __future__ import annotations

import pytest

from keepsight.data import samples, versions
from keepsight.data.adding import NewSample
from keepsight.errors import BadInputError, NotFoundError
from keepsight.store import audit

from .conftest import Shop, build_picture


def commit(shop: Shop) -> None:
    assert versions.commit(shop.workspace, "shop", message="", author="me") is not None


def test_everything_about_a_sample_comes_back(shop: Shop) -> None:
    data = build_picture(1)
    shop.add(NewSample(data, "a/1.png", {"label": "ä"}, "val", group="g", meta={"shelf": "3"}))
    (found,) = samples.current(shop.workspace, "shop")
    assert found == samples.get(shop.workspace, "shop", found.sample_id)
    assert (found.split, found.group, found.name, found.meta) == ("val", "g", "a/1.png", {"shelf": "3"})
    assert found.value == {"label": "ä"}
    assert shop.workspace.blobs.get(found.picture_id) == data
    assert found.as_dict()["sample_id"] == found.sample_id == shop.id_of(1)
    assert samples.current(shop.workspace, "other") == []


def test_the_order_does_not_depend_on_the_order_of_arrival(shop: Shop) -> None:
    shop.fill(6)
    ids = [item.sample_id for item in samples.current(shop.workspace, "shop")]
    assert ids == sorted(ids)


def test_a_new_label_replaces_and_the_same_one_changes_nothing(shop: Shop) -> None:
    (one,) = shop.fill(1)
    assert shop.label(one, "other")
    assert not shop.label(one, "other", author="somebody else")
    assert shop.labels() == {one: "other"}


def test_answers_are_taken_back_one_by_one(shop: Shop) -> None:
    (one,) = shop.fill(1)
    commit(shop)
    shop.label(one, "second")
    shop.label(one, "third")
    assert shop.retract(one)
    assert shop.labels() == {one: "second"}
    assert shop.retract(one)
    assert shop.labels() == {one: "c0"}
    assert not shop.retract(one), "what is committed stays"
    assert versions.commit(shop.workspace, "shop", message="", author="me") is None


def test_enrolling_a_picture_twice_keeps_the_first(shop: Shop) -> None:
    (one,) = shop.fill(1)
    picture = samples.get(shop.workspace, "shop", one).picture_id
    for project, split in (("shop", "train"), ("other", "pending")):
        with shop.workspace.database.write() as connection:
            made = samples.enroll(connection, shop.workspace, project, picture, name="review/e", meta={"event_id": "e"})
        found = samples.get(shop.workspace, project, made)
        assert found.split == split
        assert found.name == ("c0/0.png" if project == "shop" else "review/e")


def test_a_removed_sample_stays_in_its_versions_and_comes_back_into_its_split(shop: Shop) -> None:
    one, two = shop.fill(2, split="test")
    commit(shop)
    shop.remove(one)
    assert list(shop.labels()) == [two]
    with pytest.raises(NotFoundError):
        shop.label(one, "x")
    with pytest.raises(NotFoundError):
        samples.get(shop.workspace, "shop", one)
    assert samples.find(shop.workspace, "shop", one).name == "c0/0.png"
    commit(shop)
    assert {item.sample_id for item in samples.at_version(shop.workspace, "shop", 1)} == {one, two}
    assert {item.sample_id for item in samples.at_version(shop.workspace, "shop", 2)} == {two}
    shop.add(NewSample(build_picture(0), "again.png", {"label": "c0"}))
    assert samples.get(shop.workspace, "shop", one).split == "test", "it judged models, so it must not train"


def test_moving_is_audited(shop: Shop) -> None:
    (one,) = shop.fill(1)
    commit(shop)
    before = audit.verify(shop.workspace.database)
    assert shop.move(one, "test")
    assert not shop.move(one, "test")
    assert audit.verify(shop.workspace.database) == before + 1
    with pytest.raises(BadInputError, match="tset"):
        shop.move(one, "tset")
    commit(shop)
    assert [samples.at_version(shop.workspace, "shop", number)[0].split for number in (1, 2)] == ["train", "test"]


def test_unknown_samples_are_told(shop: Shop) -> None:
    for call in (samples.get, samples.find):
        with pytest.raises(NotFoundError, match="no sample"):
            call(shop.workspace, "shop", "0" * 32)
