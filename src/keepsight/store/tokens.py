"""Access tokens: random, stored as a hash, limited to scopes."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from keepsight.errors import BadInputError, ConflictError, NotFoundError
from keepsight.store import audit, schema
from keepsight.store.database import Database

SCOPES = ("predict", "review", "operate")
PREFIX = "ks_"


@dataclass(frozen=True)
class Token:
    """A token as listed; the secret is shown once, when it is made."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: float


def create(database: Database, name: str, *, scopes: Sequence[str], actor: str, now: float) -> str:
    """Makes a token and returns its secret, which is not kept.

    ``predict`` may send pictures and feedback, ``review`` may answer the queue, ``operate`` may do everything.

    Raises:
        BadInputError: An unknown scope. ConflictError: The name is taken.
    """
    wrong = [scope for scope in scopes if scope not in SCOPES]
    if wrong or not scopes:
        raise BadInputError(
            f"The scopes are {', '.join(scopes) or 'none'}.",
            expected="one or more of " + ", ".join(SCOPES) + ".",
            do="Name the scopes that the token needs.",
        )
    secret = PREFIX + secrets.token_urlsafe(32)
    with database.write() as connection:
        database.lock(connection, "token")
        taken = sa.select(schema.token.c.id).where(schema.token.c.name == name)
        if connection.execute(taken).first() is not None:
            raise ConflictError(
                f'There is a token "{name}" already.', expected="a new name.", do="Choose another, or revoke that one."
            )
        connection.execute(
            sa.insert(schema.token).values(
                id=uuid.uuid4().hex,
                name=name,
                hash=_hash(secret),
                scopes=sorted(set(scopes)),
                created_at=now,
                revoked_at=None,
            )
        )
        audit.append(
            database, connection, actor=actor, action="token.create", target=name, now=now, detail={"scopes": [*scopes]}
        )
    return secret


def find(database: Database, secret: str) -> Token | None:
    """The valid token with this secret, or None."""
    with database.read() as connection:
        row = connection.execute(
            sa.select(schema.token).where(schema.token.c.hash == _hash(secret), schema.token.c.revoked_at.is_(None))
        ).one_or_none()
    return None if row is None else Token(row.id, row.name, tuple(row.scopes), row.created_at)


def valid_tokens(database: Database) -> list[Token]:
    """All tokens that are not revoked, oldest first."""
    with database.read() as connection:
        rows = connection.execute(
            sa.select(schema.token).where(schema.token.c.revoked_at.is_(None)).order_by(schema.token.c.created_at)
        ).all()
    return [Token(row.id, row.name, tuple(row.scopes), row.created_at) for row in rows]


def revoke(database: Database, name: str, *, actor: str, now: float) -> None:
    """Makes the token with this name invalid at once.

    Raises:
        NotFoundError: There is no such valid token.
    """
    names = [token.name for token in valid_tokens(database)]
    if name not in names:
        raise NotFoundError.among("token", name, names)
    with database.write() as connection:
        connection.execute(sa.update(schema.token).where(schema.token.c.name == name).values(revoked_at=now))
        audit.append(database, connection, actor=actor, action="token.revoke", target=name, now=now)


def _hash(secret: str) -> str:
    # 256 random bits need no slow hash: there is no dictionary to try.
    return hashlib.sha256(secret.encode()).hexdigest()
