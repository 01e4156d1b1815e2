"""Pictures that serving kept become rows of truth, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from keepsight.errors import StorageError
from keepsight.review import intake, queue
from keepsight.store import schema
from keepsight.store.workspace import Workspace

Serve = Callable[..., str]
MakeJpeg = Callable[[int], bytes]


def _events(ws: Workspace) -> list[sa.RowMapping]:
    with ws.database.read("events") as connection:
        return list(connection.execute(sa.select(schema.event).order_by(schema.event.c.seq)).mappings())


def test_a_kept_picture_waits_for_a_person_and_can_be_read(ws: Workspace, serve: Serve, make_jpeg: MakeJpeg) -> None:
    data = make_jpeg(7)
    event_id = serve("uncertain", picture=data, confidence=0.3)
    item = queue.get(ws, "shop", event_id)
    assert ws.blobs.get(item.picture_id) == data
    assert item.prediction is not None and item.prediction["label"] == "apple"
    event = _events(ws)[0]
    assert event["sealed"] is None
    assert event["picture_id"] == item.picture_id


def test_nothing_waits_means_nothing_is_done(ws: Workspace, serve: Serve) -> None:
    serve("audit")
    assert intake.run(ws) == 0


def test_dying_between_the_two_writes_changes_nothing_in_the_end(
    ws: Workspace, serve: Serve, monkeypatch: pytest.MonkeyPatch, make_jpeg: MakeJpeg
) -> None:
    serve("audit", picture=make_jpeg(50), take_in=False)
    real = ws.database.write

    def dies(area: str = "truth") -> Any:
        if area == "events":
            raise StorageError("The power went.", expected="power.", do="Wait.")
        return real(area)

    monkeypatch.setattr(ws.database, "write", dies)
    with pytest.raises(StorageError):
        intake.run(ws)
    monkeypatch.undo()
    assert intake.run(ws) == 1
    assert queue.counts(ws, "shop").waiting == 1
    with ws.database.read() as connection:
        # The labelled pictures of the fixture, and this one.
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.picture)) == 5


def test_the_same_picture_twice_is_stored_once_and_judged_twice(
    ws: Workspace, serve: Serve, make_jpeg: MakeJpeg
) -> None:
    first, second = (serve("audit", picture=make_jpeg(3)) for _ in range(2))
    assert queue.get(ws, "shop", first).picture_id == queue.get(ws, "shop", second).picture_id
    assert queue.counts(ws, "shop").waiting == 2


def test_pictures_are_taken_in_by_batches(ws: Workspace, serve: Serve) -> None:
    for _ in range(5):
        serve("uncertain", take_in=False)
    assert [intake.run(ws, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert queue.counts(ws, "shop").waiting == 5


def test_a_prediction_that_nobody_can_read_does_not_stop_the_others(
    ws: Workspace, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    bad = serve("uncertain", take_in=False)
    with ws.database.write("events") as connection:
        connection.execute(sa.update(schema.event).where(schema.event.c.id == bad).values(prediction={"odd": 1}))
    good = serve("uncertain")
    assert [item.event_id for item in queue.upcoming(ws, "shop", author="ana")] == [good]
    assert bad in caplog.text
    assert intake.run(ws) == 0
