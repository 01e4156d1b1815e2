"""Who uses the dashboard: a signed cookie after login with a token, and the secret that binds forms to it.

The cookie holds no right by itself: it names a token, which is looked up on every request, so that revoking the token
ends the session. A forged form fails twice: the cookie is SameSite=Strict, and each form carries a value that only
pages sent to this very session hold.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, replace
from http.cookies import SimpleCookie

from keepsight.errors import ForbiddenError, UnauthorizedError
from keepsight.store import tokens
from keepsight.store.workspace import Workspace

COOKIE = "keepsight_session"
LIFETIME_S = 12 * 3600
TOKEN_CACHE_S = 2.0


@dataclass(frozen=True)
class Session:
    """One browser; ``token_id`` is None where nobody logged in (on loopback the OS user is in without)."""

    nonce: str
    token_id: str | None
    expires_at: float


class Sessions:
    """Makes and checks session cookies with the workspace key."""

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._known: dict[str, tuple[float, tokens.Token | None]] = {}

    def begin(self) -> Session:
        """A new session of nobody."""
        return Session(secrets.token_urlsafe(18), None, self._ws.clock() + LIFETIME_S)

    def login(self, secret: str) -> Session:
        """A new session of the token's holder.

        Raises:
            UnauthorizedError: No valid token has this secret. ForbiddenError: It may only send pictures.
        """
        token = tokens.find(self._ws.database, secret.strip())
        if token is None:
            raise UnauthorizedError(
                "This is no valid token.",
                expected="a token that was made with `keepsight token create` and not revoked.",
                do="Copy the whole token, or ask the person who runs Keepsight for one.",
            )
        if not {"review", "operate"} & set(token.scopes):
            raise ForbiddenError(
                f'The token "{token.name}" may only send pictures.',
                expected="a token with the scope review or operate.",
                do="Ask the person who runs Keepsight for one.",
            )
        return replace(self.begin(), token_id=token.id)

    def token(self, session: Session) -> tokens.Token | None:
        """The valid token of a session, or None; a revoked one is noticed within two seconds."""
        if session.token_id is None:
            return None
        now = self._ws.clock()
        at, found = self._known.get(session.token_id, (0.0, None))
        if not 0 <= now - at < TOKEN_CACHE_S:
            valid = tokens.valid_tokens(self._ws.database)
            found = next((token for token in valid if token.id == session.token_id), None)
            self._known[session.token_id] = (now, found)
        return found

    def read(self, cookie: str) -> Session | None:
        """The session of a cookie, or None where it is not ours, was changed or has run out."""
        text, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(self._sign(text).encode(), signature.encode()):
            return None
        nonce, token_id, expires = text.split(".")
        session = Session(nonce, token_id or None, float(int(expires)))
        return session if session.expires_at > self._ws.clock() else None

    def header(self, session: Session, *, secure: bool) -> str:
        """The value of the ``Set-Cookie`` header."""
        text = f"{session.nonce}.{session.token_id or ''}.{int(session.expires_at)}"
        jar = SimpleCookie({COOKIE: f"{text}.{self._sign(text)}"})
        morsel = jar[COOKIE]
        morsel["path"], morsel["max-age"] = "/", LIFETIME_S
        morsel["httponly"], morsel["samesite"], morsel["secure"] = True, "Strict", secure
        return jar[COOKIE].OutputString()

    def form_key(self, session: Session) -> str:
        """The hidden value of this session's forms."""
        return self._ws.keys.sign(f"form {session.nonce} {session.token_id or ''}".encode())

    def check_form(self, session: Session, given: str) -> None:
        """Makes sure that a form was made for this session.

        Raises:
            ForbiddenError: It was not.
        """
        if not hmac.compare_digest(self.form_key(session).encode(), given.encode()):
            raise ForbiddenError(
                "This form was not made for your session.",
                expected="a form of this dashboard, at most twelve hours old.",
                do="Load the page again and repeat what you did; nothing was changed.",
            )

    def _sign(self, text: str) -> str:
        return self._ws.keys.sign(f"session {text}".encode())
