"""Alerts: one for each cause, open until somebody closes them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from keepsight.errors import NotFoundError
from keepsight.monitoring import alerts
from keepsight.store import schema
from keepsight.store.workspace import Workspace


def say(ws: Workspace, *, kind: str = "run", key: str = "one", project: str = "shop") -> str:
    return alerts.raise_alert(ws, project, kind=kind, key=key, title="A title", text="A text.")


def closings(ws: Workspace) -> int:
    with ws.database.read() as connection:
        query = sa.select(sa.func.count()).select_from(schema.audit).where(schema.audit.c.action == "alert.close")
        return connection.scalar(query) or 0


def test_the_same_cause_is_told_once_even_after_it_was_closed(workspace: Workspace) -> None:
    first = say(workspace)
    assert say(workspace) == first == alerts.alert_id("shop", "run", "one")
    assert [alert.id for alert in alerts.open_alerts(workspace, "shop")] == [first]
    alerts.close(workspace, "shop", first, actor="ana")
    assert say(workspace) == first
    assert alerts.open_alerts(workspace, "shop") == []
    assert len(alerts.history(workspace, "shop")) == 1


def test_other_causes_kinds_and_projects_are_alerts_of_their_own(workspace: Workspace) -> None:
    made = {say(workspace), say(workspace, key="two"), say(workspace, kind="gate"), say(workspace, project="other")}
    assert len(made) == 4
    assert len(alerts.open_alerts(workspace, "shop")) == 3
    assert [alert.kind for alert in alerts.open_alerts(workspace, "shop", kind="gate")] == ["gate"]


def test_closing_is_audited_once(workspace: Workspace) -> None:
    made = say(workspace)
    assert not alerts.is_closed(workspace, made)
    for _ in range(2):
        alerts.close(workspace, "shop", made, actor="ana")
    assert alerts.is_closed(workspace, made)
    assert closings(workspace) == 1


def test_an_alert_of_another_project_is_not_found(workspace: Workspace) -> None:
    with pytest.raises(NotFoundError):
        alerts.close(workspace, "other", say(workspace), actor="ana")
    assert len(alerts.open_alerts(workspace, "shop")) == 1


def test_closing_kinds_leaves_the_others_open(workspace: Workspace) -> None:
    for kind in ("drift", "accuracy", "run"):
        say(workspace, kind=kind)
    alerts.close_kinds(workspace, "shop", ("drift", "accuracy"), actor="ana")
    assert [alert.kind for alert in alerts.open_alerts(workspace, "shop")] == ["run"]
