"""What two versions of a data set disagree about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from keepsight.data import rows, samples
from keepsight.store import schema
from keepsight.store.audit import canonical
from keepsight.store.schema import REMOVAL_PENDING
from keepsight.store.workspace import Workspace

Rows = dict[str, RowMapping]
Pair = tuple[RowMapping | None, RowMapping | None]


@dataclass(frozen=True)
class Change:
    """One sample that two versions disagree about; the side on which it is missing has None."""

    sample_id: str
    picture_id: str
    name: str
    split_before: str | None
    split_after: str | None
    value_before: dict[str, Any] | None
    value_after: dict[str, Any] | None

    @property
    def kind(self) -> str:
        """``added``, ``removed``, ``relabelled``, ``resplit`` or ``edited`` (name, group or metadata)."""
        if self.split_before is None:
            return "added"
        if self.split_after is None:
            return "removed"
        if canonical(self.value_before) != canonical(self.value_after):
            return "relabelled"
        return "resplit" if self.split_before != self.split_after else "edited"

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return {"kind": self.kind, **{name: getattr(self, name) for name in self.__dataclass_fields__}}


@dataclass(frozen=True)
class Diff:
    """What changed from version ``before`` to version ``after`` (None: as things stand now), ordered by sample id.

    ``counted_as`` tells under which names an annotation is counted.
    """

    before: int
    after: int | None
    changes: tuple[Change, ...]
    counted_as: Callable[[Mapping[str, Any] | None], tuple[str, ...]] = field(repr=False, compare=False)

    def of_kind(self, kind: str) -> list[Change]:
        """The changes of one kind; a sample that got another label and another split is ``relabelled``."""
        return [change for change in self.changes if change.kind == kind]

    def counts(self) -> dict[str, dict[str, int]]:
        """How many changes of each kind for each class (the new one; of a removed sample the old one)."""
        counted: dict[str, Counter[str]] = {}
        for change in self.changes:
            value = change.value_before if change.kind == "removed" else change.value_after
            counted.setdefault(change.kind, Counter()).update(self.counted_as(value))
        return {kind: dict(sorted(classes.items())) for kind, classes in sorted(counted.items())}

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return {
            "before": self.before,
            "after": self.after,
            "counts": self.counts(),
            "changes": [change.as_dict() for change in self.changes],
        }


def between(ws: Workspace, project: str, before: int, after: int | None) -> Diff:
    """What changed between two versions; ``versions.diff`` looks the numbers up first.

    Costs what changed: only rows that were added or removed between the two are read.
    """
    with ws.database.read() as connection:
        members_before, members_after = _sides(connection, schema.membership, project, before, after)
        notes_before, notes_after = _sides(connection, schema.annotation, project, before, after)
        touched = sorted({*members_before, *members_after, *notes_before, *notes_after})
        # A sample of which only the annotation changed has the same membership on both sides, and the other way round.
        steady_members = _steady(connection, schema.membership, project, before, touched)
        steady_notes = _steady(connection, schema.annotation, project, before, touched)
    changes = []
    for sample_id in touched:
        members = (members_before.get(sample_id), members_after.get(sample_id))
        if members == (None, None):
            members = (steady_members.get(sample_id),) * 2
        notes = (notes_before.get(sample_id), notes_after.get(sample_id))
        if notes == (None, None):
            notes = (steady_notes.get(sample_id),) * 2
        change = _change(sample_id, members, notes)
        if change is not None:
            changes.append(change)
    return Diff(before, after, tuple(changes), samples.counted_as(ws, project))


def _sides(connection: Connection, table: sa.Table, project: str, before: int, after: int | None) -> tuple[Rows, Rows]:
    """Rows that only one of two versions has, by sample id: those of ``before`` and those of ``after``."""
    newest = max(before, after) if after is not None else None
    oldest = before if after is None else min(before, after)
    added, removed = table.c.added_in > oldest, table.c.removed_in > oldest
    if newest is None:
        added, removed = added | table.c.added_in.is_(None), removed | (table.c.removed_in == REMOVAL_PENDING)
    else:
        added, removed = added & (table.c.added_in <= newest), removed & (table.c.removed_in <= newest)
    sides: tuple[Rows, Rows] = ({}, {})
    # Two queries, so that each walks one index over just the rows that changed.
    for changed in (added, removed):
        query = sa.select(table).where(table.c.project_id == project, changed, ~rows.erased(table))
        for row in connection.execute(query).mappings():
            here = [_alive_in(row["added_in"], row["removed_in"], number) for number in (before, after)]
            if here[0] != here[1]:
                sides[here.index(True)][row["sample_id"]] = row
    return sides


def _alive_in(added_in: int | None, removed_in: int | None, number: int | None) -> bool:
    if number is None:
        return removed_in is None
    return added_in is not None and added_in <= number and (not removed_in or removed_in > number)


def _steady(connection: Connection, table: sa.Table, project: str, number: int, sample_ids: list[str]) -> Rows:
    """The rows of these samples at a version, by sample id."""
    found: Rows = {}
    for part in rows.chunks(sample_ids):
        query = sa.select(table).where(
            table.c.project_id == project, table.c.sample_id.in_(part), rows.alive(table, number), ~rows.erased(table)
        )
        found.update({row["sample_id"]: row for row in connection.execute(query).mappings()})
    return found


def _change(sample_id: str, members: Pair, notes: Pair) -> Change | None:
    """The change of one sample; None if both sides are equal after all."""
    shown = members[1] or members[0]
    leaves = [[None if row is None else row["leaf"] for row in pair] for pair in (members, notes)]
    if shown is None or all(first == second for first, second in leaves):
        return None
    splits = [None if row is None else row["split"] for row in members]
    values = [None if row is None else row["value"] for row in notes]
    return Change(sample_id, shown["picture_id"], shown["name"], *splits, *values)
