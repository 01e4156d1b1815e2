"""A run's own folder for checkpoints and caches. It outlives a killed attempt and goes with the end of the run.

What lies there was made from pictures, so it is registered as derived from them: erasing a picture removes the folders
of the runs that looked at it, and such a run begins its step again without the picture.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from keepsight.data import rows
from keepsight.data.erase import ACTIVATION
from keepsight.store import schema
from keepsight.store.database import insert_ignore
from keepsight.store.workspace import RUNS, Workspace


def folder(ws: Workspace, run_id: str) -> Path:
    """The folder of a run; it is made where it is not there."""
    place = ws.state / RUNS / run_id
    place.mkdir(parents=True, exist_ok=True)
    return place


def made_from(ws: Workspace, run_id: str, picture_ids: Sequence[str]) -> None:
    """Registers that the folder holds something made from these pictures."""
    now = ws.clock()
    location = f"{RUNS}/{run_id}"
    for part in rows.chunks(picture_ids):
        with ws.database.write("derived") as connection:
            insert_ignore(
                connection,
                schema.derived,
                [{"picture_id": key, "kind": ACTIVATION, "location": location, "created_at": now} for key in part],
            )


def remove(ws: Workspace, run_id: str) -> None:
    """Removes the folder and its registration, where there is one."""
    location = f"{RUNS}/{run_id}"
    shutil.rmtree(ws.state / RUNS / run_id, ignore_errors=True)
    table = schema.derived
    with ws.database.write("derived") as connection:
        connection.execute(sa.delete(table).where(table.c.kind == ACTIVATION, table.c.location == location))
