"""``/login`` and ``/logout``: into the dashboard with a token, and out."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from keepsight.errors import KeepsightError
from keepsight.web import render
from keepsight.web.pages.common import Form
from keepsight.web.session import Session, Sessions

router = APIRouter(include_in_schema=False)


@router.get("/login")
def login_page(request: Request, next: str = "/") -> Response:
    """Asks for a token."""
    return render.page(request, "login.html", to=_own_path(next), error=None)


@router.post("/login")
def login(request: Request, form: Form) -> Response:
    """Starts a session of the token's holder."""
    sessions: Sessions = request.app.state.sessions
    to = _own_path(form.get("to", "/"))
    try:
        session = sessions.login(form.get("token", ""))
    except KeepsightError as error:
        return render.page(request, "login.html", status=error.status, to=to, error=error)
    return _with_cookie(request, RedirectResponse(to, status_code=303), session)


@router.post("/logout")
def logout(request: Request, form: Form) -> Response:  # noqa: ARG001 - the form's key was checked
    """Ends the session."""
    sessions: Sessions = request.app.state.sessions
    return _with_cookie(request, RedirectResponse("/login", status_code=303), sessions.begin())


def _with_cookie(request: Request, response: Response, session: Session) -> Response:
    sessions: Sessions = request.app.state.sessions
    response.headers.append("set-cookie", sessions.header(session, secure=request.url.scheme == "https"))
    return response


def _own_path(path: str) -> str:
    """The path, if it is one of this server; else the overview. An address elsewhere would be an open redirect."""
    own = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if own and path.isprintable() else "/"
