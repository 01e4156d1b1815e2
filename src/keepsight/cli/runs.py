"""``keepsight runs``: list, show, cancel."""

from __future__ import annotations

from typing import Annotated

import typer

from keepsight.cli.common import Json, Project, WorkspaceOption, actor, opened, show, table, when

app = typer.Typer(help="Training runs: list, show, cancel.", no_args_is_help=True)


@app.command("list")
def list_runs(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """Runs of a project, newest first."""
    from keepsight.loop import runs

    with opened(workspace) as ws:
        rows = runs.list_runs(ws, ws.check_project(project))
    head = ("run", "status", "outcome", "model", "started by", "reason", "asked")
    lines = [
        (
            row.id[:8],
            row.status,
            row.outcome or "",
            row.model_number or "",
            row.trigger,
            row.reason,
            when(row.created_at),
        )
        for row in rows
    ]
    show([row.as_dict() for row in rows], as_json=json, text=lambda: table(head, lines, empty="No runs yet."))


@app.command("show")
def show_run(
    run: Annotated[str, typer.Argument(help="Run id, or its beginning.", show_default=False)],
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """One run with its record: plan, seed, digests, environment, times, cost, gate."""
    import yaml

    from keepsight.loop import runs

    with opened(workspace) as ws:
        row = runs.find(ws, run)
    show(row.as_dict(), as_json=json, text=lambda: yaml.safe_dump(row.as_dict(), sort_keys=False, allow_unicode=True))


@app.command("cancel")
def cancel(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """Stop the run of a project that is queued or under way."""
    from keepsight.errors import NotFoundError
    from keepsight.loop import runs

    with opened(workspace) as ws:
        rows = runs.list_runs(ws, ws.check_project(project), unfinished=True)
        if not rows:
            raise NotFoundError(
                f"No run of {project} is under way.", expected="a run to cancel.", do="Nothing needs doing."
            )
        runs.cancel(ws, rows[0].id, actor=actor())
    show({"run": rows[0].id, "status": "cancelled"}, as_json=json, text=lambda: f"Cancelled run {rows[0].id[:8]}.")
