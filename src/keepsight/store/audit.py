"""The append-only, hash-chained record of who did what.

Each row holds the hash of the one before; a row that was changed, removed or slipped in breaks the chain at a place
that ``verify`` names. Rows are written in the transaction of the change they record.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepsight.errors import IntegrityError
from keepsight.store import schema
from keepsight.store.database import Database

GENESIS = "0" * 64

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: one text for equal values."""
    return _encode(value).encode()


def append(
    database: Database,
    connection: Connection,
    *,
    actor: str,
    action: str,
    target: str,
    now: float,
    detail: dict[str, Any] | None = None,
) -> None:
    """Adds one record to the chain within the caller's truth transaction.

    ``actor`` is a token's name, an account or the OS user; ``action`` a verb such as ``model.promote``.
    """
    database.lock(connection, "audit")
    last = connection.execute(
        sa.select(schema.audit.c.seq, schema.audit.c.hash).order_by(schema.audit.c.seq.desc()).limit(1)
    ).one_or_none()
    row: dict[str, Any] = {
        "seq": 1 if last is None else last.seq + 1,
        "at": now,
        "actor": actor,
        "action": action,
        "target": target,
        "detail": detail or {},
        "previous_hash": GENESIS if last is None else last.hash,
    }
    row["hash"] = _hash(row)
    connection.execute(sa.insert(schema.audit).values(row))


def newest(database: Database, *, limit: int = 50) -> list[dict[str, Any]]:
    """The newest records, newest first."""
    with database.read() as connection:
        query = sa.select(schema.audit).order_by(schema.audit.c.seq.desc()).limit(limit)
        return [dict(row) for row in connection.execute(query).mappings()]


def verify(database: Database) -> int:
    """How many records the chain has, all of them checked.

    Raises:
        IntegrityError: The chain is broken; ``details["seq"]`` is the first wrong record.
    """
    previous, count = GENESIS, 0
    with database.read() as connection:
        for row in connection.execute(sa.select(schema.audit).order_by(schema.audit.c.seq)).mappings():
            if row["seq"] != count + 1 or row["previous_hash"] != previous or row["hash"] != _hash(dict(row)):
                raise IntegrityError(
                    f"The audit record {row['seq']} does not continue the chain.",
                    expected=f"record {count + 1}, unchanged since it was written.",
                    do="Compare with a backup: somebody changed the audit table by hand.",
                    seq=row["seq"],
                )
            previous, count = row["hash"], count + 1
    return count


def _hash(row: dict[str, Any]) -> str:
    content = {name: row[name] for name in ("seq", "at", "actor", "action", "target", "detail", "previous_hash")}
    return hashlib.sha256(canonical(content)).hexdigest()
