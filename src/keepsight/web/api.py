"""The REST routes of the loop, under ``/v1/{project}/``: thin, one call each into the floors below.

``predict``, ``feedback`` and the taking of ``events`` belong to serving. Errors have the one JSON shape everywhere.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from keepsight import tasks
from keepsight.data import adding, diffs, exporters, samples, versions
from keepsight.delivery import deployments
from keepsight.errors import BadInputError, NotFoundError
from keepsight.loop import decisions, runs
from keepsight.loop.ci import junit, report
from keepsight.monitoring import alerts, watch
from keepsight.review import classes, queue, verdicts
from keepsight.runtime.decode import DEFAULT_LIMITS
from keepsight.serving.bodies import read_body
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.training import models, recipes
from keepsight.web.pages.common import MAX_NUMBER, Actor, Offset, Project, Since, Space

router = APIRouter(prefix="/v1/{project}")

Json = dict[str, Any]
Limit = Annotated[int, Query(ge=1, le=1000)]
Number = Annotated[int, Path(ge=1, le=MAX_NUMBER)]


class Body(BaseModel):
    """What a request may say; anything else in it is an error, so that a slip of the pen is not passed over."""

    model_config = ConfigDict(extra="forbid")


class Reason(Body):
    """Why something is done."""

    reason: str = Field("", max_length=2000, description="Stands in the audit log.")


class Verdict(Body):
    """A reviewer's answer: ``label`` (or ``value``, the task's own annotation), or ``skip`` with a reason."""

    label: str | None = Field(None, max_length=200)
    value: Json | None = None
    new_class: bool = False
    skip: str | None = Field(None, max_length=200)


class Retrain(Body):
    """What a run is asked for."""

    reason: str = Field("asked for by REST", max_length=2000)
    promote: bool = Field(True, description="Whether a model that passes its gate goes live.")
    version: int | None = Field(None, ge=1, le=MAX_NUMBER, description="Dataset version; the newest when not given.")
    recipe: str | None = Field(None, max_length=100, description="Which recipe; the setting when not given.")
    budget_minutes: float | None = Field(None, ge=0.05, le=10080, description="Longest time.")
    max_cost_eur: float | None = Field(None, ge=0, description="Most that it may cost.")
    trigger: Literal["api", "ci"] = Field("api", description="ci where a pipeline asks.")
    trace_id: str | None = Field(
        None, pattern="^[0-9a-f]{32}$", description="An id of your own: asking twice with it starts one run."
    )


# --- predictions ------------------------------------------------------------------------------------------------------


@router.get("/events", tags=["predictions"], summary="The newest predictions")
def recent_events(ws: Space, project: Project, *, limit: Limit = 50, before: Since = None) -> Json:
    """Newest first; ``before`` is the ``next`` of the page before. Audits that wait for a person keep their answer."""
    table = schema.event
    query = sa.select(table).where(table.c.project_id == project).order_by(table.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(table.c.seq < before)
    with ws.database.read("events") as connection:
        rows = connection.execute(query).mappings().all()
    return {"events": _events(ws, rows), "next": rows[-1]["seq"] if len(rows) == limit else None}


@router.get("/predictions/{prediction_id}", tags=["predictions"], summary="One prediction")
def prediction(ws: Space, project: Project, prediction_id: str) -> Json:
    """What was answered, what people said about it, and how it was judged in review."""
    with ws.database.read("events") as connection:
        found = sa.select(schema.event).where(schema.event.c.id == prediction_id, schema.event.c.project_id == project)
        row = connection.execute(found).mappings().one_or_none()
        said = connection.execute(
            sa.select(schema.feedback)
            .where(schema.feedback.c.event_id == prediction_id, schema.feedback.c.project_id == project)
            .order_by(schema.feedback.c.seq)
        ).mappings()
        feedback = [{name: item[name] for name in ("at", "kind", "value", "author")} for item in said]
    if row is None:
        raise NotFoundError(
            f'{project} has no prediction "{prediction_id}".',
            expected="the prediction_id of an answer.",
            do="Copy it from the answer; it has 32 hex digits.",
        )
    try:
        item: Json | None = queue.get(ws, project, prediction_id).as_dict()
    except NotFoundError:
        item = None
    return {**_events(ws, [row])[0], "feedback": feedback, "review": item}


# --- data -------------------------------------------------------------------------------------------------------------


@router.get("/samples", tags=["data"], summary="The data set")
def list_samples(
    ws: Space,
    project: Project,
    *,
    version: Since = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    """As it stands now or at a version, ordered by sample id."""
    if version is not None:
        versions.get(ws, project, version)
    found = samples.current(ws, project) if version is None else samples.at_version(ws, project, version)
    page = found[offset : offset + limit]
    return {"samples": [item.as_dict() for item in page], "total": len(found)}


@router.post(
    "/samples",
    tags=["data"],
    summary="Import one picture",
    openapi_extra={
        "requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def add_sample(
    request: Request,
    ws: Space,
    project: Project,
    who: Actor,
    *,
    label: str | None = None,
    value: str | None = None,
    split: str = "pending",
    group: str | None = None,
    name: str = "",
) -> Json:
    """The body is the picture; it counts from the next version on. Sending it again changes nothing.

    ``label`` names its class; ``value`` is its whole annotation, as JSON, where a class does not say it all.
    """
    from starlette.concurrency import run_in_threadpool

    data = await read_body(request, limit=DEFAULT_LIMITS.max_bytes)
    return await run_in_threadpool(
        _add_sample, ws, project, data, who=who, raw=_raw(label, value), split=split, group=group, name=name
    )


@router.get("/versions", tags=["data"], summary="Dataset versions")
def list_versions(ws: Space, project: Project) -> Json:
    """Newest first."""
    return {"versions": [item.as_dict() for item in versions.log(ws, project)]}


@router.get("/versions/{number}", tags=["data"], summary="One version and what changed")
def one_version(ws: Space, project: Project, number: Number, *, since: Since = None) -> Json:
    """The version with its difference to the one before, or to version ``since``."""
    found = versions.get(ws, project, number)
    changed = diffs.between(ws, project, number - 1 if since is None else since, number)
    return {**(found.as_dict() if found else {}), "diff": changed.as_dict()}


@router.get(
    "/versions/{number}/export",
    tags=["data"],
    summary="A version for other tools",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "A ZIP file."}},
)
def export_version(ws: Space, project: Project, number: Number, who: Actor, *, format: str | None = None) -> Response:
    """A ZIP file in the format coco, voc, yolo, label-studio, folders, csv, masks or json; without one, the usual one.

    What has no room in the format is left out; the header ``Keepsight-Left-Out`` counts it.
    """
    export = exporters.prepare(ws, project, version=number, format=format)
    name = f"{project}-{number}-{export.format}.zip"
    return StreamingResponse(
        exporters.zipped(ws, project, export=export, actor=who),
        media_type="application/zip",
        headers={
            "content-disposition": f'attachment; filename="{name}"',
            "keepsight-left-out": str(len(export.left_out)),
        },
    )


# --- models -----------------------------------------------------------------------------------------------------------


@router.get("/models", tags=["models"], summary="All models")
def list_models(ws: Space, project: Project) -> Json:
    """Newest first."""
    return {"models": [model.as_dict() for model in models.list_models(ws, project)]}


@router.get("/models/{number}", tags=["models"], summary="One model")
def one_model(ws: Space, project: Project, number: Number) -> Json:
    """The model with the gate of its run."""
    model = models.get(ws, project, number)
    gate = None if model.run_id is None else runs.get(ws, model.run_id).gate
    return {**model.as_dict(), "gate": gate}


@router.post("/models/{number}/promote", tags=["models"], summary="Release a model")
def promote(ws: Space, project: Project, number: Number, body: Reason, who: Actor) -> Json:
    """Needs a reason where its gate did not pass."""
    return decisions.promote(ws, project, number, actor=who, reason=body.reason).as_dict()


@router.post("/models/{number}/discard", tags=["models"], summary="Discard a model")
def discard(ws: Space, project: Project, number: Number, body: Reason, who: Actor) -> Json:
    """Takes it out of the choice; it stays readable."""
    decisions.discard(ws, project, number, actor=who, reason=body.reason)
    return models.get(ws, project, number).as_dict()


@router.get("/deployments", tags=["models"], summary="What was live when")
def list_deployments(ws: Space, project: Project) -> Json:
    """Newest first; the first one is what should be served, and ``servers`` are those that are up."""
    history = [item.as_dict() for item in deployments.history(ws, project)]
    return {"deployments": history, "servers": deployments.live_servers(ws)}


@router.post("/rollback", tags=["models"], summary="Serve the model before again")
def rollback(ws: Space, project: Project, body: Reason, who: Actor) -> Json:
    """The deployment that was made."""
    return deployments.rollback(ws, project, actor=who, reason=body.reason.strip() or "rolled back").as_dict()


# --- review -----------------------------------------------------------------------------------------------------------


@router.get("/review/next", tags=["review"], summary="The next picture to judge")
def review_next(ws: Space, project: Project, who: Actor) -> Json:
    """``item`` is null when none waits; of an audit the model's answer is not told before the verdict."""
    item = queue.next_item(ws, project, author=who)
    counts = queue.counts(ws, project).as_dict()
    told = None if item is None else {**item.as_dict(), "picture": f"/{project}/pictures/{item.picture_id}?side=1000"}
    return {"item": told, "counts": counts, "classes": list(classes.known(ws, project))}


@router.post("/review/undo", tags=["review"], summary="Take your last answer back")
def review_undo(ws: Space, project: Project, who: Actor) -> Json:
    """The item, which waits again."""
    return verdicts.undo(ws, project, author=who).as_dict()


@router.post("/review/{event_id}", tags=["review"], summary="Judge a picture")
def review_answer(ws: Space, project: Project, event_id: str, body: Verdict, who: Actor) -> Json:
    """What the verdict did, the model's answer included."""
    if body.skip is not None and body.label is None and body.value is None:
        return verdicts.skip(ws, project, event_id, author=who, reason=body.skip).as_dict()
    if body.skip is not None or (body.label is None) == (body.value is None):
        raise BadInputError(
            "The verdict names none or several of label, value and skip.",
            expected="exactly one of them.",
            do='Send {"label": "..."}, {"value": {...}} or {"skip": "cannot tell"}.',
        )
    raw = {"label": body.label} if body.value is None else body.value
    return verdicts.answer(ws, project, event_id, raw, author=who, new_class=body.new_class).as_dict()


# --- loop -------------------------------------------------------------------------------------------------------------


@router.get("/monitor", tags=["loop"], summary="Is the model doing well?")
def monitor(ws: Space, project: Project) -> Json:
    """Drift, audited accuracy, latency, classes, open alerts."""
    return watch.status(ws, project)


@router.get("/alerts", tags=["loop"], summary="Open alerts")
def list_alerts(ws: Space, project: Project) -> Json:
    """Newest first."""
    return {"alerts": [item.as_dict() for item in alerts.open_alerts(ws, project)]}


@router.post("/alerts/{alert_id}/close", tags=["loop"], summary="Close an alert")
def close_alert(ws: Space, project: Project, alert_id: str, who: Actor) -> Json:
    """The alerts that stay open."""
    alerts.close(ws, project, alert_id, actor=who)
    return list_alerts(ws, project)


@router.post("/retrain", tags=["loop"], summary="Ask for a training run", status_code=202)
def retrain(ws: Space, project: Project, body: Retrain, who: Actor) -> Json:
    """The run; follow it under ``runs/{id}``."""
    known = None if body.trace_id is None else runs.of_trace(ws, project, body.trace_id)
    if known is not None:
        return known.as_dict()
    params: Json = {"promote": body.promote}
    if body.version is not None:
        versions.get(ws, project, body.version)
        params["version"] = body.version
    if body.recipe is not None:
        recipes.get(ws.settings(project)["task"], body.recipe)
        params["recipe"] = body.recipe
    limits = {"budget_minutes": body.budget_minutes, "max_cost_eur": body.max_cost_eur}
    params |= {name: value for name, value in limits.items() if value is not None}
    run_id = runs.enqueue(
        ws, project, trigger=body.trigger, reason=body.reason, actor=who, params=params, trace_id=body.trace_id
    )
    return runs.get(ws, run_id).as_dict()


@router.get("/runs", tags=["loop"], summary="Training runs")
def list_runs(ws: Space, project: Project, *, limit: Limit = 50) -> Json:
    """Newest first."""
    return {"runs": [run.as_dict() for run in runs.list_runs(ws, project, limit=limit)]}


@router.get("/runs/{run_id}", tags=["loop"], summary="One training run")
def one_run(ws: Space, project: Project, run_id: str) -> Json:
    """Where it stands, its record and its gate."""
    return _own_run(ws, project, run_id).as_dict()


@router.get("/runs/{run_id}/report.md", tags=["loop"], summary="The report of a run", response_class=Response)
def run_report(ws: Space, project: Project, run_id: str) -> Response:
    """Markdown: verdict, comparison, checks, data, figures."""
    return Response(report.of_run(ws, _own_run(ws, project, run_id)), media_type="text/markdown; charset=utf-8")


@router.get("/runs/{run_id}/junit.xml", tags=["loop"], summary="A run as JUnit XML", response_class=Response)
def run_junit(ws: Space, project: Project, run_id: str) -> Response:
    """A test case for each step and for each check of the gate."""
    return Response(junit.of_run(_own_run(ws, project, run_id)), media_type="application/xml")


@router.post("/runs/{run_id}/cancel", tags=["loop"], summary="Stop a run")
def cancel_run(ws: Space, project: Project, run_id: str, who: Actor) -> Json:
    """The run, cancelled."""
    runs.cancel(ws, _own_run(ws, project, run_id).id, actor=who)
    return runs.get(ws, run_id).as_dict()


def _own_run(ws: Workspace, project: str, run_id: str) -> runs.RunRow:
    run = runs.get(ws, run_id)
    if run.project != project:
        raise NotFoundError(
            f'{project} has no run "{run_id}".', expected="a run of this project.", do=f"See /v1/{project}/runs."
        )
    return run


_EVENT_FACTS = (
    "id",
    "at",
    "model_number",
    "bundle_digest",
    "variant",
    "quality",
    "picture_id",
    "selected_by",
    "source",
    "trace_id",
    "meta",
    "latency_ms",
)
_ANSWER = ("prediction", "label", "confidence", "decision", "reasons")


def _events(ws: Workspace, rows: Any) -> list[Json]:
    """Events as JSON; what the model said about an unjudged audit is kept back, or the audit would not be blind."""
    hidden = queue.withheld(ws, [row["id"] for row in rows if row["selected_by"] == queue.AUDIT])
    return [
        {
            **{name: row[name] for name in _EVENT_FACTS},
            **{name: None if row["id"] in hidden else row[name] for name in _ANSWER},
            "withheld": row["id"] in hidden,
        }
        for row in rows
    ]


def _raw(label: str | None, value: str | None) -> Any:
    """What was said of a picture, as a task takes it; None where nothing was.

    Raises:
        BadInputError: Both were given, or ``value`` is no JSON.
    """
    if label is not None and value is not None:
        raise BadInputError("Both label and value were given.", expected="one of them.", do="Leave one out.")
    if value is None:
        return None if label is None else {"label": label}
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            f"value is no JSON ({error}).", expected="the annotation as a JSON object.", do="Correct it."
        ) from None


def _add_sample(
    ws: Workspace,
    project: str,
    data: bytes,
    *,
    who: str,
    raw: Any,
    split: str,
    group: str | None,
    name: str,
) -> Json:
    value = None
    if raw is not None:
        task = tasks.get(ws.settings(project)["task"])
        value = task.canonical(task.parse(raw))
    item = adding.NewSample(
        data=data, name=name or "sent by REST", value=value, split=samples.check_split(split), group=group
    )
    report = adding.add(ws, project, [item], author=who)
    if report.rejected:
        fault = report.rejected[0]
        raise BadInputError(
            fault.text, expected="a picture, and at most one label for it.", do="Correct it.", reason=fault.code
        )
    return report.as_dict()
