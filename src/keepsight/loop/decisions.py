"""What a person decides about a model: release it, or discard it.

A gate that did not pass can be overruled, but not passed by: the reason and the name stand in the audit log, and the
alert that asked is closed.
"""

from __future__ import annotations

from typing import Any

from keepsight.delivery import deployments
from keepsight.loop import runs
from keepsight.monitoring import alerts
from keepsight.store.workspace import Workspace
from keepsight.training import models


def promote(ws: Workspace, project: str, number: int, *, actor: str, reason: str) -> deployments.Deployment:
    """Releases a model by hand; one that was live before comes back as it went.

    Raises:
        BadInputError: Its gate did not pass, or compared it with another model than the live one, and no reason was
            given.
        ConflictError, NotFoundError: It is live already, was discarded, or does not exist.
    """
    model = models.get(ws, project, number)
    kind = (
        deployments.ROLLBACK
        if deployments.was_live(ws, project, number)
        else deployments.PROMOTE
        if gate_passed(ws, model)
        else deployments.OVERRIDE
    )
    said = reason.strip() or ("" if kind == deployments.OVERRIDE else "by hand")
    made = deployments.promote(ws, project, number, actor=actor, reason=said, kind=kind)
    alerts.close_kinds(ws, project, ("drift", "accuracy", "gate"), actor=actor)
    return made


def discard(ws: Workspace, project: str, number: int, *, actor: str, reason: str) -> None:
    """Takes a challenger out of the choice and closes the alert that asked about it.

    Raises:
        ConflictError: It is live.
    """
    models.discard(ws, project, number, actor=actor, reason=reason)
    for alert in alerts.open_alerts(ws, project, kind="gate"):
        if alert.data.get("model") == number:
            alerts.close(ws, project, alert.id, actor=actor)


def gate_passed(ws: Workspace, model: models.Model) -> bool:
    """Whether the model's own run let it replace the model that is live now; a model that was live before did."""
    if deployments.was_live(ws, model.project, model.number):
        return True
    live = deployments.current(ws, model.project)
    return deployments.has_passed(gate_of(ws, model), None if live is None else live.model_number)


def gate_of(ws: Workspace, model: models.Model) -> dict[str, Any] | None:
    """What the gate of the model's own run said; None where no run made it, or it never came so far."""
    return None if model.run_id is None else runs.get(ws, model.run_id).gate
