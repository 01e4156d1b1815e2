"""Leases: at most one holder of a name at a time, over processes and machines.

A lease expires unless renewed, and each new holding gets a higher fence. Whoever writes under a lease writes its fence
along, so that a holder that was thought dead and comes back cannot overwrite its successor's work.
"""

from __future__ import annotations

import sqlalchemy as sa

from keepsight.errors import ConflictError
from keepsight.store import schema
from keepsight.store.database import Database, upsert


def acquire(database: Database, name: str, *, holder: str, now: float, ttl_s: float) -> int | None:
    """Takes or renews the lease for ``ttl_s`` seconds; the fence if it is held now, None if somebody else holds it."""
    with database.write() as connection:
        database.lock(connection, f"lease {name}")
        row = connection.execute(sa.select(schema.lease).where(schema.lease.c.name == name)).one_or_none()
        if row is not None and row.holder != holder and row.expires_at > now:
            return None
        fence = 1 if row is None else row.fence + (row.holder != holder or row.expires_at <= now)
        values = {"name": name, "holder": holder, "fence": fence, "expires_at": now + ttl_s}
        upsert(connection, schema.lease, [values])
    return int(fence)


def release(database: Database, name: str, *, holder: str, now: float) -> None:
    """Gives the lease back at once, if ``holder`` has it."""
    with database.write() as connection:
        connection.execute(
            sa.update(schema.lease)
            .where(schema.lease.c.name == name, schema.lease.c.holder == holder)
            .values(expires_at=now)
        )


def holder_of(database: Database, name: str, *, now: float) -> str | None:
    """Who holds the lease, or None."""
    with database.read() as connection:
        return connection.scalar(
            sa.select(schema.lease.c.holder).where(schema.lease.c.name == name, schema.lease.c.expires_at > now)
        )


def check(database: Database, *, name: str, holder: str, fence: int, now: float) -> None:
    """Makes sure that this holding of the lease lasts; called right before something is written under it.

    Raises:
        ConflictError: It ran out, or somebody else holds the lease.
    """
    with database.read() as connection:
        row = connection.execute(sa.select(schema.lease).where(schema.lease.c.name == name)).one_or_none()
    if row is None or (row.holder, row.fence) != (holder, fence) or row.expires_at <= now:
        raise ConflictError(
            f"The lease {name} was lost.",
            expected=f"{holder} to hold it.",
            do="Nothing: whoever holds it now does the work again.",
        )
