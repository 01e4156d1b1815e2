"""Verdicts: an answer closes the queue's item and becomes a label, in one transaction.

Of an audit the verdict also measures the model, so it counts only if it was given blind. Taking an answer back is for
slips of the hand; by then the model's answer has been shown, so an audit that is judged again gives a label, but stays
unanswered in the measurement, which widens the interval instead of bending the figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepsight import tasks
from keepsight.data import samples
from keepsight.errors import BadInputError, ConflictError, NotFoundError
from keepsight.review import classes
from keepsight.review.queue import AUDIT, REVEALED, SKIP, ReviewItem, as_item, find
from keepsight.store import schema
from keepsight.store.workspace import Workspace

ORIGIN = "review"
MAX_GROUP = 200


@dataclass(frozen=True)
class Outcome:
    """What an answer did.

    Attributes:
        item: The item as it is now, the model's answer included.
        correct: Whether the model was right; None for a skipped picture.
        counted: Whether it measures the model: an audit, judged blind.
        sample_id: The sample that has the label now; None for a skipped picture.
    """

    item: ReviewItem
    correct: bool | None
    counted: bool
    sample_id: str | None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return asdict(self)


def answer(
    ws: Workspace,
    project: str,
    event_id: str,
    raw: Mapping[str, Any],
    *,
    author: str,
    new_class: bool = False,
) -> Outcome:
    """Takes a person's verdict on one picture.

    Args:
        raw: The right annotation, task-typed: for a classification ``{"label": "apple"}``.
        author: Who says so.
        new_class: The label is meant as a class that the project does not know yet.

    Raises:
        NotFoundError: No such item. ConflictError: Somebody answered it before.
        AnnotationError: It is no annotation of the project's task, or its class is unknown.
    """
    task = tasks.get(ws.settings(project)["task"])
    value = task.canonical(task.parse(raw))
    classes.check(task.classes(value), classes.known(ws, project), new_class=new_class)
    said_with = _said_with(ws, event_id)
    now = ws.clock()
    with ws.database.write() as connection:
        row = _open_row(ws, connection, project, event_id)
        correct = task.right(row["prediction"], value)
        revealed = REVEALED in (row["verdict"] or {})
        counted = row["selected_by"] == AUDIT and not revealed
        changes = {"verdict": value, "correct": None if revealed else int(correct)}
        _close(connection, event_id, author=author, now=now, **changes)
        sample_id = samples.enroll(
            connection,
            ws,
            project,
            row["picture_id"],
            name=f"{ORIGIN}/{event_id}",
            group=said_with.pop("group", None),
            meta={**said_with, "selected_by": REVEALED if revealed else row["selected_by"], "event_id": event_id},
        )
        samples.annotate(connection, ws, project, sample_id, value, author=author, origin=ORIGIN)
        item = as_item(find(connection, project, event_id))
    return Outcome(item=item, correct=correct, counted=counted, sample_id=sample_id)


def skip(ws: Workspace, project: str, event_id: str, *, author: str, reason: str) -> Outcome:
    """Closes an item without a label ("cannot tell"); a skipped audit stays unanswered in the measurement.

    Raises:
        NotFoundError: No such item. ConflictError: Somebody answered it before. BadInputError: No reason.
    """
    if not reason.strip():
        raise BadInputError("There is no reason.", expected="why it is skipped.", do='Say it, such as "cannot tell".')
    now = ws.clock()
    with ws.database.write() as connection:
        before = _open_row(ws, connection, project, event_id)["verdict"] or {}
        verdict = {**before, SKIP: reason.strip()[:200]}
        _close(connection, event_id, author=author, now=now, verdict=verdict, correct=None)
        item = as_item(find(connection, project, event_id))
    return Outcome(item=item, correct=None, counted=False, sample_id=None)


def undo(ws: Workspace, project: str, *, author: str) -> ReviewItem:
    """Takes back this author's last answer, so that its picture waits again.

    Raises:
        NotFoundError: They answered nothing yet. ConflictError: The label stands in a dataset version already.
    """
    table = schema.review_item
    last = (
        sa.select(table)
        .where(table.c.project_id == project, table.c.author == author, table.c.answered_at.is_not(None))
        .order_by(table.c.answered_at.desc(), table.c.event_id)
        .limit(1)
    )
    with ws.database.write() as connection:
        ws.database.lock(connection, f"review {project}")
        row = connection.execute(last).mappings().one_or_none()
        if row is None:
            raise NotFoundError(
                f"{author} has answered nothing in {project}.",
                expected="an answer of yours.",
                do="Nothing needs to be taken back.",
            )
        verdict = row["verdict"]
        judged = SKIP not in verdict
        if judged:
            _retract(connection, ws, project, row)
        # A blind verdict was followed by the model's answer, so it cannot be given blind again.
        seen = REVEALED in verdict or (judged and row["selected_by"] == AUDIT)
        opened = {"answered_at": None, "author": None, "correct": None}
        mark = {REVEALED: True} if seen else None
        connection.execute(sa.update(table).where(table.c.event_id == row["event_id"]).values(**opened, verdict=mark))
        return as_item(find(connection, project, row["event_id"]))


def _open_row(ws: Workspace, connection: Connection, project: str, event_id: str) -> Any:
    ws.database.lock(connection, f"review {project}")
    row = find(connection, project, event_id)
    if row["answered_at"] is not None:
        raise ConflictError(
            f"{row['author']} answered this picture already.",
            expected="a picture that waits.",
            do="Go on with the next one; nothing was changed.",
            author=row["author"],
        )
    return row


def _close(connection: Connection, event_id: str, *, author: str, now: float, **changes: Any) -> None:
    table = schema.review_item
    values = {"author": author, "answered_at": now, **changes}
    connection.execute(sa.update(table).where(table.c.event_id == event_id).values(values))


def _retract(connection: Connection, ws: Workspace, project: str, row: Any) -> None:
    """Takes the label of an answer back, where the answer was what gave the sample its label."""
    table = schema.annotation
    member = schema.membership
    query = (
        sa.select(table, member.c.name, member.c.added_in.label("enrolled_in"))
        .join(
            member,
            (member.c.project_id == table.c.project_id) & (member.c.sample_id == table.c.sample_id),
        )
        .where(
            table.c.project_id == project,
            table.c.removed_in.is_(None),
            member.c.picture_id == row["picture_id"],
            member.c.removed_in.is_(None),
        )
    )
    label = connection.execute(query).mappings().one_or_none()
    ours = label is not None and label["origin"] == ORIGIN and label["author"] == row["author"]
    if label is None or not ours or label["created_at"] < row["answered_at"]:
        return
    if label["added_in"] is not None:
        raise ConflictError(
            f"Your last answer stands in dataset version {label['added_in']} already.",
            expected="an answer that no version holds yet.",
            do="Correct the label of the picture on the data page.",
            version=label["added_in"],
        )
    samples.retract(connection, ws, project, label["sample_id"])
    if label["enrolled_in"] is None and label["name"] == f"{ORIGIN}/{row['event_id']}":
        samples.remove(connection, ws, project, label["sample_id"])


def _said_with(ws: Workspace, event_id: str) -> dict[str, Any]:
    """What the client said with the picture: its ``source``, its ``group`` and further facts, which make slices."""
    table = schema.event
    with ws.database.read("events") as connection:
        row = connection.execute(sa.select(table.c.source, table.c.meta).where(table.c.id == event_id)).one_or_none()
    if row is None:
        return {}
    found = {str(name): value for name, value in (row.meta or {}).items() if value is not None}
    if "group" in found:
        found["group"] = str(found["group"])[:MAX_GROUP]
    return found | ({"source": row.source} if row.source else {})
