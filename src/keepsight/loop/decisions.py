"""What a person decides about a model: release it, or discard it.

A gate that did not pass can be overruled, but not passed by: the reason and the name stand in the audit log, and the
alert that asked is closed. ``card`` is what a person decides by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepsight import tasks
from keepsight.delivery import deployments
from keepsight.loop import runs
from keepsight.monitoring import alerts
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.assessment import store
from keepsight.training.gate import story


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


def card(ws: Workspace, project: str, number: int) -> dict[str, Any]:
    """A model beside the live one, in plain words and JSON-able.

    ``question``; ``summary`` (sentences); ``sides`` (``challenger`` and ``champion``, the latter None where none is
    live: number, when it was made, ``accuracy`` of both parts on the same pictures, ``latency_ms``, ``size_mb``);
    ``better`` and ``worse`` (see ``training.gate.story``); ``failed``, ``unsure``, ``passed`` and ``told`` (checks;
    those told do not decide); ``decision`` of the gate, None where no gate saw the model; ``stale`` where another model
    is live now than the one it was compared with; ``status``; ``needs_reason``; ``can`` (``release``, ``discard``).

    Raises:
        NotFoundError: No such model.
    """
    model = models.get(ws, project, number)
    gate = gate_of(ws, model)
    said: dict[str, Any] = gate or {}
    live = models.champion(ws, project)
    shown = said.get("champion") if gate else None if live is None else live.number
    other = None if shown is None or shown == number else models.get(ws, project, shown)
    stale = gate is not None and model.status == "challenger" and said.get("champion") != (live and live.number)
    return {
        "project": project,
        "model": number,
        "status": model.status,
        "run": model.run_id,
        "decision": said.get("decision"),
        "question": _question(model, live),
        "summary": story.summary(said) or [_uncompared(model, other)],
        "sides": {
            "challenger": _side(ws, model, said, "challenger"),
            "champion": None if other is None else _side(ws, other, said, "champion"),
        },
        "better": story.better(said),
        "worse": story.worse(said),
        "failed": story.checks(said, "fail"),
        "unsure": story.checks(said, "cannot_tell"),
        "passed": story.checks(said, "pass"),
        "told": [*story.checks(said, "fail", binding=False), *story.checks(said, "cannot_tell", binding=False)],
        "stale": stale,
        "live": None if live is None else live.number,
        "needs_reason": not gate_passed(ws, model),
        "can": {
            "release": model.status in ("challenger", "archived"),
            "discard": model.status in ("challenger", "archived"),
        },
    }


def _question(model: models.Model, live: models.Model | None) -> str:
    if model.status == "champion":
        return f"Model {model.number} is live."
    if model.status == "discarded":
        return f"Model {model.number} was discarded."
    if live is None:
        return f"Shall model {model.number} go live?"
    return f"Shall model {model.number} replace model {live.number}, which is live?"


def _uncompared(model: models.Model, other: models.Model | None) -> str:
    """What can be said without a comparison: each model's own figures, of which the pictures may differ."""
    told = [
        f"Model {each.number} is right on {figure['value']:.1%} of its own test pictures."
        for each in (model, other)
        if each is not None and (figure := tasks.right_share(each.metrics)) is not None and figure["value"] is not None
    ]
    return " ".join([*told, "The two were not compared on the same pictures."])


def _side(ws: Workspace, model: models.Model, gate: Mapping[str, Any], role: str) -> dict[str, Any]:
    """One of the two models; what the gate did not measure is what its own evaluation found."""
    sides = gate.get("sides") or {}
    evaluated = store.load(ws, model.project, model.number) or {}
    size = sides.get("size_bytes", {}).get(role) or evaluated.get("size_bytes", {}).get("float")
    latency = sides.get("latency_ms", {}).get(role)
    return {
        "number": model.number,
        "made": model.created_at,
        "dataset_version": model.dataset_version,
        "variant": sides.get("variant" if role == "challenger" else "champion_variant") or deployments.FLOAT,
        "accuracy": {name: row[role] for name, row in sides.get("parts", {}).items()},
        "latency_ms": (evaluated.get("latency_ms") or {}).get("p50") if latency is None else latency,
        "size_mb": None if size is None else size / 1e6,
    }
