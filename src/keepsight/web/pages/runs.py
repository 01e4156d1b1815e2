"""``/{project}/runs``: training runs, and for each the chain from the reviewers' labels to what is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request
from starlette.responses import Response

from keepsight.config import kinds
from keepsight.data import versions
from keepsight.delivery import deployments
from keepsight.errors import BadInputError, NotFoundError
from keepsight.loop import runs, spending
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.web import figures, money, render
from keepsight.web.pages.common import Actor, Form, Project, Space, back, is_htmx, project_page
from keepsight.web.pages.model import candidates, facts

router = APIRouter(include_in_schema=False)

# The steps of a run in their order, with what they do in words.
STEPS = {
    "version": "Put the new labels into a dataset version",
    "features": "Look at the new pictures",
    "train": "Train and measure the new model",
    "evaluate": "Find out what it can and cannot do",
    "gate": "Compare it with the live model",
    "deploy": "Release it, or ask a person",
    "robustness": "Spoil pictures on purpose, to see what it bears",
}


@dataclass(frozen=True)
class Stage:
    """One step of a run: ``state`` is done, now, failed, stopped or waiting; ``seconds`` are those that it worked.

    ``shared`` says that the step was cut off and went on, so that it worked in several attempts.
    """

    name: str
    text: str
    state: str
    seconds: float | None
    shared: bool


@dataclass(frozen=True)
class Chain:
    """Everything that one run ties together."""

    run: runs.RunRow
    stages: list[Stage]
    money: money.Money
    facts: list[tuple[str, str]]
    candidates: list[dict[str, Any]]
    alert: Any
    reviewed: int
    pictures: list[figures.SamplePicture]
    since: int
    version: versions.Version | None
    deployment: deployments.Deployment | None


@router.get("/{project}/runs")
def list_page(request: Request, ws: Space, project: Project) -> Response:
    """The newest runs; the page follows them while one is under way."""
    found = runs.list_runs(ws, project, limit=50)
    context: dict[str, Any] = {"runs": found, "busy": any(not run.finished for run in found), "steps": STEPS}
    if is_htmx(request):
        return render.page(request, "runs_list.html", project=project, **context)
    return project_page(
        request,
        "runs.html",
        project,
        active="runs",
        new_labels=figures.uncommitted(ws, project),
        settings=ws.settings(project),
        month_eur=spending.month_eur(ws, project),
        **context,
    )


@router.post("/{project}/runs")
def start(ws: Space, project: Project, who: Actor, form: Form) -> Response:
    """Asks for a training run."""
    reason = form.get("reason", "").strip() or "by hand"
    run_id = runs.enqueue(ws, project, trigger="hand", reason=reason, actor=who, params=_limits(form))
    return back(f"/{project}/runs/{run_id}", said="queued")


@router.post("/{project}/runs/{run_id}/cancel")
def cancel(ws: Space, project: Project, run_id: str, who: Actor, form: Form) -> Response:  # noqa: ARG001
    """Stops a run."""
    runs.cancel(ws, _own(ws, project, run_id).id, actor=who)
    return back(f"/{project}/runs/{run_id}", said="cancelled")


@router.get("/{project}/runs/{run_id}")
def show(request: Request, ws: Space, project: Project, run_id: str) -> Response:
    """The chain of one run; it follows the run while it is under way."""
    chain = _chain(ws, _own(ws, project, run_id))
    if is_htmx(request):
        return render.page(request, "chain.html", project=project, chain=chain)
    return project_page(request, "run.html", project, active="runs", chain=chain)


def _limits(form: Mapping[str, str]) -> dict[str, Any]:
    """What the run may take, where the form says so; else the settings count."""
    found: dict[str, Any] = {}
    for field, name, parse in (
        ("minutes", "budget_minutes", kinds.number(0.05, 10080)),
        ("euro", "max_cost_eur", kinds.number(0, 1e6)),
    ):
        text = form.get(field, "").strip().replace(",", ".")
        if text:
            try:
                found[name] = parse(text)
            except ValueError as error:
                raise BadInputError(
                    f'"{text}" is no limit.', expected=f"{error}, or nothing.", do="Correct the number."
                ) from None
    return found


def _own(ws: Workspace, project: str, run_id: str) -> runs.RunRow:
    run = runs.get(ws, run_id)
    if run.project != project:
        raise NotFoundError(
            f'{project} has no run "{run_id}".', expected="a run of this project.", do=f"See /{project}/runs."
        )
    return run


def _chain(ws: Workspace, run: runs.RunRow) -> Chain:
    number = run.dataset_version
    since = _version_before(ws, run)
    reviewed, shown = (
        (0, []) if number is None else figures.reviewed_between(ws, run.project, after=since, until=number)
    )
    return Chain(
        run=run,
        stages=_stages(run),
        money=money.of_run(ws, run),
        facts=facts(run.record or {}),
        candidates=candidates(run.record or {}),
        alert=_alert(ws, run),
        reviewed=reviewed,
        pictures=shown,
        since=since,
        version=None if number is None else versions.get(ws, run.project, number),
        deployment=next((row for row in deployments.history(ws, run.project) if row.run_id == run.id), None),
    )


def _stages(run: runs.RunRow) -> list[Stage]:
    record = run.record or {}
    wall = {step["name"]: step["ended"] - step["began"] for step in record.get("steps", [])}
    worked: dict[str, float] = record.get("worked_s") or {}
    ends = {"failed": "failed", "cancelled": "stopped"} | ({"done": "failed"} if run.warnings else {})
    stages = []
    for name, text in STEPS.items():
        state = "done" if name in wall else "waiting"
        if name not in wall and name == run.step:
            state = ends.get(run.status, "now")
        seconds = worked.get(name, wall.get(name))
        # Only the last attempt stands between a step's beginning and its end.
        stages.append(Stage(name, text, state, seconds, name in wall and worked.get(name, 0.0) > wall[name] + 1))
    return stages


def _version_before(ws: Workspace, run: runs.RunRow) -> int:
    """The dataset version that the run before trained on; 0 for a first run."""
    table = schema.run
    query = sa.select(sa.func.max(table.c.dataset_version)).where(
        table.c.project_id == run.project, table.c.seq < run.seq, table.c.dataset_version < (run.dataset_version or 0)
    )
    with ws.database.read() as connection:
        return int(connection.scalar(query) or 0)


def _alert(ws: Workspace, run: runs.RunRow) -> Any:
    """The alarm with which this run shares its trace."""
    table = schema.alert
    query = (
        sa.select(table)
        .where(
            table.c.project_id == run.project,
            table.c.trace_id == run.trace_id,
            table.c.kind.in_(("drift", "accuracy")),
        )
        .limit(1)
    )
    with ws.database.read() as connection:
        return connection.execute(query).mappings().one_or_none()
