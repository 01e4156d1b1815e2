"""Starting the platform: ``keepsight up`` (server, dashboard and loop) and ``keepsight serve`` (servers alone)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI

from keepsight.loop.leader import Leader
from keepsight.serving.database import DatabaseSink, DatabaseSource, DatabaseTokens
from keepsight.serving.run import serve as serve_http
from keepsight.store import tokens
from keepsight.store.workspace import Workspace
from keepsight.web.app import create_app

ROOT_VARIABLE = "KEEPSIGHT_SERVE_WORKSPACE"
ADDRESS_VARIABLE = "KEEPSIGHT_SERVE_ADDRESS"


def up(ws: Workspace, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serves, shows the dashboard and runs the loop in one process, until SIGINT or SIGTERM.

    Raises:
        ConflictError: Another server runs the loop of this workspace, or the port is in use.
        ForbiddenError: The address needs a token and there is none.
    """
    for project in ws.config.projects:
        ws.ensure_project(project)
    leader = Leader(ws)
    leader.start()
    try:
        serve_http(
            lambda: application(ws, host=host, port=port),
            host=host,
            port=port,
            have_token=bool(tokens.valid_tokens(ws.database)),
            on_ready=on_ready,
        )
    finally:
        left = leader.stop()
        ws.close()
        if left:
            # A step that did not heed the stop would keep the process alive; the next leader repeats it.
            os._exit(0)


def serve(ws: Workspace, *, host: str, port: int, workers: int, on_ready: Callable[[str], None]) -> None:
    """Starts stateless servers on a workspace, until SIGINT or SIGTERM; the loop runs elsewhere.

    Raises:
        ConflictError: The port is in use. ForbiddenError: The address needs a token and there is none.
    """
    for project in ws.config.projects:
        ws.ensure_project(project)
    serve_http(
        "keepsight.web.run:server_app",
        host=host,
        port=port,
        workers=workers,
        have_token=bool(tokens.valid_tokens(ws.database)),
        environment={ROOT_VARIABLE: str(ws.config.root), ADDRESS_VARIABLE: f"{host}|{port}"},
        on_ready=on_ready,
    )


def server_app() -> FastAPI:
    """The application of one stateless server, as ``serve`` describes it in the environment."""
    host, port = os.environ[ADDRESS_VARIABLE].split("|")
    return application(Workspace.open(Path(os.environ[ROOT_VARIABLE])), host=host, port=int(port))


def application(ws: Workspace, *, host: str, port: int) -> FastAPI:
    """Serving from the workspace, with REST and dashboard."""
    server_id = uuid.uuid4().hex
    threads = ws.config["machine.threads"]
    return create_app(
        ws,
        source=DatabaseSource(ws, server_id=server_id, url=f"http://{host}:{port}"),
        sink=DatabaseSink(ws),
        tokens=DatabaseTokens(ws),
        host=host,
        threads=None if threads is None else int(threads),
        server_id=server_id,
    )
