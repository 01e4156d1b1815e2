"""What every response carries: security headers, and for pages the session cookie that forms are bound to."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keepsight.web.session import COOKIE, Sessions

# No inline script, no inline style, no eval, nothing from elsewhere. `data:` is for Pico's own icons.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class SecurityHeaders:
    """ASGI middleware: the headers above on every response, and how long a response may be kept."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", _cache_control(scope))
            await send(message)

        await self.app(scope, receive, add)


class SessionCookie:
    """ASGI middleware: ``request.state.session``, from the cookie or new; pages send a new one along."""

    def __init__(self, app: ASGIApp, *, sessions: Sessions) -> None:
        self.app = app
        self.sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Starlette's reading passes over what it cannot read, as browsers do: another program at this address may have
        # set a cookie that Python's own would stop at.
        cookies = cookie_parser("; ".join(Headers(scope=scope).getlist("cookie")))
        session = self.sessions.read(cookies[COOKIE]) if COOKIE in cookies else None
        fresh = session is None
        state = scope.setdefault("state", {})
        state["session"] = self.sessions.begin() if session is None else session

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start" and fresh:
                headers = MutableHeaders(scope=message)
                replaced = any(value.startswith(f"{COOKIE}=") for value in headers.getlist("set-cookie"))
                if headers.get("content-type", "").startswith("text/html") and not replaced:
                    secure = scope.get("scheme") == "https"
                    headers.append("set-cookie", self.sessions.header(state["session"], secure=secure))
            await send(message)

        await self.app(scope, receive, add)


def _cache_control(scope: Scope) -> str:
    if scope["path"].startswith("/static/"):
        # The address of a file of ours holds its digest, so a new release has new addresses.
        return "public, max-age=31536000, immutable" if scope["query_string"].startswith(b"v=") else "no-cache"
    return "private, no-cache"
