"""The queue of pictures that wait for a person, and the rule that audits are judged blind.

An audit measures the model, so nobody may see the model's answer before the verdict: a ``ReviewItem`` of an open audit
holds no prediction at all, and whatever shows items (pages, REST, the command line) cannot leak what it does not have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepsight.errors import NotFoundError
from keepsight.store import schema
from keepsight.store.workspace import Workspace

AUDIT = "audit"
WINDOW = 8

# Keys that a verdict may hold beside or instead of an annotation value.
SKIP = "skip"
REVEALED = "revealed"


@dataclass(frozen=True)
class ReviewItem:
    """One picture of the queue.

    Attributes:
        prediction: What the model said (task-typed); None while ``blind``.
        blind: An audit that nobody has judged (one that was skipped may come back).
        revealed: The model's answer was shown and the verdict then taken back, so a new verdict is a label, but no
            measurement any more.
        verdict: The right annotation value, or ``{"skip": reason}``; None while open.
        correct: Whether the model was right; None while open, when skipped and for a revealed audit.
    """

    event_id: str
    project: str
    picture_id: str
    selected_by: str
    probability: float
    model_number: int
    prediction: dict[str, Any] | None
    blind: bool
    revealed: bool
    created_at: float
    answered_at: float | None
    author: str | None
    verdict: dict[str, Any] | None
    correct: bool | None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return asdict(self)


@dataclass(frozen=True)
class Counts:
    """How the queue stands: open items, open audits among them, and what one author answered since a time."""

    waiting: int
    audits_waiting: int
    answered: int

    def as_dict(self) -> dict[str, int]:
        """For ``--json`` and REST."""
        return asdict(self)


def next_item(ws: Workspace, project: str, *, author: str) -> ReviewItem | None:
    """The picture that this author should judge next, or None when none waits."""
    items = upcoming(ws, project, author=author, limit=1)
    return items[0] if items else None


def upcoming(ws: Workspace, project: str, *, author: str, limit: int = 2) -> list[ReviewItem]:
    """The next pictures for this author, best first.

    Audits (oldest first) alternate with the others (most uncertain first), so that measuring does not wait for
    correcting. Of the first eight each author gets another one first: who asks again gets the same, two people seldom
    do, no claim is kept that a closed browser would leave behind, and who comes second at one picture is told so.
    """
    open_items = _open(project)
    audits = open_items.where(schema.review_item.c.selected_by == AUDIT).order_by(schema.review_item.c.created_at)
    others = open_items.where(schema.review_item.c.selected_by != AUDIT).order_by(
        schema.review_item.c.priority.desc(), schema.review_item.c.created_at
    )
    with ws.database.read() as connection:
        firsts = connection.execute(audits.limit(WINDOW)).mappings().all()
        seconds = connection.execute(others.limit(WINDOW)).mappings().all()
    window = [row for row in _alternate(firsts, seconds) if row is not None][:WINDOW]
    window.sort(key=lambda row: hashlib.sha256(f"{author}/{row['event_id']}".encode()).digest())
    return [as_item(row) for row in window[:limit]]


def get(ws: Workspace, project: str, event_id: str) -> ReviewItem:
    """One item, open or answered.

    Raises:
        NotFoundError: The project has no such item.
    """
    with ws.database.read() as connection:
        return as_item(find(connection, project, event_id))


def counts(ws: Workspace, project: str, *, author: str | None = None, since: float = 0.0) -> Counts:
    """Open items, and the answers (skipped ones included) since a time, of one author if named."""
    table = schema.review_item
    waiting = _open(project, sa.func.count(), sa.func.sum(sa.case((table.c.selected_by == AUDIT, 1), else_=0)))
    answered = sa.select(sa.func.count()).where(table.c.project_id == project, table.c.answered_at >= since)
    if author is not None:
        answered = answered.where(table.c.author == author)
    with ws.database.read() as connection:
        total, audits = connection.execute(waiting).one()
        return Counts(int(total), int(audits or 0), int(connection.scalar(answered) or 0))


def withheld(ws: Workspace, audits: Iterable[str]) -> set[str]:
    """Those of these audited events whose prediction must not be shown now, as nobody has judged them.

    An audit whose picture is not taken in yet is one of them.
    """
    wanted = set(audits)
    table = schema.review_item
    query = sa.select(table).where(table.c.event_id.in_(wanted))
    with ws.database.read() as connection:
        items = [as_item(row) for row in connection.execute(query).mappings()]
    return wanted - {item.event_id for item in items if not item.blind}


def find(connection: Connection, project: str, event_id: str) -> Any:
    """The row of an item within the caller's transaction.

    Raises:
        NotFoundError: The project has no such item.
    """
    table = schema.review_item
    row = (
        connection.execute(sa.select(table).where(table.c.event_id == event_id, table.c.project_id == project))
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise NotFoundError(
            f'There is no picture "{event_id}" in the review queue of {project}.',
            expected="the prediction id of a picture that was kept for review.",
            do=f"Ask for the next one: `keepsight review next {project}`.",
        )
    return row


def as_item(row: Any) -> ReviewItem:
    """The item of a row, without its prediction where that must not be seen."""
    opened = row["answered_at"] is None
    verdict = row["verdict"] or {}
    revealed = REVEALED in verdict
    unjudged = opened or SKIP in verdict
    blind = unjudged and row["selected_by"] == AUDIT and not revealed
    return ReviewItem(
        event_id=row["event_id"],
        project=row["project_id"],
        picture_id=row["picture_id"],
        selected_by=row["selected_by"],
        probability=row["probability"],
        model_number=row["model_number"],
        prediction=None if blind else row["prediction"],
        blind=blind,
        revealed=revealed,
        created_at=row["created_at"],
        answered_at=row["answered_at"],
        author=row["author"],
        verdict=None if opened else row["verdict"],
        correct=None if row["correct"] is None else bool(row["correct"]),
    )


def _open(project: str, *columns: Any) -> sa.Select[Any]:
    """Open items whose picture was not erased."""
    table = schema.review_item
    return (
        sa.select(*(columns or (table,)))
        .select_from(table.join(schema.blob, schema.blob.c.id == table.c.picture_id))
        .where(table.c.project_id == project, table.c.answered_at.is_(None), schema.blob.c.wrapped_key.is_not(None))
    )


def _alternate(first: Iterable[Any], second: Iterable[Any]) -> Iterable[Any]:
    return chain.from_iterable(zip_longest(first, second))
