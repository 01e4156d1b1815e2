"""Which pictures of a version train, and which judge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from keepsight.data import versions
from keepsight.data.adding import NewSample, add
from keepsight.errors import DataError
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.training import material
from keepsight.training.material import Part
from tests.tiny import DIMENSIONS, backbone, picture, workspace_with


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with workspace_with(tmp_path / "ws") as opened:
        yield opened


def put(
    ws: Workspace, seeds: range, split: str, *, selected_by: str | None = None, label: str | None = "", group: str = ""
) -> None:
    meta = {} if selected_by is None else {"selected_by": selected_by}
    items = [
        NewSample(
            picture(seed),
            f"{seed}.png",
            None if label is None else {"label": label or "ab"[seed % 2]},
            split,
            group=group or None,
            meta=meta,
        )
        for seed in seeds
    ]
    add(ws, "shop", items, author="ana", origin="import" if selected_by is None else "review")


def load(ws: Workspace) -> dict[str, Part]:
    version = versions.commit(ws, "shop", message="m", author="ana", backbone=backbone())
    number = versions.get(ws, "shop").number if version is None else version.number
    return material.load(ws, "shop", number, backbone(), progress=lambda _: None)


def sizes(parts: dict[str, Part]) -> dict[str, int]:
    return {name: len(part) for name, part in parts.items()}


def test_train_and_val_train_and_test_judges(ws: Workspace) -> None:
    put(ws, range(6), "train")
    put(ws, range(6, 8), "val")
    put(ws, range(8, 12), "test")
    put(ws, range(12, 14), "train", label=None)
    parts = load(ws)
    assert sizes(parts) == {"training": 8, "test": 4, "recent": 0}
    training = parts["training"]
    assert training.features.shape == (8, DIMENSIONS)
    assert sorted(training.labels) == ["a"] * 4 + ["b"] * 4
    assert training.sizes.tolist() == [[8, 8]] * len(training)
    assert set(training.keys).isdisjoint(parts["test"].keys)


def test_only_audits_judge_the_newest_conditions_and_the_test_set_stays_frozen(ws: Workspace) -> None:
    put(ws, range(6), "train")
    put(ws, range(6, 10), "test")
    before = load(ws)["test"].keys
    for first, chosen in ((10, "audit"), (13, "uncertain"), (16, "risky"), (19, "feedback"), (22, "revealed")):
        put(ws, range(first, first + 3), "recent", selected_by=chosen)
        # As where a reviewed picture looks like one of the test set.
        put(ws, range(first + 20, first + 22), "test", selected_by=chosen)
    parts = load(ws)
    assert parts["test"].keys == before
    assert sizes(parts) == {"training": 6, "test": 4, "recent": 3}


def test_a_picture_that_cannot_be_read_is_left_out(ws: Workspace) -> None:
    put(ws, range(8), "train")
    put(ws, range(8, 12), "test")
    lost = ws.blobs.name(picture(2))
    with ws.database.write() as connection:
        connection.execute(sa.update(schema.blob).where(schema.blob.c.id == lost).values(wrapped_key=None))
    parts = load(ws)
    assert sizes(parts)["training"] == 7
    assert lost not in {sample.picture_id for sample in parts["training"].samples}


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_class_alone_cannot_be_learnt(ws: Workspace, split: str) -> None:
    put(ws, range(0, 8, 2), "train")
    put(ws, range(1, 9, 2), "test" if split == "test" else "train")
    if split == "train":
        with ws.database.write() as connection:
            gone = [ws.blobs.name(picture(seed)) for seed in range(1, 9, 2)]
            connection.execute(sa.update(schema.blob).where(schema.blob.c.id.in_(gone)).values(wrapped_key=None))
    with pytest.raises(DataError, match='one class only \\("a"\\)'):
        load(ws)


def test_nothing_labelled_is_told(ws: Workspace) -> None:
    put(ws, range(4), "train", label=None)
    with pytest.raises(DataError, match="no labelled training pictures"):
        load(ws)


def test_groups_are_the_users_and_never_shared_by_joined_parts(ws: Workspace) -> None:
    put(ws, range(4), "train", group="shelf")
    put(ws, range(4, 8), "train")
    put(ws, range(8, 10), "test", group="shelf 2")
    parts = load(ws)
    training = parts["training"]
    shelf = [place for place, sample in enumerate(training.samples) if sample.group == "shelf"]
    assert len(set(training.groups[shelf].tolist())) == 1
    assert len(set(training.groups.tolist())) == 5
    joined = Part.join(training, parts["test"])
    assert joined.keys == training.keys + parts["test"].keys
    assert len(set(joined.groups.tolist())) == 6
    assert len(Part.join(parts["recent"], training)) == 8
    taken = joined.take(np.array([9, 0]))
    assert taken.keys == [joined.keys[9], joined.keys[0]]
