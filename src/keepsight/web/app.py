"""The whole application: serving's routes, the REST routes of the loop, and the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from keepsight.errors import KeepsightError
from keepsight.serving import app as serving
from keepsight.serving.events import EventSink, ModelSource
from keepsight.serving.guard import ANY, OPEN, Guard, Identity, Rule, TokenSource, rule
from keepsight.serving.problems import error_response
from keepsight.store.workspace import Workspace
from keepsight.web import api, galleries, render, widgets
from keepsight.web.middleware import HEADERS, SecurityHeaders, SessionCookie
from keepsight.web.pages import (
    data,
    docs,
    entry,
    gallery,
    model,
    models,
    monitor,
    overview,
    pictures,
    review,
    runs,
    settings,
)
from keepsight.web.session import Sessions

PROJECT = r"/[^/]+"
RULES: tuple[Rule, ...] = (
    rule(r"/static/.*", OPEN, "GET", "HEAD"),
    rule(r"/login", OPEN),
    rule(r"/logout|/docs", ANY),
    # All pictures at once are more than a reviewer needs.
    rule(rf"/v1{PROJECT}/versions/[^/]+/export", "operate"),
    # Whoever may send pictures may see what was answered.
    rule(rf"/v1{PROJECT}/predictions/[^/]+", ANY, "GET"),
    rule(rf"/v1{PROJECT}/review(/.*)?", "review"),
    # Staff at the door enrol; taking somebody out changes the data set.
    rule(rf"/v1{PROJECT}/gallery", "review", "POST"),
    # Not under /v1: there, this would be every route of a project that is called "review".
    rule(r"/(?!v1/)[^/]+/review(/.*)?", "review"),
    rule(r"/(?!v1/)[^/]+/gallery", "review", "POST"),
    rule(r"/(?!(healthz|readyz|metrics|openapi\.json)$).*", "review", "GET", "HEAD"),
)

# Paths that programs ask: they get their errors as JSON whatever they accept.
FOR_PROGRAMS = ("/v1/", "/healthz", "/readyz", "/metrics", "/openapi.json")


def create_app(
    ws: Workspace,
    *,
    source: ModelSource,
    sink: EventSink,
    tokens: TokenSource,
    host: str = "127.0.0.1",
    hosts: Sequence[str] = (),
    threads: int | None = None,
    server_id: str = "",
    lifespan: serving.Lifespan | None = None,
) -> FastAPI:
    """The application of a server with a workspace.

    Args:
        ws: The workspace.
        source: Where models come from.
        sink: Where events go.
        tokens: Where tokens are looked up.
        host: The address that the server binds.
        hosts: Names that requests may give in their Host header, where not those of this machine.
        threads: Pictures computed at once; None: one per core.
        server_id: Told in the metrics.
        lifespan: What else runs with the application (the loop).
    """
    sessions = Sessions(ws)

    async def by_cookie(request: Request) -> Identity | None:
        token = await run_in_threadpool(sessions.token, request.state.session)
        return None if token is None else Identity(token.name, token.scopes)

    guard = Guard(tokens, host=host, hosts=hosts, rules=RULES, authenticate=by_cookie, render=error_page)
    app = serving.create_app(
        source,
        sink,
        guard,
        threads=threads,
        server_id=server_id,
        clock=ws.clock,
        lifespan=lifespan,
        render=error_page,
    )
    app.state.ws = ws
    app.state.sessions = sessions
    # The last one added is the outermost: refusals of the guard carry the headers and the session too.
    app.add_middleware(SessionCookie, sessions=sessions)
    app.add_middleware(SecurityHeaders)
    app.include_router(api.router)
    app.include_router(galleries.router)
    app.add_api_route("/static/widgets/{name}.js", _widget_script, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=render.STATIC))
    # The overview has `/{project}`, which any other page of one segment must come before.
    for page in (entry, docs, review, data, gallery, models, model, runs, monitor, settings, pictures, overview):
        app.include_router(page.router)
    return app


def error_page(request: Request, error: KeepsightError) -> Response:
    """An error as the asker reads it: JSON for programs, a page for people, a part of one for htmx."""
    wants_page = "text/html" in request.headers.get("accept", "")
    if request.url.path.startswith(FOR_PROGRAMS) or not wants_page or not hasattr(request.state, "session"):
        return error_response(request, error)
    partial = request.headers.get("hx-request") == "true"
    if error.status == 401:
        to = request.url.path if request.method == "GET" else "/"
        login = f"/login?{urlencode({'next': to})}"
        if partial:
            return Response(status_code=204, headers={"hx-redirect": login})
        return RedirectResponse(login, status_code=303)
    if partial:
        response = render.page(request, "error_part.html", status=error.status, error=error)
        return render.with_headers(response, {"hx-retarget": "#notice", "hx-reswap": "innerHTML"})
    response = render.page(request, "error.html", status=error.status, error=error)
    # An unexpected fault is answered outside all middleware.
    return render.with_headers(response, HEADERS)


def _widget_script(name: str) -> Response:
    path = widgets.file(name, "js")
    if path is None:
        raise HTTPException(404)
    return FileResponse(path, media_type="text/javascript")
