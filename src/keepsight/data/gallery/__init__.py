"""Galleries that change while they are served: enrolling, taking out, erasing, and what a server has to follow.

An enrolment is an ordinary sample with an annotation, so it is versioned, audited and erased like any other, and the
next model is made with it. What makes it live at once is a row of the derived area: the picture's vector under the name
of the space that it was made in, with a revision that counts up by project. A server that follows reads one small
number, and where it grew, the rows behind it. A sample that was taken out has one row without a vector, in no space,
which counts for every model, those included that were made with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from keepsight import tasks
from keepsight.data import rows
from keepsight.errors import BadInputError, KeepsightError
from keepsight.runtime.decode import Picture
from keepsight.runtime.outputs.recognition.engine import View
from keepsight.runtime.outputs.recognition.gallery import Entry, Gallery
from keepsight.store import schema
from keepsight.store.database import insert_ignore, upsert
from keepsight.store.workspace import Workspace

KIND = "gallery"
OUT = ""
STORED = np.dtype("<f2")


@runtime_checkable
class Enrolling(Protocol):
    """An engine whose gallery grows while it answers."""

    gallery: Gallery
    space: str

    @property
    def min_side(self) -> int:
        """As every engine has it."""

    def view_to_enrol(self, image: Picture, size: tuple[int, int]) -> View:
        """The vector of the one subject in a picture."""


@dataclass(frozen=True)
class NewView:
    """A vector on its way into the gallery."""

    sample_id: str
    picture_id: str
    label: str
    vector: NDArray[np.float32]


@dataclass(frozen=True)
class Changes:
    """What changed up to a revision: views that are new or were replaced, and samples that were taken out."""

    revision: int
    put: tuple[Entry, ...]
    gone: tuple[str, ...]


def check(ws: Workspace, project: str) -> str:
    """The project's name, if its task has a gallery.

    Raises:
        NotFoundError: There is no such project. BadInputError: Its task has none.
    """
    task = ws.settings(ws.check_project(project))["task"]
    if not getattr(tasks.get(task), "GALLERY", False):
        raise BadInputError(
            f"{project} is a project of the task {task}, which has no gallery.",
            expected="a project of the task recognition.",
            do=f"Import labelled pictures and train (`keepsight data import {project} PHOTOS/`), or make another "
            "project (`keepsight init NAME --task recognition`).",
        )
    return project


def has(ws: Workspace, project: str) -> bool:
    """Whether the project's task has a gallery; not where its task cannot be loaded."""
    try:
        return bool(getattr(tasks.get(ws.settings(project)["task"]), "GALLERY", False))
    except KeepsightError:
        return False


def revisions(ws: Workspace) -> dict[str, int]:
    """The revision of the newest change, by project; one small read."""
    with ws.database.read("derived") as connection:
        return {row.project_id: row.revision for row in connection.execute(sa.select(schema.gallery_revision))}


def changes(ws: Workspace, project: str, *, space: str, since: int) -> Changes:
    """What changed in a space after a revision."""
    table = schema.gallery
    query = sa.select(table.c.sample_id, table.c.label, table.c.data, table.c.revision).where(
        table.c.project_id == project, table.c.revision > since, table.c.space.in_((space, OUT))
    )
    put, gone, newest = [], [], since
    with ws.database.read("derived") as connection:
        for sample_id, label, data, revision in connection.execute(query.order_by(table.c.revision)):
            newest = max(newest, revision)
            if data is None:
                gone.append(sample_id)
            else:
                put.append(Entry(label, sample_id, np.frombuffer(data, STORED).astype(np.float32)))
    return Changes(newest, tuple(put), tuple(gone))


def follow(ws: Workspace, project: str, engine: Enrolling, *, since: int) -> int:
    """Brings a gallery up to date, in place; the revision that it has now."""
    found = changes(ws, project, space=engine.space, since=since)
    if found.gone:
        engine.gallery.drop(found.gone)
    if found.put:
        engine.gallery.put(found.put)
    return found.revision


def add(ws: Workspace, project: str, views: Sequence[NewView], *, space: str, again: bool = False) -> int:
    """Makes views live for models of a space, and registers them with their pictures; the new revision.

    Args:
        ws: The workspace.
        project: The project.
        views: What is enrolled.
        space: Which models can compare them.
        again: They were enrolled before and are embedded anew: what was taken out meanwhile stays out.
    """
    with ws.database.write("derived") as connection:
        revision = _next(ws, connection, project)
        table = schema.gallery
        if again:
            out = set(
                connection.scalars(
                    sa.select(table.c.sample_id).where(table.c.project_id == project, table.c.space == OUT)
                )
            )
            views = [view for view in views if view.sample_id not in out]
        for part in rows.chunks(views):
            samples = [view.sample_id for view in part]
            connection.execute(
                sa.delete(table).where(
                    table.c.project_id == project, table.c.sample_id.in_(samples), table.c.space == OUT
                )
            )
            upsert(connection, table, [_row(project, view, space=space, revision=revision) for view in part])
        register(connection, project, [view.picture_id for view in views], now=ws.clock())
    return revision


def register(connection: Connection, project: str, picture_ids: Iterable[str], *, now: float) -> None:
    """Notes that pictures have views in the project's gallery, so that erasing them finds these."""
    insert_ignore(
        connection,
        schema.derived,
        [
            {"picture_id": picture_id, "kind": KIND, "location": project, "created_at": now}
            for picture_id in dict.fromkeys(picture_ids)
        ],
    )


def take_out(ws: Workspace, project: str, samples: Sequence[tuple[str, str]]) -> int:
    """Takes samples, as (sample id, picture id), out of the gallery of every model; the new revision."""
    table = schema.gallery
    with ws.database.write("derived") as connection:
        revision = _next(ws, connection, project)
        for part in rows.chunks(samples):
            ids = [sample_id for sample_id, _ in part]
            connection.execute(
                sa.delete(table).where(table.c.project_id == project, table.c.sample_id.in_(ids), table.c.space != OUT)
            )
            gone = [
                {"project_id": project, "sample_id": sample_id, "space": OUT, "picture_id": picture_id, "label": "",
                 "data": None, "revision": revision}
                for sample_id, picture_id in part
            ]  # fmt: skip
            upsert(connection, table, gone)
    return revision


def enrolled_elsewhere(ws: Workspace, project: str, *, space: str) -> list[tuple[str, str, str]]:
    """Enrolments that have a vector in another space and none in this one: (sample id, picture id, name)."""
    table = schema.gallery
    here = sa.select(table.c.sample_id).where(table.c.project_id == project, table.c.space.in_((space, OUT)))
    query = sa.select(table.c.sample_id, table.c.picture_id, table.c.label).where(
        table.c.project_id == project, table.c.sample_id.not_in(here)
    )
    with ws.database.read("derived") as connection:
        found = {row.sample_id: (row.sample_id, row.picture_id, row.label) for row in connection.execute(query)}
    return list(found.values())


def _row(project: str, view: NewView, *, space: str, revision: int) -> dict[str, Any]:
    unit = view.vector / max(float(np.linalg.norm(view.vector)), 1e-12)
    return {
        "project_id": project,
        "sample_id": view.sample_id,
        "space": space,
        "picture_id": view.picture_id,
        "label": view.label,
        "data": unit.astype(STORED).tobytes(),
        "revision": revision,
    }


def _next(ws: Workspace, connection: Connection, project: str) -> int:
    """Counts the project's revision up; one writer at a time, so that a reader never passes over a smaller one."""
    ws.database.lock(connection, f"gallery {project}")
    table = schema.gallery_revision
    last = connection.scalar(sa.select(table.c.revision).where(table.c.project_id == project))
    upsert(connection, table, [{"project_id": project, "revision": (last or 0) + 1}])
    return (last or 0) + 1
