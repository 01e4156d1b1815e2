"""The evaluation of a model, kept beside it in the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from keepsight.data import rows
from keepsight.store import schema
from keepsight.store.database import upsert
from keepsight.store.workspace import Workspace


def save(ws: Workspace, project: str, number: int, data: Mapping[str, Any]) -> None:
    """Keeps a model's evaluation; one that is there is replaced."""
    row = {"project_id": project, "model_number": number, "data": dict(data), "created_at": ws.clock()}
    with ws.database.write() as connection:
        upsert(connection, schema.evaluation, [row])


def load(ws: Workspace, project: str, number: int) -> dict[str, Any] | None:
    """A model's evaluation, or None where it was never made.

    Pictures that were erased since are left out of the mistakes and of their nearest pictures; ``evaluated_at`` says
    when it was made (seconds since 1970).
    """
    table = schema.evaluation
    with ws.database.read() as connection:
        row = connection.execute(
            sa.select(table.c.data, table.c.created_at).where(
                table.c.project_id == project, table.c.model_number == number
            )
        ).one_or_none()
    if row is None:
        return None
    found: dict[str, Any] = dict(row.data)
    mistakes = found.get("mistakes", [])
    there = _there(ws, (entry["picture_id"] for mistake in mistakes for entry in (mistake, *mistake["nearest"])))
    found["mistakes"] = [
        {**mistake, "nearest": [entry for entry in mistake["nearest"] if entry["picture_id"] in there]}
        for mistake in mistakes
        if mistake["picture_id"] in there
    ]
    found["evaluated_at"] = float(row.created_at)
    return found


def _there(ws: Workspace, picture_ids: Iterable[str]) -> set[str]:
    """Those of the pictures that are stored and were not erased."""
    wanted = sorted(set(picture_ids))
    blob = schema.blob
    with ws.database.read() as connection:
        return {
            name
            for part in rows.chunks(wanted)
            for name in connection.scalars(
                sa.select(blob.c.id).where(blob.c.id.in_(part), blob.c.wrapped_key.is_not(None))
            )
        }
