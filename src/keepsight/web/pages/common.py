"""What the pages share: the workspace, checked forms, the frame of a project's page, redirects with a message."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from keepsight.data import gallery
from keepsight.errors import BadInputError
from keepsight.monitoring import alerts
from keepsight.review import queue
from keepsight.serving.bodies import read_body
from keepsight.store.workspace import Workspace
from keepsight.web import render, widgets
from keepsight.web.waiting import waiting

# A mask that was painted pixel by pixel may be long.
MAX_FORM_BYTES = 512 * 1024
MAX_FIELDS = 100
# What a column of the database can hold; a larger number in an address is a mistake there, not a fault here.
MAX_NUMBER = 2**31 - 1

# What a page says after a redirect; only these texts can be asked for.
SAID = {
    "promoted": "The model is being released; all servers have it within a second or so.",
    "rolled-back": "The model before is being released again.",
    "discarded": "The model was discarded.",
    "closed": "The alert was closed.",
    "queued": "The training run was requested; it starts in a moment.",
    "cancelled": "The run was cancelled.",
    "saved": "Saved.",
    "skipped": "Skipped.",
    "undone": "Your last answer was taken back.",
    "tagged": "The version has its tag.",
    "enrolled": "Enrolled.",
    "taken_out": "Taken out.",
}


def workspace(request: Request) -> Workspace:
    """The workspace that this server works on."""
    ws: Workspace = request.app.state.ws
    return ws


def actor(request: Request) -> str:
    """Whose name stands under what this request does."""
    return str(request.state.identity.name)


def known_project(request: Request, project: str) -> str:
    """The project of the path, if there is one of that name."""
    return workspace(request).check_project(project)


async def checked_form(request: Request) -> dict[str, str]:
    """The fields of a form that was made for this session; of a name that comes twice the last one.

    Raises:
        ForbiddenError: It was made for another one, or for none.
        BadInputError: It is longer than any form of ours.
    """
    body = await read_body(request, limit=MAX_FORM_BYTES)
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise BadInputError(
            "The form cannot be read.", expected="a form of this dashboard.", do="Load the page and try again."
        ) from None
    request.app.state.sessions.check_form(request.state.session, fields.get("form_key", ""))
    return fields


Space = Annotated[Workspace, Depends(workspace)]
Actor = Annotated[str, Depends(actor)]
Project = Annotated[str, Depends(known_project)]
Form = Annotated[dict[str, str], Depends(checked_form)]
Number = Annotated[int, Path(ge=0, le=MAX_NUMBER)]
Since = Annotated[int | None, Query(ge=0, le=MAX_NUMBER)]
Offset = Annotated[int, Query(ge=0, le=MAX_NUMBER)]


def project_page(request: Request, template: str, project: str, *, active: str, **context: Any) -> Response:
    """A page within the frame of a project: its tabs, how many pictures wait, its open alerts."""
    ws = workspace(request)
    frame = {
        "project": project,
        "projects": ws.projects(),
        "active": active,
        "waiting": queue.counts(ws, project).waiting,
        "open_alerts": len(alerts.open_alerts(ws, project)),
        "decisions": len(waiting(ws, project)),
        "has_gallery": gallery.has(ws, project),
        "veiled": widgets.veiled(ws.settings(project)["task"]),
        "said": SAID.get(request.query_params.get("said", "")),
    }
    return render.page(request, template, **{**frame, **context})


def back(path: str, *, said: str = "", **query: str) -> Response:
    """Sends the browser to a page, which says what was done."""
    asked = {**query, **({"said": said} if said else {})}
    return RedirectResponse(f"{path}?{urlencode(asked)}" if asked else path, status_code=303)


def is_htmx(request: Request) -> bool:
    """Whether htmx asks for a part of a page (and not for a whole one, as after the back button)."""
    return request.headers.get("hx-request") == "true" and request.headers.get("hx-request-type") != "full"
