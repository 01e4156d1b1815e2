"""What a person decides about a model: release it, or discard it.

A gate that did not pass can be overruled, but not passed by: the reason and the name stand in the audit log, and the
alert that asked is closed.
"""

from __future__ import annotations

from keepsight.delivery import deployments
from keepsight.loop import runs
from keepsight.monitoring import alerts
from keepsight.store.workspace import Workspace
from keepsight.training import models


def promote(ws: Workspace, project: str, number: int, *, actor: str, reason: str) -> deployments.Deployment:
    """Releases a model by hand.

    Raises:
        BadInputError: Its gate did not pass and no reason was given.
        ConflictError, NotFoundError: It is live already, was discarded, or does not exist.
    """
    model = models.get(ws, project, number)
    kind = "promote" if gate_passed(ws, model) else "override"
    made = deployments.promote(
        ws, project, number, actor=actor, reason=reason.strip() or ("" if kind == "override" else "by hand"), kind=kind
    )
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
    """Whether the model's own run let it pass; a model that was live before did."""
    if model.status in {"champion", "archived"}:
        return True
    if model.run_id is None:
        return False
    gate = runs.get(ws, model.run_id).gate
    return gate is not None and gate["decision"] == "deploy"
