"""``init``, ``predict``, ``up``, ``serve`` and ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keepsight.cli.base import predict_files, render
from keepsight.cli.common import Json, Project, WorkspaceOption, opened, say, show
from keepsight.cli.saving import Saved

Host = Annotated[str, typer.Option(help="Address to listen on; another than loopback needs a token.")]
Port = Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("init")(init)
    app.command("predict")(predict)
    app.command("up")(up)
    app.command("serve")(serve)
    app.command("doctor")(doctor)


def init(
    project: Project,
    task: Annotated[str, typer.Option(help="The kind of vision job.")] = "classification",
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Add a project to keepsight.yaml and make the workspace folder."""
    from keepsight import config, tasks
    from keepsight.store.workspace import Workspace

    root = (workspace or Path.cwd()).resolve()
    config.check_project_name(project)
    tasks.get(task)
    added = config.add_project(root, project, task=task)
    ws = Workspace.open(root)
    try:
        ws.ensure_project(project)
    finally:
        ws.close()
    value = {"workspace": str(root), "project": project, "task": task, "added": added}
    state = root / config.STATE_FOLDER
    text = (
        f"{'Added' if added else 'Kept'} {project} ({task}) in {root / config.FILE_NAME}.\n"
        f"Keep {state / 'workspace.key'} safe: without it the pictures cannot be read.\n"
        f"Next: keepsight data import {project} PHOTOS/"
    )
    show(value, as_json=json, text=lambda: text)


def predict(
    project: Project,
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or videos (mp4, mov, webm).", show_default=False)],
    top_k: Annotated[int, typer.Option(help="How many alternatives.", min=1)] = 5,
    save: Annotated[
        Path | None, typer.Option(help="Folder for the answers as pictures, where the task has such.")
    ] = None,
    background: Annotated[
        str, typer.Option(help="Of these: a colour (white, #1e90ff) or a picture file; else transparent.")
    ] = "",
    every: Annotated[str, typer.Option(help="Time between two frames of a video, as in 2s or 500ms.")] = "1s",
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> int:
    """Answer for pictures with the live model (or with a bundle, given by its path); nothing is logged."""
    import sys

    from keepsight.runtime.bundle import Bundle
    from keepsight.runtime.predictor import Predictor

    if Path(project).suffix == ".zip" or (Path(project) / "bundle.json").is_file():
        predictor = Predictor(Bundle.open(Path(project)))
    else:
        from keepsight.loop import galleries
        from keepsight.training import models

        with opened(workspace) as ws:
            ws.check_project(project)
            predictor = galleries.predictor_of(ws, project, models.find(ws, project, None))
    saved = Saved.to(save, predictor, background=background)
    answers = predict_files(predictor, pictures, top_k=top_k, every=every, saved=saved)
    sys.stdout.write(render(answers, as_json=json))
    return 1 if all("error" in answer for answer in answers) else 0


def up(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workspace: WorkspaceOption = None,
) -> None:
    """Start the server: REST, dashboard, watcher and loop in one process."""
    from keepsight.web.run import up as start

    with opened(workspace) as ws:
        start(ws, host=host, port=port, on_ready=lambda url: say(f"Keepsight is up: {url}"))


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8001,
    workers: Annotated[int, typer.Option(help="Processes.", min=1, max=64)] = 1,
    bundle: Annotated[
        list[str] | None, typer.Option(help="Serve NAME=FOLDER_OR_ZIP without a database.", show_default=False)
    ] = None,
    spool: Annotated[Path | None, typer.Option(help="Folder that keeps events until they are forwarded.")] = None,
    forward: Annotated[str | None, typer.Option(help="URL of the server that gets the events.")] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Start stateless servers: they answer and log, the loop runs elsewhere."""
    if bundle:
        from keepsight.serving.run import serve_bundles

        serve_bundles(bundle, host=host, port=port, workers=workers, spool=spool, forward=forward)
        return
    from keepsight.web.run import serve as start

    with opened(workspace) as ws:
        start(ws, host=host, port=port, workers=workers, on_ready=lambda url: say(f"Keepsight serves: {url}"))


def doctor(
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> int:
    """Check the workspace: database, key, blob store, audit chain, dataset versions, disk and server."""
    from keepsight.cli.checks import run_checks

    results: list[dict[str, Any]] = run_checks(workspace)
    bad = [item for item in results if item["status"] != "ok"]

    def text() -> str:
        return "\n".join(
            f"{'ok  ' if item['status'] == 'ok' else 'BAD '} {item['name']}: {item['text']}" for item in results
        )

    show({"ok": not bad, "checks": results}, as_json=json, text=text)
    return 1 if bad else 0
