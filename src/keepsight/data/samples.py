"""Samples of a project: what is in its data set, now or at a version, and single edits.

A sample is a picture in a project, with a split, an optional group, metadata and at most one annotation. Edits take the
caller's truth transaction, so that a verdict, its label and whatever else belongs to it stand or fall together; they
become part of the next version. ``keepsight.data.adding`` brings pictures in by the thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from keepsight import tasks
from keepsight.data import rows
from keepsight.data.rows import PENDING, SPLITS
from keepsight.errors import BadInputError, NotFoundError
from keepsight.store import audit, schema
from keepsight.store.audit import canonical
from keepsight.store.schema import REMOVAL_PENDING
from keepsight.store.workspace import Workspace

# An annotation that names no class is counted under this.
NO_CLASS = "(labelled)"


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture in a project.

    Attributes:
        sample_id: 32 hex digits; the same in every version.
        picture_id: The blob that holds the bytes.
        split: train, val, test or recent; pending until a commit decides.
        group: What belongs on one side of a split with it (shop, customer), or None.
        name: The file name as imported, or ``review/<event id>``.
        meta: Further columns of an import, or how a picture from production was selected.
        value: The task-typed annotation; None where nobody gave one yet.
    """

    sample_id: str
    picture_id: str
    split: str
    group: str | None
    name: str
    meta: dict[str, Any]
    value: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return {name: getattr(self, name) for name in self.__slots__}


def summaries(ws: Workspace, project: str) -> Callable[[Mapping[str, Any] | None], str]:
    """A function that gives an annotation of the project in a few words; "" where there is none."""
    task = tasks.get(ws.settings(project)["task"])
    return lambda value: "" if value is None else task.summary(value)


def counted_as(ws: Workspace, project: str) -> Callable[[Mapping[str, Any] | None], tuple[str, ...]]:
    """A function that tells under which names an annotation of the project is counted.

    Those are its classes; ``("(labelled)",)`` where it names none, and ``("",)`` where there is no annotation.
    """
    task = tasks.get(ws.settings(project)["task"])
    return lambda value: ("",) if value is None else task.classes(value) or (NO_CLASS,)


def current(ws: Workspace, project: str) -> list[Sample]:
    """The data set as it stands now, edits that wait for a commit included, ordered by sample id."""
    return _read(ws, project, None)


def at_version(ws: Workspace, project: str, number: int) -> list[Sample]:
    """The data set of a version, ordered by sample id; pictures erased since are left out.

    The version is not looked up: a number that was never committed gives what it would hold if nothing changed.
    """
    return _read(ws, project, number)


def get(ws: Workspace, project: str, sample_id: str) -> Sample:
    """One sample as it stands now.

    Raises:
        NotFoundError: There is no such sample, or it was removed.
    """
    with ws.database.read() as connection:
        member = _member(connection, project, sample_id)
        note = rows.current(connection, schema.annotation, project, [sample_id]).get(sample_id)
    return _sample(member, None if note is None else note["value"])


def find(ws: Workspace, project: str, sample_id: str) -> Sample:
    """One sample as it last stood, removed ones included: some version may still hold it.

    Raises:
        NotFoundError: The project never had such a sample, or it was erased.
    """
    found = []
    with ws.database.read() as connection:
        for table in (schema.membership, schema.annotation):
            query = sa.select(table).where(
                table.c.project_id == project, table.c.sample_id == sample_id, ~rows.erased(table)
            )
            # Rows of later edits have higher numbers.
            found.append(connection.execute(query.order_by(table.c.seq.desc()).limit(1)).mappings().one_or_none())
    member, note = found
    if member is None:
        raise _no_sample(project, sample_id)
    return _sample(member, None if note is None else note["value"])


def enroll(
    connection: Connection,
    ws: Workspace,
    project: str,
    picture_id: str,
    *,
    name: str,
    split: str = PENDING,
    group: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> str:
    """The id of the sample of a stored picture, made if the project has none; one that is there stays as it is.

    Raises:
        BadInputError: No such split.
    """
    rows.lock(ws, connection, project)
    sample_id = rows.sample_id(project, picture_id)
    if sample_id not in rows.current(connection, schema.membership, project, [sample_id]):
        if check_split(split) == PENDING:
            split = rows.past_splits(connection, project, [sample_id]).get(sample_id, PENDING)
        values = {
            "project_id": project,
            "sample_id": sample_id,
            "picture_id": picture_id,
            "split": split,
            "group_key": group or "",
            "name": name,
            "meta": dict(meta or {}),
        }
        rows.add_memberships(connection, [values])
    return sample_id


def annotate(
    connection: Connection,
    ws: Workspace,
    project: str,
    sample_id: str,
    value: Mapping[str, Any],
    *,
    author: str,
    origin: str,
) -> bool:
    """Gives a sample its annotation; the one before is closed. False if it had the same value already.

    Args:
        connection: The caller's write transaction on truth.
        value: Task-typed and checked by its task.
        origin: ``import``, ``review`` or ``feedback``.

    Raises:
        NotFoundError: There is no such sample, or it was removed.
        AnnotationError: The picture is not as large as the annotation says.
    """
    rows.lock(ws, connection, project)
    member = _member(connection, project, sample_id)
    table = schema.picture
    picture = sa.select(table.c.width, table.c.height).where(table.c.id == member["picture_id"])
    size = connection.execute(picture).one_or_none()
    if size is not None:
        tasks.check_size(ws.settings(project)["task"], value, (int(size.width), int(size.height)))
    before = rows.current(connection, schema.annotation, project, [sample_id]).get(sample_id)
    if before is not None:
        if canonical(before["value"]) == canonical(value):
            return False
        rows.close(connection, schema.annotation, [before["seq"]])
    values = {
        "project_id": project,
        "sample_id": sample_id,
        "value": dict(value),
        "author": author,
        "origin": origin,
        "created_at": ws.clock(),
    }
    rows.add_annotations(connection, [values])
    return True


def retract(connection: Connection, ws: Workspace, project: str, sample_id: str) -> bool:
    """Takes the last uncommitted annotation back, so that the one before counts again; False if there is none."""
    rows.lock(ws, connection, project)
    last = rows.current(connection, schema.annotation, project, [sample_id]).get(sample_id)
    if last is None or last["added_in"] is not None:
        return False
    table = schema.annotation
    connection.execute(sa.delete(table).where(table.c.seq == last["seq"]))
    before = connection.scalar(
        sa.select(sa.func.max(table.c.seq)).where(
            table.c.project_id == project, table.c.sample_id == sample_id, table.c.removed_in == REMOVAL_PENDING
        )
    )
    if before is not None:
        connection.execute(sa.update(table).where(table.c.seq == before).values(removed_in=None))
    return True


def remove(connection: Connection, ws: Workspace, project: str, sample_id: str) -> None:
    """Takes a sample and its annotation out of the data set; the versions that have it keep it.

    Raises:
        NotFoundError: There is no such sample, or it was removed.
    """
    rows.lock(ws, connection, project)
    rows.close(connection, schema.membership, [_member(connection, project, sample_id)["seq"]])
    for note in rows.current(connection, schema.annotation, project, [sample_id]).values():
        rows.close(connection, schema.annotation, [note["seq"]])


def move(connection: Connection, ws: Workspace, project: str, sample_id: str, split: str, *, actor: str) -> bool:
    """Puts a sample into another split, audited; False if it is there already.

    Nothing else ever changes a committed split: what a model was judged on must not train it later unseen.

    Raises:
        BadInputError: No such split. NotFoundError: No such sample.
    """
    rows.lock(ws, connection, project)
    member = _member(connection, project, sample_id)
    if member["split"] == check_split(split):
        return False
    rows.replace_membership(connection, member, split=split)
    audit.append(
        ws.database,
        connection,
        actor=actor,
        action="sample.move",
        target=f"{project}/{sample_id}",
        now=ws.clock(),
        detail={"from": member["split"], "to": split},
    )
    return True


def check_split(split: str) -> str:
    """The split, if there is one of that name.

    Raises:
        BadInputError: There is none.
    """
    if split not in (*SPLITS, PENDING):
        raise BadInputError(
            f'There is no split "{split}".',
            expected=f"one of {', '.join(SPLITS)}, or {PENDING} for what the next commit decides.",
            do="Correct the name.",
        )
    return split


def _member(connection: Connection, project: str, sample_id: str) -> RowMapping:
    member = rows.current(connection, schema.membership, project, [sample_id]).get(sample_id)
    if member is None:
        raise _no_sample(project, sample_id)
    return member


def _no_sample(project: str, sample_id: str) -> NotFoundError:
    return NotFoundError(
        f'{project} has no sample "{sample_id}".',
        expected="the id of a sample of this project.",
        do=f"List them with `keepsight data show {project} --samples`.",
        sample=sample_id,
    )


def _read(ws: Workspace, project: str, number: int | None) -> list[Sample]:
    member, note = schema.membership, schema.annotation
    columns = (
        member.c.sample_id,
        member.c.picture_id,
        member.c.split,
        member.c.group_key,
        member.c.name,
        member.c.meta,
    )
    members = sa.select(*columns).where(
        member.c.project_id == project, rows.alive(member, number), ~rows.erased(member)
    )
    notes = sa.select(note.c.sample_id, note.c.value).where(
        note.c.project_id == project, rows.alive(note, number), ~rows.erased(note)
    )
    with ws.database.read() as connection:
        values = {row[0]: row[1] for row in connection.execute(notes)}
        found = [
            Sample(row[0], row[1], row[2], row[3] or None, row[4], row[5], values.get(row[0]))
            for row in connection.execute(members)
        ]
    # Sorted here: PostgreSQL would order by its locale.
    return sorted(found, key=lambda sample: sample.sample_id)


def _sample(member: RowMapping, value: dict[str, Any] | None) -> Sample:
    return Sample(
        sample_id=member["sample_id"],
        picture_id=member["picture_id"],
        split=member["split"],
        group=member["group_key"] or None,
        name=member["name"],
        meta=member["meta"],
        value=value,
    )
