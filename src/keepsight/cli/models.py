"""``keepsight models``: list, show, promote, rollback, discard, export, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keepsight.cli.common import (
    Json,
    Project,
    Reason,
    WorkspaceOption,
    actor,
    interval,
    opened,
    show,
    table,
    when,
)

app = typer.Typer(help="Models: list, show, release, go back.", no_args_is_help=True)
Number = Annotated[int | None, typer.Argument(help="Model number; else the live one.", show_default=False)]
ThisNumber = Annotated[int, typer.Argument(help="Model number.", show_default=False)]


@app.command("list")
def list_models(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """All models of a project, newest first."""
    from keepsight.training import models

    with opened(workspace) as ws:
        rows = models.list_models(ws, ws.check_project(project))
    head = ("model", "status", "accuracy", "dataset", "made")
    lines = [
        (row.number, row.status, interval(row.metrics.get("accuracy")), row.dataset_version, when(row.created_at))
        for row in rows
    ]
    show(
        [row.as_dict() for row in rows],
        as_json=json,
        text=lambda: table(head, lines, empty=f"No models yet: keepsight train {project}"),
    )


@app.command("show")
def show_model(project: Project, number: Number = None, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """One model: its figures on the test pictures, its run and its gate."""
    from keepsight.loop import runs
    from keepsight.training import models

    with opened(workspace) as ws:
        model = models.find(ws, ws.check_project(project), number)
        run = None if model.run_id is None else runs.get(ws, model.run_id)
    value = {
        **model.as_dict(),
        "run": None if run is None else {"id": run.id, "record": run.record, "gate": run.gate, "outcome": run.outcome},
    }
    lines = [
        f"Model {model.number} of {project}: {model.status}, made {when(model.created_at)}",
        f"  dataset version {model.dataset_version}, bundle {model.bundle_digest[:16]}",
    ]
    for name in ("accuracy", "precision", "recall", "f1", "ece"):
        if name in model.metrics:
            lines.append(f"  {name}: {interval(model.metrics[name])}")
    rows = [
        (name, interval(row["precision"]), interval(row["recall"]), interval(row["f1"]), row["support"])
        for name, row in model.metrics.get("per_class", {}).items()
    ]
    if rows:
        lines.append(table(("class", "precision", "recall", "f1", "pictures"), rows, empty=""))
    for check in (run.gate or {}).get("checks", []) if run else []:
        lines.append(f"  gate {check['name']}: {check['status']} - {check['reason']}")
    show(value, as_json=json, text=lambda: "\n".join(lines))


@app.command("promote")
def promote(
    project: Project,
    number: ThisNumber,
    reason: Reason = "",
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Release a model. Where its gate did not pass, a reason is needed."""
    from keepsight.loop import decisions

    with opened(workspace) as ws:
        made = decisions.promote(ws, ws.check_project(project), number, actor=actor(), reason=reason)
    show(made.as_dict(), as_json=json, text=lambda: f"Model {number} of {project} is released.")


@app.command("rollback")
def rollback(
    project: Project, reason: Reason = "rolled back by hand", workspace: WorkspaceOption = None, json: Json = False
) -> None:
    """Serve again the model that was live before."""
    from keepsight.delivery import deployments

    with opened(workspace) as ws:
        made = deployments.rollback(ws, ws.check_project(project), actor=actor(), reason=reason)
    show(made.as_dict(), as_json=json, text=lambda: f"Model {made.model_number} of {project} is live again.")


@app.command("discard")
def discard(
    project: Project,
    number: ThisNumber,
    reason: Reason = "discarded by hand",
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Take a challenger out of the choice."""
    from keepsight.loop import decisions

    with opened(workspace) as ws:
        decisions.discard(ws, ws.check_project(project), number, actor=actor(), reason=reason)
    show(
        {"project": project, "number": number, "status": "discarded"},
        as_json=json,
        text=lambda: f"Model {number} of {project} is discarded.",
    )


@app.command("export")
def export(
    project: Project,
    target: Annotated[Path, typer.Argument(help="Folder, or a .zip file.", show_default=False)],
    number: Annotated[int | None, typer.Option(help="Model number; else the live one.")] = None,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Write a model's bundle to disk, for `predict`, `serve --bundle` or another machine."""
    from keepsight.training import models

    with opened(workspace) as ws:
        model = models.find(ws, ws.check_project(project), number)
        bundle = models.load_bundle(ws, model)
    if target.suffix == ".zip":
        bundle.to_zip(target)
    else:
        bundle.save(target)
    value = {"project": project, "number": model.number, "path": str(target), "digest": bundle.digest}
    show(value, as_json=json, text=lambda: f"Wrote model {model.number} of {project} to {target}.")


@app.command("reproduce")
def reproduce(project: Project, number: Number = None, workspace: WorkspaceOption = None, json: Json = False) -> int:
    """Replay a model's run from its record and compare the digests. Exit code 1 where they differ."""
    from keepsight.loop.replay import replay

    with opened(workspace) as ws:
        result = replay(ws, ws.check_project(project), number)
    text = "same model, digest for digest" if result["same"] else "another model than the recorded one"
    show(result, as_json=json, text=lambda: f"Replayed model {result['number']}: {text} ({result['digest'][:16]}).")
    return 0 if result["same"] else 1
