"""A run's folder: it goes with the run, and erasing a picture takes what was made of it there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keepsight.data.adding import NewSample, add
from keepsight.data.erase import erase_picture
from keepsight.loop import runs, scratch
from keepsight.store.workspace import Workspace
from tests.tiny import picture, workspace_with


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with workspace_with(tmp_path / "ws") as opened:
        yield opened


def test_the_folder_goes_with_the_run(ws: Workspace) -> None:
    run_id = runs.enqueue(ws, "shop", trigger="hand", reason="r", actor="ana")
    folder = scratch.folder(ws, run_id)
    (folder / "checkpoint").write_bytes(b"weights")
    runs.finish(ws, run_id, status="failed")
    assert not folder.exists()
    runs.finish(ws, run_id, status="failed")


def test_erasing_a_picture_takes_the_caches_that_were_made_of_it(ws: Workspace) -> None:
    add(ws, "shop", [NewSample(picture(n), f"{n}.png", {"label": "a"}, "train") for n in range(2)], author="ana")
    with ws.database.read() as connection:
        from keepsight.store import schema

        first, second = connection.scalars(schema.picture.select().with_only_columns(schema.picture.c.id)).all()
    for name, pictures in (("one", [first]), ("both", [first, second]), ("other", [second])):
        (scratch.folder(ws, name) / "cache").write_bytes(b"pixels")
        scratch.made_from(ws, name, pictures)
    erased = erase_picture(ws, first, actor="ana", reason="asked")
    assert erased["outstanding"] == []
    assert not scratch.folder(ws, "one").joinpath("cache").exists()
    assert not scratch.folder(ws, "both").joinpath("cache").exists()
    assert scratch.folder(ws, "other").joinpath("cache").exists()
