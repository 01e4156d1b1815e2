"""What a data set lacks is told before a model is trained on it."""

from __future__ import annotations

from typing import Any

import pytest

from keepsight import tasks
from keepsight.data import checks, versions
from keepsight.data.adding import NewSample
from keepsight.data.checks import Report

from .any_task import any_task
from .conftest import Shop, build_picture


@pytest.fixture
def workspace(tmp_path: Any) -> Any:
    from keepsight.store.workspace import Workspace

    (tmp_path / "keepsight.yaml").write_text("projects: {shop: {}}\n")
    opened = Workspace.open(tmp_path, environment={}, clock=lambda: 1000.0)
    opened.ensure_project("shop")
    yield opened
    opened.close()


def look(shop: Shop, *items: NewSample) -> tuple[Report, dict[str, str]]:
    shop.add(*items)
    versions.commit(shop.workspace, "shop", message="all", author="me")
    report = checks.check(shop.workspace, "shop")
    return report, {item.code: item.text for item in report.findings}


def sample(seed: int, value: dict[str, Any] | None, split: str = "train", group: str | None = None) -> NewSample:
    return NewSample(build_picture(seed), f"{seed}.png", value, split=split, group=group)


def test_classes(shop: Shop) -> None:
    labels = [*["apple"] * 6, "Apple", "pear"]
    items = [sample(seed, {"label": label}) for seed, label in enumerate(labels)]
    items += [
        sample(20, {"label": "kiwi"}, "test"),
        sample(21, None),
        sample(22, {"label": "apple"}, "train", "shelf 1"),
        sample(23, {"label": "apple"}, "test", "shelf 1"),
        sample(24, {"label": "pear"}, "val", "shelf 2"),
    ]
    report, found = look(shop, *items)
    assert (report.pictures, report.classes["apple"]) == (13, {"train": 7, "test": 1})
    assert [item.code for item in report.findings if item.serious] == ["class_untaught"]
    assert report.findings[0].text == "Only in test or recent, so never learned: kiwi."
    assert set(found) == {"class_untaught", "not_annotated", "small_test", "class_small", "class_twice", "group_torn"}
    assert found["class_twice"] == 'Perhaps one class, written in two ways: "Apple" and "apple".'
    assert found["class_small"].endswith("Apple, pear.")
    assert "shelf 1" in found["group_torn"] and "shelf 2" not in found["group_torn"]


def test_one_class_cannot_be_learned(shop: Shop) -> None:
    report, found = look(shop, *[sample(seed, {"label": "apple"}) for seed in range(6)])
    assert report.findings[0].serious
    assert "two classes" in found["not_trainable"]


def test_annotations_that_do_not_fit(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "get", lambda _: any_task("boxes", "mask"))
    boxes = [[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 40.0, 4.0], [3.0, 0.0, 2.0, 4.0]]
    items = [sample(seed, {"boxes": [{"label": "cup", "box": box}]}) for seed, box in enumerate(boxes)]
    items += [sample(8, {"boxes": []}), sample(9, {"mask": {"size": [5, 5], "counts": [25]}})]
    _, found = look(shop, *items)
    assert found["box_outside"] == "1 picture with an annotation that does not fit (box outside): 1.png."
    assert "2.png" in found["box_invalid"]
    assert "9.png" in found["mask_invalid"]
    assert found["empty"] == "In 1 of 5 annotated pictures there is nothing."


def test_a_gallery_is_fine(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "get", lambda _: any_task("subjects"))
    names = ("Anna", "Ben", "Cem")
    _, found = look(shop, *[sample(seed, {"subjects": [{"label": name}]}) for seed, name in enumerate(names)])
    assert set(found) == {"small_test"}
