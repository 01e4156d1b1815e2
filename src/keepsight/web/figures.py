"""Figures that only pages need: what came in, which classes there are, how audits went by day."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from keepsight.data import rows, samples
from keepsight.errors import NotFoundError
from keepsight.monitoring import accuracy
from keepsight.review.classes import natural
from keepsight.store import schema
from keepsight.store.workspace import Workspace

DAY_S = 86400.0
HOUR_S = 3600.0
# A share needs no more pictures than this, and a page should not wait for a million rows.
MIX = 20_000


def day_start(now: float) -> float:
    """Midnight (UTC) before a time."""
    return now - now % DAY_S


def pictures_since(ws: Workspace, project: str, since: float) -> int:
    """How many pictures were answered since a time."""
    table = schema.event
    query = sa.select(sa.func.count()).where(table.c.project_id == project, table.c.at >= since)
    with ws.database.read("events") as connection:
        return int(connection.scalar(query) or 0)


def pictures_by(ws: Workspace, project: str, *, since: float, length_s: float) -> list[tuple[float, int, int]]:
    """``(start, pictures, of these sent to a person)`` for each stretch of time since then that had pictures."""
    table = schema.event
    slot = sa.cast(sa.func.floor(table.c.at / length_s), sa.Integer)
    query = (
        sa.select(slot, sa.func.count(), sa.func.sum(sa.case((table.c.decision == "review", 1), else_=0)))
        .where(table.c.project_id == project, table.c.at >= since)
        .group_by(slot)
        .order_by(slot)
    )
    with ws.database.read("events") as connection:
        return [(row[0] * length_s, int(row[1]), int(row[2])) for row in connection.execute(query)]


def class_mix(ws: Workspace, project: str, *, since: float, until: float) -> dict[str, int]:
    """How often each class was answered in a stretch of time, most frequent first; of the newest 20,000 pictures."""
    table = schema.event
    newest = (
        sa.select(table.c.label)
        .where(table.c.project_id == project, table.c.at >= since, table.c.at < until)
        .order_by(table.c.at.desc())
        .limit(MIX)
        .subquery()
    )
    query = sa.select(newest.c.label, sa.func.count().label("n")).group_by(newest.c.label)
    with ws.database.read("events") as connection:
        rows = connection.execute(query).all()
    return {row.label: int(row.n) for row in sorted(rows, key=lambda row: (-row.n, row.label))}


def audits_by_day(ws: Workspace, project: str, *, since: float) -> list[tuple[float, accuracy.Estimate]]:
    """Audited accuracy of each day since then, by the day on which the picture came in."""
    table = schema.review_item
    query = (
        sa.select(table.c.created_at, table.c.correct, table.c.probability)
        .where(table.c.project_id == project, table.c.selected_by == "audit", table.c.created_at >= since)
        .order_by(table.c.created_at)
    )
    days: dict[float, list[accuracy.Verdict]] = {}
    with ws.database.read() as connection:
        for row in connection.execute(query):
            right = None if row.correct is None else bool(row.correct)
            days.setdefault(day_start(row.created_at), []).append(accuracy.Verdict(right, "audit", row.probability))
    return [(day, accuracy.estimate(verdicts)) for day, verdicts in sorted(days.items())]


@dataclass(frozen=True)
class ClassCount:
    """How many samples of one class stand in each split; ``label`` is empty for pictures without one."""

    label: str
    splits: dict[str, int]

    @property
    def total(self) -> int:
        """In all splits together."""
        return sum(self.splits.values())


def class_counts(ws: Workspace, project: str) -> list[ClassCount]:
    """The data set as it stands now, by class and split, classes by name."""
    names = samples.counted_as(ws, project)
    by_label: dict[str, dict[str, int]] = {}
    for text, split, count in _labelled(ws, project):
        for name in names(json.loads(text) if text else None):
            splits = by_label.setdefault(name, {})
            splits[split] = splits.get(split, 0) + count
    return [ClassCount(label, by_label[label]) for label in sorted(by_label, key=natural)]


@dataclass(frozen=True)
class SamplePicture:
    """One picture of the grid."""

    sample_id: str
    picture_id: str
    name: str
    split: str
    label: str
    committed: bool


def sample_pictures(
    ws: Workspace, project: str, *, label: str | None = None, split: str | None = None, offset: int = 0, limit: int = 48
) -> list[SamplePicture]:
    """A page of the data set as it stands now, newest first; ``label`` "" means without one."""
    member, note, text = schema.membership, schema.annotation, sa.cast(schema.annotation.c.value, sa.Text)
    query = (
        sa.select(member, note.c.value)
        .select_from(_joined())
        .where(member.c.project_id == project, member.c.removed_in.is_(None), ~rows.erased(member))
        .order_by(member.c.seq.desc())
        .offset(offset)
        .limit(limit)
    )
    if split:
        query = query.where(member.c.split == split)
    if label is not None:
        names = samples.counted_as(ws, project)
        texts = {value for value, _, _ in _labelled(ws, project) if value and label in names(json.loads(value))}
        query = query.where(text.in_(texts) if label else note.c.value.is_(None))
    summary = samples.summaries(ws, project)
    with ws.database.read() as connection:
        return [
            SamplePicture(
                sample_id=row["sample_id"],
                picture_id=row["picture_id"],
                name=row["name"],
                split=row["split"],
                label=summary(row["value"]),
                committed=row["added_in"] is not None,
            )
            for row in connection.execute(query).mappings()
        ]


def reviewed_between(
    ws: Workspace, project: str, *, after: int, until: int, limit: int = 12
) -> tuple[int, list[SamplePicture]]:
    """How many labels of reviewers came in with the versions after one until another, and some of their pictures."""
    member, note = schema.membership, schema.annotation
    where = (
        note.c.project_id == project,
        note.c.origin == "review",
        note.c.added_in > after,
        note.c.added_in <= until,
    )
    query = (
        sa.select(member, note.c.value)
        .select_from(
            note.join(member, (member.c.project_id == note.c.project_id) & (member.c.sample_id == note.c.sample_id))
        )
        .where(*where, member.c.removed_in.is_(None), ~rows.erased(member))
        .order_by(note.c.seq.desc())
        .limit(limit)
    )
    with ws.database.read() as connection:
        total = int(connection.scalar(sa.select(sa.func.count()).select_from(note).where(*where)) or 0)
        summary = samples.summaries(ws, project)
        shown = [
            SamplePicture(
                sample_id=row["sample_id"],
                picture_id=row["picture_id"],
                name=row["name"],
                split=row["split"],
                label=summary(row["value"]),
                committed=True,
            )
            for row in connection.execute(query).mappings()
        ]
    return total, shown


def uncommitted(ws: Workspace, project: str) -> int:
    """Labels that no version holds yet."""
    note = schema.annotation
    query = (
        sa.select(sa.func.count())
        .select_from(note)
        .where(note.c.project_id == project, note.c.added_in.is_(None), note.c.removed_in.is_(None))
    )
    with ws.database.read() as connection:
        return int(connection.scalar(query) or 0)


def size_of(ws: Workspace, picture_id: str) -> tuple[int, int]:
    """Width and height of a stored picture in pixels, upright.

    Raises:
        NotFoundError: There is no such picture.
    """
    table = schema.picture
    query = sa.select(table.c.width, table.c.height).where(table.c.id == picture_id)
    with ws.database.read() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(
            f'There is no picture "{picture_id}".', expected="a stored picture.", do="Go back to the list."
        )
    return int(row.width), int(row.height)


def has_picture(ws: Workspace, project: str, picture_id: str) -> bool:
    """Whether the project knows the picture, from its data or its review queue."""
    queries: Sequence[sa.Select[Any]] = (
        sa.select(schema.review_item.c.event_id).where(
            schema.review_item.c.project_id == project, schema.review_item.c.picture_id == picture_id
        ),
        sa.select(schema.membership.c.seq).where(
            schema.membership.c.project_id == project, schema.membership.c.picture_id == picture_id
        ),
    )
    with ws.database.read() as connection:
        return any(connection.execute(query.limit(1)).first() is not None for query in queries)


def _joined() -> sa.FromClause:
    member, note = schema.membership, schema.annotation
    return member.outerjoin(
        note,
        (note.c.project_id == member.c.project_id)
        & (note.c.sample_id == member.c.sample_id)
        & note.c.removed_in.is_(None),
    )


def _labelled(ws: Workspace, project: str) -> list[tuple[str | None, str, int]]:
    member, text = schema.membership, sa.cast(schema.annotation.c.value, sa.Text)
    query = (
        sa.select(text, member.c.split, sa.func.count())
        .select_from(_joined())
        .where(member.c.project_id == project, member.c.removed_in.is_(None), ~rows.erased(member))
        .group_by(text, member.c.split)
    )
    with ws.database.read() as connection:
        return [(row[0], row[1], int(row[2])) for row in connection.execute(query)]
