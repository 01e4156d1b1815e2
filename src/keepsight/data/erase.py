"""Erases a picture for good: its key, its bytes and everything that was made from it, in every project and version.

What remains are ids and leaves, so that every version can still be read and verified, and an audit record that says who
erased it and why. Each step may run again: an erasure that broke off is finished by calling it again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepsight.data import gallery, rows
from keepsight.data.gallery import bundles
from keepsight.data.rows import ERASED
from keepsight.data.vectors import KIND as VECTOR
from keepsight.data.verification import ERASE_ACTION
from keepsight.errors import NotFoundError
from keepsight.store import audit, schema
from keepsight.store.schema import REMOVAL_PENDING
from keepsight.store.workspace import Workspace

SKIPPED = {"skip": "the picture was erased"}

_TOMBSTONES: Mapping[sa.Table, Mapping[str, Any]] = {
    schema.membership: {"split": ERASED, "group_key": "", "name": "", "meta": {}},
    schema.annotation: {"origin": ERASED, "author": "", "value": None},
}
_BLANK_EVENT: Mapping[str, Any] = {
    "features": None,
    "label": "",
    "meta": {},
    "picture_id": None,
    "prediction": {},
    "quality": {},
    "sealed": None,
}
# What this module deletes or empties by itself; other kinds wait for their makers.
ACTIVATION = "activation"
_ERASABLE = (VECTOR, "event", ACTIVATION, gallery.KIND)


class Outstanding(TypedDict):
    """Something made from an erased picture that only its own maker can mend: a drift reference, for one."""

    kind: str
    location: str


class Erasure(TypedDict):
    """What an erasure did, or would do.

    ``samples`` counts the picture's samples over all projects, ``derived`` the things made from it that are gone;
    ``outstanding`` ones stay registered until their makers have rebuilt them without it.
    """

    picture_id: str
    projects: list[str]
    samples: int
    events: int
    derived: int
    outstanding: list[Outstanding]


def erase_picture(ws: Workspace, picture_id: str, *, actor: str, reason: str, dry_run: bool = False) -> Erasure:
    """Erases one picture.

    Args:
        actor: Who erases; recorded with ``reason`` in the audit trail, which is never erased.
        dry_run: Change nothing, only say what would be.

    Raises:
        NotFoundError: There is no such picture, or it was erased completely before.
        StorageError: The database or the blob store failed; call again to finish.
    """
    found = _survey(ws, picture_id)
    if dry_run:
        return found
    # What was made from it goes first: while its key is there, an erasure that broke off can be repeated.
    _erase_events(ws, picture_id)
    _erase_derived(ws, picture_id, actor=actor)
    now = ws.clock()
    with ws.database.write() as connection:
        for project in found["projects"]:
            rows.lock(ws, connection, project)
            for table, blank in _TOMBSTONES.items():
                _bury(connection, table, project, rows.sample_id(project, picture_id), blank)
        _erase_reviews(connection, picture_id, now=now)
        _erase_mistakes(connection, picture_id)
        ws.blobs.erase(connection, picture_id, now=now)
        audit.append(
            ws.database,
            connection,
            actor=actor,
            action=ERASE_ACTION,
            target=picture_id,
            now=now,
            detail={"reason": reason, "projects": found["projects"]},
        )
    # Again, for what a trainer or server made of it in the meantime.
    _erase_events(ws, picture_id)
    _erase_derived(ws, picture_id, actor=actor)
    ws.database.checkpoint()
    return found


def _survey(ws: Workspace, picture_id: str) -> Erasure:
    """What there is to erase."""
    member = schema.membership
    with ws.database.read() as connection:
        key = connection.execute(
            sa.select(schema.blob.c.wrapped_key)
            .join(schema.picture, schema.picture.c.id == schema.blob.c.id)
            .where(schema.blob.c.id == picture_id)
        ).one_or_none()
        projects = connection.scalars(
            sa.select(member.c.project_id).distinct().where(member.c.picture_id == picture_id, ~rows.erased(member))
        ).all()
    with ws.database.read("derived") as connection:
        made = connection.execute(_registered(picture_id)).all()
        vectors = connection.scalar(
            sa.select(sa.func.count()).select_from(schema.vector).where(schema.vector.c.picture_id == picture_id)
        )
    with ws.database.read("events") as connection:
        events = len(_event_ids(connection, picture_id))
    if key is None or (key.wrapped_key is None and not (made or vectors or events)):
        raise NotFoundError(
            f"The picture {picture_id[:12]} {'is not stored' if key is None else 'was erased already'}.",
            expected="a stored picture.",
            do="Nothing is left to erase." if key is not None else "Check the id.",
            picture=picture_id,
        )
    outstanding: list[Outstanding] = [
        {"kind": row.kind, "location": row.location} for row in made if row.kind not in _ERASABLE
    ]
    return {
        "picture_id": picture_id,
        "projects": sorted(projects),
        "samples": len(projects),
        "events": events,
        "derived": len(made) - len(outstanding) + events,
        "outstanding": outstanding,
    }


# --- truth ----------------------------------------------------------------------------------------------------------


def _bury(connection: Connection, table: sa.Table, project: str, sample_id: str, blank: Mapping[str, Any]) -> None:
    """Turns a sample's committed rows into tombstones, which the next commit takes out; uncommitted ones just go."""
    mine = (table.c.project_id == project) & (table.c.sample_id == sample_id)
    connection.execute(sa.delete(table).where(mine, table.c.added_in.is_(None)))
    connection.execute(sa.update(table).where(mine).values(blank))
    connection.execute(sa.update(table).where(mine, table.c.removed_in.is_(None)).values(removed_in=REMOVAL_PENDING))


def _erase_reviews(connection: Connection, picture_id: str, *, now: float) -> None:
    """Empties what the model and the reviewer said; a picture that still waits leaves the queue as skipped.

    Whether the model was right stays: without the picture and the label it is a mark on a tally.
    """
    table = schema.review_item
    mine = table.c.picture_id == picture_id
    connection.execute(sa.update(table).where(mine, table.c.answered_at.is_(None)).values(answered_at=now))
    connection.execute(sa.update(table).where(mine).values(author="", prediction={}, verdict=SKIPPED))


def _erase_mistakes(connection: Connection, picture_id: str) -> None:
    """Takes the picture out of what models got wrong, and out of what looked like it; their figures stay."""
    table = schema.evaluation
    found = connection.execute(sa.select(table).where(sa.cast(table.c.data, sa.Text).contains(picture_id)))
    for row in found.all():
        mistakes = [
            {**mistake, "nearest": [each for each in mistake["nearest"] if each["picture_id"] != picture_id]}
            for mistake in row.data["mistakes"]
            if mistake["picture_id"] != picture_id
        ]
        mine = (table.c.project_id == row.project_id) & (table.c.model_number == row.model_number)
        connection.execute(sa.update(table).where(mine).values(data={**row.data, "mistakes": mistakes}))


# --- events ---------------------------------------------------------------------------------------------------------


def _erase_events(ws: Workspace, picture_id: str) -> None:
    """Empties what events hold of the picture; that a request was answered, and how fast, stays counted."""
    with ws.database.read("events") as connection:
        ids = _event_ids(connection, picture_id)
        projects = connection.scalars(
            sa.select(schema.event.c.project_id).distinct().where(schema.event.c.id.in_(ids))
        ).all()
        sealed = connection.scalars(
            sa.select(schema.event.c.sealed).where(schema.event.c.id.in_(ids), schema.event.c.sealed.is_not(None))
        ).all()
    if not ids:
        return
    # An object that waits for its row would come back to life with it.
    for kept in sealed:
        ws.blobs.discard(kept["location"])
    # Before the events are emptied, since an erasure that breaks off later finds them no more; and after, for what the
    # watch has read in the meantime.
    _forget_watches(ws, projects)
    with ws.database.write("events") as connection:
        for part in rows.chunks(ids):
            connection.execute(sa.update(schema.event).where(schema.event.c.id.in_(part)).values(_BLANK_EVENT))
            connection.execute(
                sa.update(schema.feedback).where(schema.feedback.c.event_id.in_(part)).values(value=sa.null())
            )
    _forget_watches(ws, projects)


def _forget_watches(ws: Workspace, projects: Sequence[str]) -> None:
    """Drops the watches of these projects, which remember some of the last pictures; they begin anew from events."""
    with ws.database.write("derived") as connection:
        connection.execute(sa.delete(schema.monitor).where(schema.monitor.c.project_id.in_(projects)))


def _event_ids(connection: Connection, picture_id: str) -> list[str]:
    event = schema.event
    ids = list(connection.scalars(sa.select(event.c.id).where(event.c.picture_id == picture_id)))
    # Those whose picture waits for its rows name it inside the sealed object; there are only ever a few.
    waiting = connection.execute(sa.select(event.c.id, event.c.sealed).where(event.c.sealed.is_not(None)))
    return list(dict.fromkeys([*ids, *(row.id for row in waiting if row.sealed["id"] == picture_id)]))


# --- derived --------------------------------------------------------------------------------------------------------


def _erase_derived(ws: Workspace, picture_id: str, *, actor: str) -> None:
    """Deletes what was made from the picture and can be deleted by itself, and its registration."""
    with ws.database.read("derived") as connection:
        made = connection.execute(_registered(picture_id)).all()
    for project in [row.location for row in made if row.kind == gallery.KIND]:
        # First what answers: every server drops it within its next look.
        sample_id = rows.sample_id(project, picture_id)
        gallery.take_out(ws, project, [(sample_id, picture_id)])
        bundles.forget(ws, project, [sample_id], actor=actor)
    caches = [row.location for row in made if row.kind == ACTIVATION]
    for location in caches:
        # A run that is using it fails at its next checkpoint, and begins the step again without the picture.
        shutil.rmtree(ws.state / location, ignore_errors=True)
    with ws.database.write("derived") as connection:
        connection.execute(sa.delete(schema.vector).where(schema.vector.c.picture_id == picture_id))
        connection.execute(
            sa.delete(schema.derived).where(
                schema.derived.c.picture_id == picture_id, schema.derived.c.kind.in_(_ERASABLE)
            )
        )


def _registered(picture_id: str) -> sa.Select[tuple[str, str]]:
    return sa.select(schema.derived.c.kind, schema.derived.c.location).where(schema.derived.c.picture_id == picture_id)
