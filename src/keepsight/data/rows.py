"""The versioned rows of a data set: their leaves, who is alive when, and how an edit closes one row and adds another.

**Leaf.** The sha256 (RFC 6962: over a zero byte and the content) of the canonical JSON (sorted keys, no spaces, UTF-8)
of

- a membership: ``{"group", "kind": "membership", "meta", "name", "picture", "sample", "split"}``
- an annotation: ``{"author", "kind": "annotation", "origin", "sample", "value"}``

Times and row numbers are left out: equal content has equal leaves, whenever and in whatever order it came.

**Digest of a version.** The Merkle tree hash of RFC 6962 over the leaves of the version's live rows, ordered by sample
id, a sample's membership before its annotation: an inner node is the sha256 of byte 1, its left and its right child; of
no rows it is the sha256 of nothing.

**Alive.** A row belongs to version N if ``added_in <= N`` and it was not removed in N or before. An edit marks the old
row ``REMOVAL_PENDING`` and adds a row without ``added_in``; the next commit writes its number into both. An erased row
has the split or origin ``ERASED``, no content, and the leaf it always had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from keepsight.store import schema
from keepsight.store.audit import canonical
from keepsight.store.schema import REMOVAL_PENDING
from keepsight.store.workspace import Workspace

PENDING = "pending"
ERASED = "erased"
SPLITS = ("train", "val", "test", "recent")

CHUNK = 500

T = TypeVar("T")
Row = Mapping[str, Any] | RowMapping


def sample_id(project: str, picture_id: str) -> str:
    """The id of a picture's sample in a project; the same however often it is imported."""
    return hashlib.sha256(f"{project}{picture_id}".encode()).hexdigest()[:32]


def membership_leaf(row: Row) -> str:
    """The leaf (hex) of a row of ``membership``."""
    content = {
        "group": row["group_key"],
        "kind": "membership",
        "meta": row["meta"],
        "name": row["name"],
        "picture": row["picture_id"],
        "sample": row["sample_id"],
        "split": row["split"],
    }
    return _leaf(content)


def annotation_leaf(row: Row) -> str:
    """The leaf (hex) of a row of ``annotation``."""
    content = {
        "author": row["author"],
        "kind": "annotation",
        "origin": row["origin"],
        "sample": row["sample_id"],
        "value": row["value"],
    }
    return _leaf(content)


def merkle_root(leaves: Iterable[str]) -> str:
    """The Merkle tree hash (hex) over leaves (hex) in their order."""
    level = [bytes.fromhex(leaf) for leaf in leaves]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        # An odd last node moves up unhashed, which is RFC 6962's split at the largest power of two.
        level = [
            hashlib.sha256(b"\x01" + level[at] + level[at + 1]).digest() if at + 1 < len(level) else level[at]
            for at in range(0, len(level), 2)
        ]
    return level[0].hex()


def alive(table: sa.Table, number: int | None) -> sa.ColumnElement[bool]:
    """The condition for rows of version ``number``; None means as things stand now, uncommitted edits included."""
    if number is None:
        return table.c.removed_in.is_(None)
    open_ended = table.c.removed_in.is_(None) | (table.c.removed_in == REMOVAL_PENDING)
    return (table.c.added_in <= number) & (open_ended | (table.c.removed_in > number))


def erased(table: sa.Table) -> sa.ColumnElement[bool]:
    """The condition for rows whose content was erased."""
    return (table.c.split if table is schema.membership else table.c.origin) == ERASED


def lock(ws: Workspace, connection: Connection, project: str) -> None:
    """Lets one writer at a time edit or commit a project's data, until its transaction ends."""
    ws.database.lock(connection, f"data {project}")


def current(connection: Connection, table: sa.Table, project: str, sample_ids: Sequence[str]) -> dict[str, RowMapping]:
    """The rows of these samples as things stand now, by sample id."""
    found: dict[str, RowMapping] = {}
    for part in chunks(sample_ids):
        query = sa.select(table).where(
            table.c.project_id == project, table.c.sample_id.in_(part), table.c.removed_in.is_(None)
        )
        found.update({row["sample_id"]: row for row in connection.execute(query).mappings()})
    return found


def past_splits(connection: Connection, project: str, sample_ids: Sequence[str]) -> dict[str, str]:
    """The last committed split of samples, removed ones included: what they get when they come back."""
    table = schema.membership
    found: dict[str, str] = {}
    for part in chunks(sample_ids):
        query = sa.select(table.c.sample_id, table.c.split).where(
            table.c.project_id == project,
            table.c.sample_id.in_(part),
            table.c.added_in.is_not(None),
            table.c.split.in_(SPLITS),
        )
        found.update({row.sample_id: row.split for row in connection.execute(query.order_by(table.c.seq))})
    return found


def close(connection: Connection, table: sa.Table, sequences: Sequence[int]) -> None:
    """Takes rows out of what the next commit will hold."""
    for part in chunks(sequences):
        connection.execute(sa.update(table).where(table.c.seq.in_(part)).values(removed_in=REMOVAL_PENDING))


def add_memberships(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds rows of ``membership`` (without ``seq``, ``leaf`` and versions) to what the next commit will hold."""
    _insert(connection, schema.membership, [{**row, "leaf": membership_leaf(row)} for row in rows])


def add_annotations(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """The same for ``annotation``."""
    _insert(connection, schema.annotation, [{**row, "leaf": annotation_leaf(row)} for row in rows])


def replace_membership(connection: Connection, row: Row, **changes: Any) -> None:
    """Closes a membership and adds it again with ``changes``."""
    close(connection, schema.membership, [row["seq"]])
    kept = ("project_id", "sample_id", "picture_id", "split", "group_key", "name", "meta")
    add_memberships(connection, [{**{name: row[name] for name in kept}, **changes}])


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """The items in parts, small enough for one statement's parameters."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _insert(connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(sa.insert(table), [{**row, "added_in": None, "removed_in": None} for row in rows])


def _leaf(content: dict[str, Any]) -> str:
    return hashlib.sha256(b"\x00" + canonical(content)).hexdigest()
