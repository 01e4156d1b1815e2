"""Turns the pictures that serving kept into rows of truth: blob, picture and review item.

Serving writes nothing to truth, so that an answer never waits for an import or a training run. It seals a picture that
was selected (audit, uncertain) as an object and tells of it in its event; this module, run a few times a second by the
leader, makes the rows. Every effect is keyed by the event's id: running it twice, or dying half-way, changes nothing.
"""

from __future__ import annotations

import base64
import logging
from typing import Any

import sqlalchemy as sa

from keepsight import tasks
from keepsight.errors import KeepsightError
from keepsight.store import schema
from keepsight.store.blobs import Sealed
from keepsight.store.database import insert_ignore
from keepsight.store.workspace import Workspace

BATCH = 200

log = logging.getLogger(__name__)

# Asked often, so it is put together once.
_WAITING = sa.select(schema.event).where(schema.event.c.sealed.is_not(None)).order_by(schema.event.c.seq)


def run(ws: Workspace, *, limit: int = BATCH) -> int:
    """How many events were taken in, oldest first; fewer than ``limit`` means that none waits any more."""
    with ws.database.read("events") as connection:
        events = connection.execute(_WAITING.limit(limit)).mappings().all()
    if not events:
        return 0
    now = ws.clock()
    items = [_item(ws, event) for event in events if event["selected_by"]]
    with ws.database.write() as connection:
        ws.blobs.record(connection, [_sealed(event["sealed"]) for event in events], now=now)
        insert_ignore(connection, schema.picture, [_picture(event["sealed"], now) for event in events])
        insert_ignore(connection, schema.review_item, [item for item in items if item is not None])
    # The rows of truth stand, so the events may forget where their objects are.
    with ws.database.write("events") as connection:
        connection.execute(
            sa.update(schema.event)
            .where(schema.event.c.id == sa.bindparam("event_id"))
            .values(sealed=None, picture_id=sa.bindparam("kept_as")),
            [{"event_id": event["id"], "kept_as": event["sealed"]["id"]} for event in events],
        )
    return len(events)


def _sealed(kept: dict[str, Any]) -> Sealed:
    return Sealed(
        id=kept["id"],
        location=kept["location"],
        wrapped_key=base64.b64decode(kept["wrapped_key"]),
        size_bytes=kept["size_bytes"],
    )


def _picture(kept: dict[str, Any], now: float) -> dict[str, Any]:
    return {
        "id": kept["id"],
        "format": kept["format"],
        "width": kept["width"],
        "height": kept["height"],
        "created_at": now,
    }


def _item(ws: Workspace, event: Any) -> dict[str, Any] | None:
    """The row of the queue; None for a prediction that its task cannot read, which only a foreign spool can send."""
    project, prediction = event["project_id"], event["prediction"]
    task = tasks.get(ws.settings(project)["task"])
    try:
        task.parse(prediction)
        priority = task.uncertainty(prediction)
    except (KeepsightError, KeyError, TypeError, ValueError, AttributeError) as error:
        log.warning("Event %s of %s cannot be reviewed, its prediction cannot be read: %r", event["id"], project, error)
        return None
    return {
        "event_id": event["id"],
        "project_id": project,
        "picture_id": event["sealed"]["id"],
        "selected_by": event["selected_by"],
        "probability": event["probability"],
        "priority": priority,
        "model_number": event["model_number"],
        "prediction": prediction,
        "created_at": event["at"],
    }
