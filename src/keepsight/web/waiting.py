"""Models about which a person has to decide."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.training.gate import open_checks


@dataclass(frozen=True)
class Waiting:
    """A model whose checks could not tell; ``reasons`` are what they said."""

    project: str
    number: int
    run_id: str
    since: float
    reasons: list[str]


def waiting(ws: Workspace, project: str) -> list[Waiting]:
    """The models that wait for a decision, newest first.

    Where a newer model has gone live since, nobody has to decide about an older one any more.
    """
    model, run = schema.model, schema.run
    live = sa.select(sa.func.max(model.c.number)).where(model.c.project_id == project, model.c.status == "champion")
    query = (
        sa.select(model.c.number, model.c.created_at, run.c.id, run.c.gate)
        .join(run, run.c.id == model.c.run_id)
        .where(
            model.c.project_id == project,
            model.c.status == "challenger",
            run.c.outcome == "ask",
            model.c.number > sa.func.coalesce(live.scalar_subquery(), 0),
        )
        .order_by(model.c.number.desc())
    )
    with ws.database.read() as connection:
        rows = connection.execute(query).all()
    return [
        Waiting(
            project=project,
            number=row.number,
            run_id=row.id,
            since=row.created_at,
            reasons=[check["reason"] for check in open_checks(row.gate or {})],
        )
        for row in rows
    ]
