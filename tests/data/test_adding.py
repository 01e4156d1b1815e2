"""Bringing pictures in: nothing twice, nothing lost, and one bad picture costs one picture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keepsight.data import adding, samples, versions
from keepsight.data.adding import NewSample, Rejected
from keepsight.errors import BadInputError, NotFoundError

from .conftest import Shop, build_picture


def new(seed: int, label: str | None = "a", split: str = "train", **more: object) -> NewSample:
    value = None if label is None else {"label": label}
    return NewSample(build_picture(seed), f"{label}/{seed}.png", value, split, **more)  # type: ignore[arg-type]


def codes(report: adding.AddReport) -> list[tuple[str, str]]:
    return [(item.name, item.code) for item in report.rejected]


def test_the_same_import_again_changes_nothing(shop: Shop) -> None:
    items = [new(seed) for seed in range(3)]
    assert shop.add(*items) == adding.AddReport(added=3)
    assert shop.add(*items) == adding.AddReport(unchanged=3)
    objects = [path for path in (shop.workspace.state / "blobs").rglob("*") if path.is_file()]
    assert len(objects) == 3


def test_a_bad_picture_costs_one_picture(shop: Shop) -> None:
    jpeg = build_picture(5, kind="JPEG", side=64)
    items: list[NewSample | Rejected] = [
        new(1),
        NewSample(b"Dear customer,", "letter.jpg", {"label": "a"}, "train"),
        NewSample(jpeg[: len(jpeg) // 2], "cut.jpg", {"label": "a"}, "train"),
        NewSample(b"", "empty.png", {"label": "a"}, "train"),
        NewSample(b"Dear customer,", "letter again.jpg", {"label": "a"}, "train"),
        Rejected("gone.jpg", "file_missing", "There is no such file."),
        new(2),
    ]
    report = shop.add(*items)
    assert report.added == 2
    assert codes(report) == [
        ("letter.jpg", "picture_unreadable"),
        ("cut.jpg", "picture_unreadable"),
        ("empty.png", "picture_unreadable"),
        ("letter again.jpg", "picture_unreadable"),
        ("gone.jpg", "file_missing"),
    ]
    assert "too early" in report.rejected[1].text
    assert report.as_dict()["rejected"][4] == {
        "name": "gone.jpg",
        "code": "file_missing",
        "text": "There is no such file.",
    }


def test_another_label_replaces_the_first(shop: Shop) -> None:
    shop.add(new(1, "a"), new(2, "a"))
    report = shop.add(new(1, "b"), new(2, "a"))
    assert (report.updated, report.unchanged) == (1, 1)
    assert sorted(shop.labels().values()) == ["a", "b"]


@pytest.mark.parametrize("apart", [0, adding.BATCH * 2])
def test_two_labels_for_one_picture_are_listed_and_neither_is_taken(shop: Shop, apart: int) -> None:
    between = [new(100 + seed) for seed in range(apart)]
    for _ in range(2):
        report = shop.add(new(1, "a"), *between, new(1, "b"), new(1, "a"), new(2, "b"))
        assert codes(report) == [("b/1.png", "conflicting_labels")]
        assert '"a"' in report.rejected[0].text and '"b"' in report.rejected[0].text
        assert shop.labels()[shop.id_of(1)] == ""
        assert shop.labels()[shop.id_of(2)] == "b"


def test_a_contradicted_import_leaves_the_label_that_was_there(shop: Shop) -> None:
    shop.add(new(1, "a"))
    versions.commit(shop.workspace, "shop", message="", author="me")
    report = shop.add(new(1, "b"), new(1, "c"))
    assert codes(report) == [("c/1.png", "conflicting_labels")]
    assert shop.labels() == {shop.id_of(1): "a"}


def test_an_unlabelled_duplicate_does_not_contradict(shop: Shop) -> None:
    assert codes(shop.add(new(1, None), new(1, "b"))) == []
    assert shop.labels() == {shop.id_of(1): "b"}


def test_a_committed_split_stays(shop: Shop) -> None:
    shop.add(new(1, split="pending"))
    assert shop.add(new(1, split="test")).updated == 1
    versions.commit(shop.workspace, "shop", message="", author="me")
    report = shop.add(new(1, split="train"))
    assert codes(report) == [("a/1.png", "split_kept")]
    assert samples.current(shop.workspace, "shop")[0].split == "test"


def test_one_picture_in_two_splits_of_an_import_is_listed(shop: Shop) -> None:
    report = shop.add(new(1, split="train"), new(1, split="test"))
    assert codes(report) == [("a/1.png", "split_kept")]
    assert samples.current(shop.workspace, "shop")[0].split == "train"


def test_metadata_are_joined_and_a_group_replaces(shop: Shop) -> None:
    shop.add(new(1, meta={"shelf": "3", "light": "dim"}))
    report = shop.add(new(1, meta={"light": "bright"}, group="g"), new(1, meta={"light": "off"}))
    assert (report.updated, report.unchanged) == (1, 1)
    (found,) = samples.current(shop.workspace, "shop")
    assert (found.meta, found.group) == ({"shelf": "3", "light": "bright"}, "g")


def test_names_and_groups_fit_the_database(shop: Shop) -> None:
    long_name = "x" * 1500 + "/1.png"
    report = shop.add(NewSample(build_picture(1), long_name, None, "train"), new(2, group="g" * 201))
    assert codes(report) == [("a/2.png", "group_too_long")]
    assert samples.current(shop.workspace, "shop")[0].name == long_name[-1000:]


def test_items_are_read_as_they_are_needed(shop: Shop) -> None:
    read = 0

    def items() -> Iterator[NewSample]:
        nonlocal read
        for seed in range(5 * adding.BATCH):
            read += 1
            yield new(seed)

    ahead: list[int] = []
    done: list[int] = []

    def progress(count: int) -> None:
        done.append(count)
        ahead.append(read - count)

    adding.add(shop.workspace, "shop", items(), author="me", progress=progress)
    assert done == [adding.BATCH * part for part in range(1, 6)]
    assert max(ahead) <= adding.BATCH


def test_an_import_that_breaks_off_keeps_what_it_wrote(shop: Shop) -> None:
    def items() -> Iterator[NewSample]:
        for seed in range(3 * adding.BATCH):
            yield new(seed)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adding.add(shop.workspace, "shop", items(), author="me")
    kept = len(samples.current(shop.workspace, "shop"))
    assert kept >= adding.BATCH
    report = shop.add(*(new(seed) for seed in range(3 * adding.BATCH)))
    assert (report.added, report.unchanged) == (3 * adding.BATCH - kept, kept)


def test_wrong_projects_and_splits_are_told(shop: Shop) -> None:
    with pytest.raises(NotFoundError, match="shop"):
        adding.add(shop.workspace, "shp", [], author="me")
    with pytest.raises(BadInputError, match="dev"):
        shop.add(new(1, split="dev"))


def test_one_picture_can_be_in_two_projects(shop: Shop) -> None:
    shop.add(new(1))
    report = adding.add(shop.workspace, "other", [new(1, "z")], author="me")
    assert report.added == 1
    assert shop.labels() == {shop.id_of(1): "a"}
    assert samples.current(shop.workspace, "other")[0].value == {"label": "z"}
