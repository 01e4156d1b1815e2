"""Splits of new samples: the same shelf on one side, and what judges never trains."""

from __future__ import annotations

from collections import Counter

import pytest
import sqlalchemy as sa

from keepsight.data import assignment, samples, vectors, versions
from keepsight.data.adding import NewSample
from keepsight.store import schema
from keepsight.zoo.backbone import Backbone

from .conftest import Shop, build_picture


def new(seed: int, *, light: float = 1.0, label: str = "a", split: str = "pending", **more: object) -> NewSample:
    data = build_picture(seed, light=light)
    return NewSample(data, f"{seed}-{light}.png", {"label": label}, split, **more)  # type: ignore[arg-type]


def reviewed(
    shop: Shop, seed: int, selected_by: str, *, light: float = 1.0, group: str | None = None, at: float | None = None
) -> str:
    """A picture from production with a verdict, asked about at a time."""
    data = build_picture(seed, light=light)
    meta = {"selected_by": selected_by, "event_id": f"e{seed}"}
    shop.add(NewSample(data, f"review/e{seed}", {"label": "a"}, group=group, meta=meta))
    if at is not None:
        item = {
            "event_id": f"e{seed}",
            "project_id": "shop",
            "picture_id": shop.workspace.blobs.name(data),
            "selected_by": selected_by,
            "probability": 0.1,
            "priority": 0.5,
            "model_number": 1,
            "prediction": {"label": "a"},
            "created_at": at,
        }
        with shop.workspace.database.write() as connection:
            connection.execute(sa.insert(schema.review_item).values(item))
    return shop.sample_of(data)


def splits_after(shop: Shop, backbone: Backbone) -> dict[str, str]:
    """Commits and gives the split of each sample."""
    versions.commit(shop.workspace, "shop", message="", author="me", backbone=backbone)
    return {item.sample_id: item.split for item in samples.current(shop.workspace, "shop")}


def test_imports_are_divided_by_the_shares_class_by_class(shop: Shop, backbone: Backbone) -> None:
    shop.add(*(new(seed, label=f"c{seed % 2}") for seed in range(100)))
    found = splits_after(shop, backbone)
    labels = shop.labels()
    counts = Counter((labels[name], split) for name, split in found.items())
    for label in ("c0", "c1"):
        assert counts[label, "train"] == pytest.approx(35, abs=1)
        assert counts[label, "val"] == pytest.approx(5, abs=1)
        assert counts[label, "test"] == pytest.approx(10, abs=1)


def test_near_duplicates_stay_together(shop: Shop, backbone: Backbone) -> None:
    lights = (1.0, 0.97, 0.94)
    shop.add(*(new(seed, light=light) for seed in range(30) for light in lights))
    found = splits_after(shop, backbone)
    assert len(set(found.values())) == 3
    for seed in range(30):
        assert len({found[shop.id_of(seed, light=light)] for light in lights}) == 1


@pytest.mark.parametrize("split", ["train", "val", "test", "recent"])
@pytest.mark.parametrize("how", ["import", "audit", "uncertain"])
def test_a_near_duplicate_joins_the_split_of_what_is_there(
    shop: Shop, backbone: Backbone, split: str, how: str
) -> None:
    shop.add(new(1, split=split), new(2, split="train"))
    splits_after(shop, backbone)
    if how == "import":
        shop.add(new(1, light=0.95))
    else:
        reviewed(shop, 1, how, light=0.95)
    assert splits_after(shop, backbone)[shop.id_of(1, light=0.95)] == split


def test_groups_stay_together_and_join_their_split(shop: Shop, backbone: Backbone) -> None:
    shop.add(*(new(seed, group=f"g{seed % 10}") for seed in range(60)))
    found = splits_after(shop, backbone)
    for group in range(10):
        assert len({found[shop.id_of(seed)] for seed in range(group, 60, 10)}) == 1
    shop.add(*(new(100 + group, group=f"g{group}") for group in range(10)))
    found = splits_after(shop, backbone)
    assert all(found[shop.id_of(100 + group)] == found[shop.id_of(group)] for group in range(10))


def test_a_near_duplicate_without_group_follows_the_group(shop: Shop, backbone: Backbone) -> None:
    shop.add(*(new(seed, group="test group") for seed in range(5)))
    shop.add(*(new(seed) for seed in range(10, 40)), new(3, light=0.95))
    found = splits_after(shop, backbone)
    assert found[shop.id_of(3, light=0.95)] == found[shop.id_of(0)]


def test_groups_need_no_vectors(shop: Shop) -> None:
    shop.add(*(new(seed, group=f"g{seed}") for seed in range(10)))
    missing = "no-such-network.onnx"
    shop.workspace.set_setting("shop", "train.backbone", missing, actor="me")
    assert versions.commit(shop.workspace, "shop", message="", author="me") is not None


def test_half_of_the_audits_are_kept_for_judging(shop: Shop, backbone: Backbone) -> None:
    ids = [reviewed(shop, seed, "audit", group=f"visit {seed}") for seed in range(120)]
    found = Counter(splits_after(shop, backbone)[name] for name in ids)
    assert found == {"recent": 60, "train": 60}


def test_the_newest_audits_stand_on_both_sides(shop: Shop, backbone: Backbone) -> None:
    # The order of their ids says nothing of the order in which they came.
    old = [reviewed(shop, seed, "audit", at=float(seed)) for seed in range(21)]
    new = [reviewed(shop, 30 + seed, "audit", at=100.0 + seed) for seed in range(2)]
    alike = [reviewed(shop, 30 + seed, "uncertain", light=0.95) for seed in range(2)]
    found = splits_after(shop, backbone)
    assert {found[name] for name in new} == {"recent", "train"}
    assert [found[name] for name in alike] == [found[name] for name in new], "what looks alike stays together"
    assert Counter(found[name] for name in old)["recent"] in (10, 11)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 41])
def test_halves_are_drawn_in_pairs_of_neighbours_in_time(count: int) -> None:
    arrivals = {f"cluster {number}": float(number) for number in range(count)}
    found = assignment.halves("shop", arrivals)
    in_order = [found[key] for key in sorted(arrivals, key=lambda key: -arrivals[key])]
    assert all(set(in_order[at : at + 2]) == {"recent", "train"} for at in range(0, count - 1, 2))
    assert all(len(set(in_order[at : at + 3])) == 2 for at in range(count - 2))
    assert assignment.halves("shop", dict(reversed(arrivals.items()))) == found


def test_a_unit_judges_with_probability_one_half() -> None:
    draws = [assignment.halves(f"shop {number}", {"a": 1.0, "b": 2.0, "c": 3.0}) for number in range(2000)]
    for key in "abc":
        assert sum(found[key] == "recent" for found in draws) == pytest.approx(1000, abs=120)  # over 5 sigma
    assert sum(found["b"] == found["a"] for found in draws) == pytest.approx(1000, abs=120), "pairs are independent"


def test_an_audited_unit_is_not_torn_apart(shop: Shop, backbone: Backbone) -> None:
    pairs = [(reviewed(shop, seed, "audit"), reviewed(shop, seed, "uncertain", light=0.95)) for seed in range(30)]
    found = splits_after(shop, backbone)
    assert all(found[first] == found[second] for first, second in pairs)
    assert {found[first] for first, _ in pairs} == {"recent", "train"}


@pytest.mark.parametrize("selected_by", ["uncertain", "risky", "feedback", "revealed"])
def test_other_reviewed_pictures_train(shop: Shop, backbone: Backbone, selected_by: str) -> None:
    ids = [reviewed(shop, seed, selected_by) for seed in range(8)]
    found = splits_after(shop, backbone)
    assert {found[name] for name in ids} == {"train"}


def test_committed_splits_never_change_and_only_new_pictures_are_computed(
    shop: Shop, backbone: Backbone, changed: Backbone
) -> None:
    shop.add(*(new(seed) for seed in range(20)))
    first = splits_after(shop, backbone)
    assert vectors.ensure(shop.workspace, [], backbone).computed == 0
    shop.add(*(new(seed, light=0.95) for seed in range(20)))
    second = splits_after(shop, backbone)
    assert {name: second[name] for name in first} == first
    assert assignment.decide(shop.workspace, "shop", backbone=changed) == {}, "nothing is pending"


def test_unreadable_pictures_are_decided_too(shop: Shop, backbone: Backbone) -> None:
    shop.add(*(new(seed) for seed in range(4)))
    for path in (shop.workspace.state / "blobs").rglob(f"{shop.workspace.blobs.name(build_picture(2))}-*"):
        path.unlink()
    assert "pending" not in splits_after(shop, backbone).values()


def test_a_sample_that_comes_in_meanwhile_waits_for_the_next_commit(
    shop: Shop, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.add(new(1))
    decide = assignment.decide

    def slow(*args: object, **options: object) -> dict[str, str]:
        decided = decide(*args, **options)  # type: ignore[arg-type]
        shop.add(new(2))
        return decided

    monkeypatch.setattr(assignment, "decide", slow)
    found = splits_after(shop, backbone)
    assert (found[shop.id_of(1)], found[shop.id_of(2)]) == ("train", "pending")
    monkeypatch.setattr(assignment, "decide", decide)
    assert [item.sample_id for item in samples.at_version(shop.workspace, "shop", 1)] == [shop.id_of(1)]
    assert splits_after(shop, backbone)[shop.id_of(2)] == "train"
    assert versions.verify(shop.workspace, "shop") == 2
    by_id = {item.sample_id: item.value for item in samples.at_version(shop.workspace, "shop", 2)}
    assert by_id == {shop.id_of(1): {"label": "a"}, shop.id_of(2): {"label": "a"}}
