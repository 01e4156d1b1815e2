"""``/{project}/models``: what was trained, what is live; release, discard, go back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from keepsight.delivery import deployments
from keepsight.loop import decisions, runs
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.gate import open_checks
from keepsight.web import abilities
from keepsight.web.pages.common import Actor, Form, Number, Project, Space, back, project_page
from keepsight.web.waiting import waiting

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Card:
    """A model with the gate of its run.

    ``open`` are the checks that stand in the way of its release; ``asks`` says that it waits for a person's decision.
    """

    model: models.Model
    figures: list[abilities.Figure]
    gate: dict[str, Any] | None
    open: list[Mapping[str, Any]]
    run: runs.RunRow | None
    asks: bool


@router.get("/{project}/models")
def list_page(request: Request, ws: Space, project: Project) -> Response:
    """All models, newest first, and the deployments so far."""
    asking = {item.number for item in waiting(ws, project)}
    history = deployments.history(ws, project)
    return project_page(
        request,
        "models.html",
        project,
        active="models",
        cards=[_card(ws, model, asks=model.number in asking) for model in models.list_models(ws, project)],
        history=history,
        current=history[0] if history else None,
        servers=len(deployments.live_servers(ws)),
    )


@router.post("/{project}/models/rollback")
def rollback(ws: Space, project: Project, who: Actor, form: Form) -> Response:
    """Serves the model before again."""
    deployments.rollback(ws, project, actor=who, reason=form.get("reason", "").strip() or "rolled back")
    return back(f"/{project}/models", said="rolled-back")


@router.post("/{project}/models/{number}/promote")
def promote(ws: Space, project: Project, number: Number, who: Actor, form: Form) -> Response:
    """Releases a model."""
    decisions.promote(ws, project, number, actor=who, reason=form.get("reason", ""))
    return back(f"/{project}/models/{number}", said="promoted")


@router.post("/{project}/models/{number}/discard")
def discard(ws: Space, project: Project, number: Number, who: Actor, form: Form) -> Response:
    """Takes a model out of the choice."""
    decisions.discard(ws, project, number, actor=who, reason=form.get("reason", "").strip())
    return back(f"/{project}/models/{number}", said="discarded")


def _card(ws: Workspace, model: models.Model, *, asks: bool) -> Card:
    run = None if model.run_id is None else runs.get(ws, model.run_id)
    gate = None if run is None else run.gate
    figures = abilities.figures(ws.settings(model.project)["task"], model.metrics)
    return Card(model, figures, gate, [] if gate is None else open_checks(gate), run, asks)
