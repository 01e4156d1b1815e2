"""Who may do what: Host and cross-site checks, tokens and scopes, before any route runs.

A server on a loopback address with no token made yet lets the person at the machine in, under the name that the
operating system knows. As soon as there is a token, every request needs one. Another address needs one from the start.
"""

from __future__ import annotations

import getpass
import hashlib
import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from keepsight.errors import ForbiddenError, KeepsightError, SettingsError, UnauthorizedError
from keepsight.serving.problems import Render, error_response

TOKEN_VARIABLE = "KEEPSIGHT_TOKEN"  # noqa: S105 - the name of a variable
ALL_SCOPES = ("predict", "review", "operate")

OPEN = "open"
ANY = "any"

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Identity:
    """Who sends a request: a token's name, an account or the user of this machine; ``local`` tells the last."""

    name: str
    scopes: tuple[str, ...]
    local: bool = False

    def may(self, scope: str) -> bool:
        """Whether the scopes cover ``scope``; ``operate`` covers everything."""
        return scope in (OPEN, ANY) or scope in self.scopes or "operate" in self.scopes


class TokenSource(Protocol):
    """Where tokens are looked up."""

    async def find(self, secret: str) -> Identity | None:
        """Whose token this is; None if it is not valid."""

    async def exist(self) -> bool:
        """Whether there is any token."""


@dataclass(frozen=True)
class Rule:
    """What a path needs: a scope, ``OPEN`` (nothing) or ``ANY`` (any valid identity). ``methods`` empty: all."""

    path: re.Pattern[str]
    scope: str
    methods: tuple[str, ...] = ()


def rule(path: str, scope: str, *methods: str) -> Rule:
    """A rule for the paths that match the whole regular expression ``path``."""
    return Rule(re.compile(path), scope, methods)


# Orchestrators ask these by address and without a token; they tell nothing else than that.
PROBES = ("/healthz", "/readyz")

# The first rule that fits counts; what no rule names needs `operate`.
SERVING_RULES: tuple[Rule, ...] = (
    rule(r"/v1/[^/]+/(predict|predict-video|feedback|events)", "predict", "POST"),
    rule(r"/openapi\.json", ANY),
)
METRICS_RULE = rule(r"/metrics", ANY)
METRICS_OPEN_RULE = rule(r"/metrics", OPEN)

Authenticate = Callable[[Request], Awaitable[Identity | None]]


class EnvironmentTokens:
    """Tokens for a server without a database, from ``KEEPSIGHT_TOKEN``.

    The variable holds one or more tokens with commas between, each the secret itself or ``sha256:`` and its hash in
    hex. All have the scope ``predict``.

    Raises:
        SettingsError: A token is shorter than 16 characters.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._hashes: dict[str, str] = {}
        entries = [item.strip() for item in environment.get(TOKEN_VARIABLE, "").split(",") if item.strip()]
        for number, entry in enumerate(entries, start=1):
            if not _HASH.fullmatch(entry) and len(entry) < 16:
                raise SettingsError(
                    f"Token {number} in {TOKEN_VARIABLE} has {len(entry)} characters.",
                    expected="at least 16, or sha256: and 64 hex digits.",
                    do='Make one with `python -c "import secrets; print(secrets.token_urlsafe(32))"`.',
                )
            digest = entry[7:] if _HASH.fullmatch(entry) else _sha256(entry)
            self._hashes[digest] = f"token {number}"

    @property
    def any(self) -> bool:
        """Whether the variable holds a token."""
        return bool(self._hashes)

    async def find(self, secret: str) -> Identity | None:
        """Whose token this is."""
        name = self._hashes.get(_sha256(secret))
        return None if name is None else Identity(name, ("predict",))

    async def exist(self) -> bool:
        """Whether there is any token."""
        return self.any


class Guard:
    """The rules of one server.

    Args:
        tokens: Where tokens are looked up.
        host: The address that the server binds.
        hosts: Names that requests may give in their Host header; empty: on a loopback address its names, else any.
        rules: What further paths need, after ``SERVING_RULES``.
        authenticate: Who a cookie stands for, asked where a request carries one and no token.
        render: How refusals look.
    """

    def __init__(
        self,
        tokens: TokenSource,
        *,
        host: str = "127.0.0.1",
        hosts: Sequence[str] = (),
        rules: Sequence[Rule] = (),
        authenticate: Authenticate | None = None,
        render: Render = error_response,
    ) -> None:
        self.loopback = is_loopback(host)
        self.authenticate = authenticate
        self.render = render
        self.rules: tuple[Rule, ...] = (
            *SERVING_RULES,
            METRICS_OPEN_RULE if self.loopback else METRICS_RULE,
            *rules,
        )
        self._tokens = tokens
        self._hosts = frozenset(name.lower() for name in hosts)
        if self.loopback and not hosts:
            self._hosts = frozenset({"localhost", "127.0.0.1", "[::1]", host.lower()})
        self._local_name = getpass.getuser() if self.loopback else ""

    def scope_of(self, method: str, path: str) -> str:
        """What a request needs."""
        for item in self.rules:
            if (not item.methods or method in item.methods) and item.path.fullmatch(path):
                return item.scope
        return "operate"

    async def identify(self, request: Request) -> Identity | None:
        """Who sends this request; None for a stranger.

        Raises:
            UnauthorizedError: There is a token, but it is not valid.
        """
        given = request.headers.get("authorization")
        if given is not None:
            scheme, _, secret = given.partition(" ")
            found = await self._tokens.find(secret.strip()) if scheme.lower() == "bearer" else None
            if found is None:
                raise UnauthorizedError(
                    "The token is not valid.",
                    expected="`Authorization: Bearer ks_...` with a token that was not revoked.",
                    do="Make one with `keepsight token create NAME --scope predict`.",
                )
            return found
        if self.authenticate is not None and "cookie" in request.headers:
            known = await self.authenticate(request)
            if known is not None:
                return known
        if self.loopback and not _forwarded(request) and not await self._tokens.exist():
            return Identity(self._local_name, ALL_SCOPES, local=True)
        return None

    async def check(self, request: Request) -> Identity | None:
        """Lets a request pass, with who sends it (None only where the path is open).

        Raises:
            ForbiddenError: A foreign Host, a foreign site, or a scope that is missing.
            UnauthorizedError: Nobody known, and the path needs somebody.
        """
        path = request.scope["path"]
        if path in PROBES:
            return None
        needed = self.scope_of(request.method, path)
        self._check_host(request)
        _check_site(request)
        identity = await self.identify(request)
        if identity is None:
            if needed == OPEN:
                return None
            raise UnauthorizedError(
                "The request carries no token.",
                expected="`Authorization: Bearer ks_...`.",
                do="Make a token with `keepsight token create NAME`, and send it along.",
            )
        if not identity.may(needed):
            raise ForbiddenError(
                f"{identity.name} has the scopes {', '.join(identity.scopes)}.",
                expected=f"the scope {needed}.",
                do=f"Use a token with it: `keepsight token create NAME --scope {needed}`.",
                scope=needed,
            )
        return identity

    def _check_host(self, request: Request) -> None:
        if not self._hosts:
            return
        given = request.headers.get("host", "").lower()
        name = given.rsplit(":", 1)[0] if not given.endswith("]") else given
        if given not in self._hosts and name not in self._hosts:
            # A web page whose name was made to point at this machine would come with its own name (DNS rebinding).
            raise ForbiddenError(
                f'The request is addressed to "{given[:100]}".',
                expected="one of " + ", ".join(sorted(self._hosts)) + ".",
                do="Use one of these names in the URL.",
            )


class GuardMiddleware:
    """Puts a guard before an ASGI application; the identity goes into ``request.state.identity``."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers refused requests itself."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            identity = await self._guard.check(request)
        except KeepsightError as error:
            await self._guard.render(request, error)(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        state["identity"] = identity
        await self._app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name other than ``localhost`` counts as reachable."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_bind(host: str, *, have_token: bool) -> None:
    """Refuses to listen to the network while anybody could use the server.

    Raises:
        ForbiddenError: The address is not loopback and there is no token.
    """
    if not have_token and not is_loopback(host):
        raise ForbiddenError(
            f"The server would listen on {host} with no token made yet, so anybody could use it.",
            expected="a token, or an address of this machine alone (127.0.0.1).",
            do=f"Make one with `keepsight token create NAME`, or set {TOKEN_VARIABLE} where there is no database.",
        )


def _forwarded(request: Request) -> bool:
    """Whether a proxy passed the request on: then the sender is not at this machine."""
    return any(name in request.headers for name in ("x-forwarded-for", "x-forwarded-host", "forwarded", "x-real-ip"))


def _check_site(request: Request) -> None:
    """Refuses what a page of another site makes a browser send (CSRF), by the headers that pages cannot forge."""
    site = request.headers.get("sec-fetch-site")
    unsafe = request.method not in _SAFE
    if site is not None:
        # A link on another site may open a page here; it may not embed our pictures or send anything.
        embedded = request.headers.get("sec-fetch-mode") != "navigate"
        foreign = site not in ("same-origin", "none") and (unsafe or (site == "cross-site" and embedded))
    else:
        origin = request.headers.get("origin")
        foreign = unsafe and origin is not None and origin.lower().partition("://")[2] != _own_name(request)
    if foreign:
        raise ForbiddenError(
            "The request comes from a page of another site.",
            expected="requests from Keepsight's own pages, or from a program.",
            do="Open Keepsight's own address; from your own web application, call Keepsight on the server side.",
        )


def _own_name(request: Request) -> str:
    return request.headers.get("host", "").lower()


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
