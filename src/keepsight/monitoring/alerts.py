"""Alerts: what a person should know, in plain words, until somebody closes it."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from keepsight.errors import NotFoundError
from keepsight.store import audit, schema
from keepsight.store.database import insert_ignore
from keepsight.store.workspace import Workspace


@dataclass(frozen=True)
class Alert:
    """One alert; ``kind`` is drift, accuracy, gate, run or mlflow."""

    id: str
    project: str
    kind: str
    title: str
    text: str
    data: dict[str, Any]
    trace_id: str | None
    created_at: float
    closed_at: float | None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return asdict(self)


def raise_alert(
    ws: Workspace,
    project: str,
    *,
    kind: str,
    key: str,
    title: str,
    text: str,
    data: dict[str, Any] | None = None,
    trace_id: str | None = None,
) -> str:
    """Opens an alert and returns its id; the same ``key`` (a run, a bundle) opens one alert only, ever."""
    made_id = alert_id(project, kind, key)
    row = {
        "id": made_id,
        "project_id": project,
        "kind": kind,
        "title": title,
        "text": text,
        "data": data or {},
        "trace_id": trace_id,
        "created_at": ws.clock(),
        "closed_at": None,
        "closed_by": None,
    }
    with ws.database.write() as connection:
        insert_ignore(connection, schema.alert, [row])
    return made_id


def alert_id(project: str, kind: str, key: str) -> str:
    """The id that the alert of this key has or would have."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{project}/{kind}/{key}").hex


def open_alerts(ws: Workspace, project: str, *, kind: str | None = None) -> list[Alert]:
    """Alerts that nobody has closed, newest first."""
    query = (
        sa.select(schema.alert)
        .where(schema.alert.c.project_id == project, schema.alert.c.closed_at.is_(None))
        .order_by(schema.alert.c.created_at.desc())
    )
    if kind is not None:
        query = query.where(schema.alert.c.kind == kind)
    with ws.database.read() as connection:
        return [_alert(row) for row in connection.execute(query).mappings()]


def history(ws: Workspace, project: str, *, limit: int = 50) -> list[Alert]:
    """The newest alerts, closed ones included."""
    query = (
        sa.select(schema.alert)
        .where(schema.alert.c.project_id == project)
        .order_by(schema.alert.c.created_at.desc())
        .limit(limit)
    )
    with ws.database.read() as connection:
        return [_alert(row) for row in connection.execute(query).mappings()]


def is_closed(ws: Workspace, alert_id: str) -> bool:
    """Whether this alert was opened and somebody closed it."""
    with ws.database.read() as connection:
        return connection.scalar(sa.select(schema.alert.c.closed_at).where(schema.alert.c.id == alert_id)) is not None


def close(ws: Workspace, project: str, alert_id: str, *, actor: str) -> None:
    """Closes an alert, audited; closing twice changes nothing.

    Raises:
        NotFoundError: The project has no such alert.
    """
    now = ws.clock()
    with ws.database.write() as connection:
        where = (schema.alert.c.id == alert_id, schema.alert.c.project_id == project)
        if connection.scalar(sa.select(schema.alert.c.id).where(*where)) is None:
            raise NotFoundError(
                f'There is no alert "{alert_id}" in {project}.',
                expected="the id of an alert.",
                do=f"See `keepsight monitor status {project}`.",
            )
        closing = sa.update(schema.alert).where(*where, schema.alert.c.closed_at.is_(None))
        if connection.execute(closing.values(closed_at=now, closed_by=actor)).rowcount:
            audit.append(
                ws.database, connection, actor=actor, action="alert.close", target=f"{project}/{alert_id}", now=now
            )


def close_kinds(ws: Workspace, project: str, kinds: tuple[str, ...], *, actor: str) -> None:
    """Closes the open alerts of some kinds: a new model went live, so they speak of its predecessor."""
    for alert in open_alerts(ws, project):
        if alert.kind in kinds:
            close(ws, project, alert.id, actor=actor)


def _alert(row: Any) -> Alert:
    return Alert(
        id=row["id"],
        project=row["project_id"],
        kind=row["kind"],
        title=row["title"],
        text=row["text"],
        data=row["data"],
        trace_id=row["trace_id"],
        created_at=row["created_at"],
        closed_at=row["closed_at"],
    )
