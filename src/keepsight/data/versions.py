"""Versions of a data set: commit, look up, tag, compare and verify.

A version is a point in time, not a copy: a commit writes its number into the rows that changed, so it costs what
changed, and any version is a condition on two columns (see ``keepsight.data.rows``, which also defines the digest).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepsight.data import assignment, diffs, rows, verification
from keepsight.data.diffs import Diff
from keepsight.data.rows import PENDING
from keepsight.errors import BadInputError, ConflictError, NotFoundError
from keepsight.store import audit, schema
from keepsight.store.schema import REMOVAL_PENDING
from keepsight.store.workspace import Workspace
from keepsight.zoo.backbone import Backbone

LATEST = "latest"

_TABLES = (schema.membership, schema.annotation)


@dataclass(frozen=True)
class Version:
    """One committed version.

    ``samples`` is how many it held when committed; ``added`` and ``removed`` count samples against the version before.
    """

    project: str
    number: int
    digest: str
    message: str
    author: str
    created_at: float
    samples: int
    added: int
    removed: int
    tags: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"tags": list(self.tags)}


def commit(
    ws: Workspace,
    project: str,
    *,
    message: str,
    author: str,
    backbone: Backbone | None = None,
    empty: bool = False,
) -> Version | None:
    """Makes everything that changed since the last version the next one; None when nothing changed.

    Samples whose split is pending get theirs first (``keepsight.data.assignment``), which may compute index vectors.
    A sample that comes in meanwhile stays uncommitted.

    Args:
        backbone: Of the index vectors; the project's ``train.backbone`` when not given and needed.
        empty: Make a first version even of a data set without a picture: a pretrained model needs none.

    Raises:
        NotFoundError: No such project. WeightsError: The backbone is needed and not there.
    """
    ws.check_project(project)
    splits = assignment.decide(ws, project, backbone=backbone)
    now = ws.clock()
    with ws.database.write() as connection:
        rows.lock(ws, connection, project)
        assignment.apply(connection, project, splits)
        for table in _TABLES:
            _drop_what_never_counted(connection, table, project)
        counts = _publish(connection, project, number := _last_number(connection, project) + 1)
        if counts is None and not (empty and number == 1):
            return None
        added, removed = counts or (0, 0)
        leaves = _leaves(connection, project, number)
        values = {
            "project_id": project,
            "number": number,
            "digest": rows.merkle_root(leaf for _, _, leaf in leaves),
            "message": message,
            "author": author,
            "created_at": now,
            "samples": sum(kind == 0 for _, kind, _ in leaves),
            "added": added,
            "removed": removed,
        }
        connection.execute(sa.insert(schema.version).values(values))
        audit.append(
            ws.database,
            connection,
            actor=author,
            action="data.commit",
            target=f"{project}/{number}",
            now=now,
            detail={"digest": values["digest"], "message": message},
        )
    return get(ws, project, number)


def log(ws: Workspace, project: str) -> list[Version]:
    """All versions of a project, newest first."""
    table = schema.version
    with ws.database.read() as connection:
        found = connection.execute(
            sa.select(table).where(table.c.project_id == project).order_by(table.c.number.desc())
        ).mappings()
        tags = connection.execute(
            sa.select(schema.tag.c.name, schema.tag.c.number).where(schema.tag.c.project_id == project)
        ).all()
        names: dict[int, list[str]] = {}
        for tag_row in tags:
            names.setdefault(tag_row.number, []).append(tag_row.name)
        return [
            Version(
                project=row["project_id"],
                **{name: row[name] for name in row if name != "project_id"},
                tags=tuple(sorted(names.get(row["number"], ()))),
            )
            for row in found
        ]


def latest(ws: Workspace, project: str) -> Version | None:
    """The newest version; None while there is none."""
    return next(iter(log(ws, project)), None)


def get(ws: Workspace, project: str, which: int | str = LATEST) -> Version:
    """The version with a number (also as text) or a tag, or the ``latest``.

    Raises:
        NotFoundError: There is no such version; names those that exist.
    """
    known = log(ws, project)
    if which == LATEST and known:
        return known[0]
    for version in known:
        if str(which) == str(version.number) or which in version.tags:
            return version
    names = [name for version in known for name in (version.number, *version.tags)]
    raise NotFoundError.among("version", which, names, do=None if known else f"Import pictures into {project} first.")


def tag(ws: Workspace, project: str, name: str, number: int, *, actor: str) -> None:
    """Gives a version a name of its own, for good.

    Raises:
        BadInputError: The name could be taken for a number. ConflictError: Another version has it.
        NotFoundError: No such version.
    """
    if not name.strip() or name.strip() != name or name.isdigit() or name == LATEST or len(name) > 100:
        raise BadInputError(
            f'"{name}" cannot be the name of a version.',
            expected=f'up to 100 letters, no bare number and not "{LATEST}".',
            do='Choose a name such as "summer-2026".',
        )
    get(ws, project, number)
    with ws.database.write() as connection:
        rows.lock(ws, connection, project)
        known = sa.select(schema.tag.c.number).where(schema.tag.c.project_id == project, schema.tag.c.name == name)
        there = connection.scalar(known)
        if there == number:
            return
        if there is not None:
            raise ConflictError(
                f'Version {there} is tagged "{name}" already.',
                expected="a new name: a tag never moves.",
                do="Choose another name.",
            )
        connection.execute(sa.insert(schema.tag).values(project_id=project, name=name, number=number))
        audit.append(
            ws.database,
            connection,
            actor=actor,
            action="data.tag",
            target=f"{project}/{number}",
            now=ws.clock(),
            detail={"tag": name},
        )


def diff(ws: Workspace, project: str, before: int | str, after: int | str | None) -> Diff:
    """What changed between two versions, or from a version to how things stand now (``after`` None).

    Costs what changed. Version 0 is the empty data set. Pictures that were erased since are left out.

    Raises:
        NotFoundError: No such version.
    """
    first = 0 if before == 0 else get(ws, project, before).number
    second = None if after is None else 0 if after == 0 else get(ws, project, after).number
    return diffs.between(ws, project, first, second)


def verify(ws: Workspace, project: str, which: int | str | None = None) -> int:
    """How many versions were checked, all (or the one named) from their rows up: content, leaves and digest.

    An erased row is taken at its leaf if the audit chain has its erasure.

    Raises:
        IntegrityError: Something was changed behind Keepsight's back; ``details`` name the first wrong row or version.
        NotFoundError: No such version.
    """
    chosen = log(ws, project) if which is None else [get(ws, project, which)]
    verification.check(ws, project, {version.number: version.digest for version in reversed(chosen)})
    return len(chosen)


def _last_number(connection: Connection, project: str) -> int:
    table = schema.version
    return connection.scalar(sa.select(sa.func.max(table.c.number)).where(table.c.project_id == project)) or 0


def _drop_what_never_counted(connection: Connection, table: sa.Table, project: str) -> None:
    """Forgets rows that were added and closed since the last commit, and edits that lead back to the committed row.

    So a version is made exactly when the content changed, and equal content has equal rows.
    """
    connection.execute(
        sa.delete(table).where(
            table.c.project_id == project, table.c.added_in.is_(None), table.c.removed_in == REMOVAL_PENDING
        )
    )
    new = table.alias()
    back = connection.execute(
        sa.select(table.c.seq, new.c.seq)
        .join(new, (new.c.project_id == table.c.project_id) & (new.c.sample_id == table.c.sample_id))
        .where(
            table.c.project_id == project,
            table.c.removed_in == REMOVAL_PENDING,
            new.c.added_in.is_(None),
            new.c.leaf == table.c.leaf,
        )
    ).all()
    for part in rows.chunks(back):
        connection.execute(sa.delete(table).where(table.c.seq.in_([new_seq for _, new_seq in part])))
        connection.execute(sa.update(table).where(table.c.seq.in_([seq for seq, _ in part])).values(removed_in=None))


def _publish(connection: Connection, project: str, number: int) -> tuple[int, int] | None:
    """Writes the number into all rows that changed; how many samples came and went, None if no row changed."""
    member, note = schema.membership, schema.annotation
    changed = 0
    waits = sa.select(member.c.sample_id).where(
        member.c.project_id == project, member.c.removed_in.is_(None), member.c.split == PENDING
    )
    ready = {member: member.c.split != PENDING, note: note.c.sample_id.not_in(waits)}
    for table in _TABLES:
        adding = sa.update(table).where(table.c.project_id == project, table.c.added_in.is_(None), ready[table])
        removing = sa.update(table).where(table.c.project_id == project, table.c.removed_in == REMOVAL_PENDING)
        changed += connection.execute(adding.values(added_in=number)).rowcount
        changed += connection.execute(removing.values(removed_in=number)).rowcount
    if not changed:
        return None
    came = set(connection.scalars(_ids(project).where(member.c.added_in == number)))
    went = set(connection.scalars(_ids(project).where(member.c.removed_in == number)))
    return len(came - went), len(went - came)


def _ids(project: str) -> sa.Select[tuple[str]]:
    return sa.select(schema.membership.c.sample_id).where(schema.membership.c.project_id == project)


def _leaves(connection: Connection, project: str, number: int) -> list[tuple[str, int, str]]:
    """(sample id, 0 for a membership or 1 for an annotation, leaf) of a version's rows, in the digest's order."""
    return sorted(
        (sample_id, kind, leaf)
        for kind, table in enumerate(_TABLES)
        for sample_id, leaf in connection.execute(
            sa.select(table.c.sample_id, table.c.leaf).where(table.c.project_id == project, rows.alive(table, number))
        )
    )
