"""Turns templates into responses: one environment, escaped, with the words that pages use for figures."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, FunctionLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from keepsight.web import widgets

HERE = Path(__file__).resolve().parent
STATIC = HERE / "static"
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> Response:
    """The page of a template."""
    return HTMLResponse(text(request, template, **context), status_code=status)


def text(request: Request, template: str, **context: Any) -> str:
    """A template's HTML; ``request`` and the session's form key are known to every template."""
    state = request.state
    shared = {
        "request": request,
        "form_key": request.app.state.sessions.form_key(state.session),
        "identity": getattr(state, "identity", None),
        # Buttons that the signed-in person may not use are not shown; the guard decides, whatever a page shows.
        "operator": may_operate(state),
        "now": request.app.state.ws.clock(),
    }
    return environment().get_template(template).render({**shared, **context})


def may_operate(state: Any) -> bool:
    """Whether who sends this request may change more than the review queue."""
    identity = getattr(state, "identity", None)
    return identity is not None and identity.may("operate")


@cache
def environment() -> Environment:
    """The Jinja environment: everything escaped, an unknown name is an error."""
    made = Environment(
        loader=ChoiceLoader(
            [FileSystemLoader(HERE / "templates"), PrefixLoader({"widgets": FunctionLoader(_widget_template)})]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=percent, ago=ago, when=when, duration=duration, number=number, euro=euro, ms=ms, megabytes=megabytes
    )
    made.filters["codes"] = codes
    made.globals.update(static=static, plural=plural)
    return made


@cache
def static(name: str) -> str:
    """Address of a file of ours or of a widget, with its digest, so that browsers keep it until it changes."""
    folder, _, rest = name.rpartition("/")
    path = widgets.file(*rest.split(".", 1)) if folder == "widgets" else STATIC / name
    if path is None:
        raise RuntimeError(f"there is no {name}")  # a page asks for what `widgets.script` named
    return f"/static/{name}?v={hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def _widget_template(name: str) -> tuple[str, str, None] | None:
    path = widgets.file(name.removesuffix(".html"), "html")
    return None if path is None else (path.read_text(encoding="utf-8"), str(path), None)


def codes(told: str) -> Markup:
    """A text whose commands, set between backticks, look like commands."""
    parts = told.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def percent(share: float | None, digits: int = 0) -> str:
    """A share as people read it: 0.94 -> "94 %" with a space that does not break."""
    return "–" if share is None else f"{100 * share:.{digits}f}\u00a0%"


def number(value: float | None) -> str:
    """A count with thin spaces between thousands."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def euro(value: float | None) -> str:
    """An amount; small ones with the digits that tell them from nothing."""
    if value is None:
        return "–"
    return f"{value:.2f}\u00a0€" if value >= 0.1 or value == 0 else f"{value:.4f}\u00a0€"


def megabytes(size_bytes: float | None) -> str:
    """A file's size in megabytes."""
    return "–" if size_bytes is None else f"{size_bytes / 1e6:.1f}\u00a0MB"


def ms(value: float | None) -> str:
    """Milliseconds, with a digit more where few."""
    if value is None:
        return "–"
    return f"{value:.1f}\u00a0ms" if value < 10 else f"{value:.0f}\u00a0ms"


def when(at: float | None) -> str:
    """A time for people, in UTC."""
    return "–" if at is None else datetime.fromtimestamp(at, UTC).strftime("%-d %b %Y, %H:%M UTC")


def ago(at: float | None, now: float | None = None) -> str:
    """How long ago a time was, in one unit."""
    if at is None:
        return "never"
    seconds = (time.time() if now is None else now) - at
    for unit, length in (("day", DAY_S), ("hour", HOUR_S), ("minute", MINUTE_S)):
        if seconds >= length:
            return f"{plural(int(seconds // length), unit)} ago"
    return "just now"


def duration(seconds: float | None) -> str:
    """A length of time, in the units that fit."""
    if seconds is None:
        return "–"
    if seconds < MINUTE_S:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    large, unit, small, of = (MINUTE_S, "min", 1, "s") if seconds < HOUR_S else (HOUR_S, "h", MINUTE_S, "min")
    whole, rest = divmod(int(seconds), large)
    return f"{whole} {unit}" + (f" {rest // small} {of}" if rest // small else "")


def plural(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun: "1 picture", "3 pictures"."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def with_headers(response: Response, headers: Mapping[str, str]) -> Response:
    """The response with further headers."""
    response.headers.update(headers)
    return response
