"""Proof that the versions of a data set are what was committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepsight.data import rows
from keepsight.data.rows import annotation_leaf, membership_leaf
from keepsight.errors import IntegrityError
from keepsight.store import audit, schema
from keepsight.store.workspace import Workspace

ERASE_ACTION = "picture.erase"

_LEAF_OF = {schema.membership: membership_leaf, schema.annotation: annotation_leaf}


def check(ws: Workspace, project: str, digests: Mapping[int, str]) -> None:
    """Checks versions (number to digest) from their rows up: content, leaves and digest.

    An erased row is taken at its leaf if the audit chain has its erasure.

    Raises:
        IntegrityError: Something was changed behind Keepsight's back; ``details`` name the first wrong row or version.
    """
    audit.verify(ws.database)
    with ws.database.read() as connection:
        erased = set(connection.scalars(sa.select(schema.audit.c.target).where(schema.audit.c.action == ERASE_ACTION)))
        entries = [*_checked_rows(connection, project, erased)]
    for number, digest in digests.items():
        leaves = sorted(
            (sample_id, kind, leaf)
            for sample_id, kind, leaf, added, removed in entries
            if added <= number and (not removed or removed > number)
        )
        if rows.merkle_root(leaf for _, _, leaf in leaves) != digest:
            raise IntegrityError(
                f"Version {number} of {project} does not have the rows it was committed with.",
                expected=f"rows whose digest is {digest[:12]}.",
                do="Compare with a backup: somebody added, removed or renumbered rows by hand.",
                version=number,
            )


def _checked_rows(
    connection: Connection, project: str, erased: set[str]
) -> Iterator[tuple[str, int, str, int, int | None]]:
    """(sample id, kind, leaf, added in, removed in) of all committed rows, each compared with its leaf."""
    samples = {rows.sample_id(project, picture_id) for picture_id in erased}
    for kind, (table, leaf_of) in enumerate(_LEAF_OF.items()):
        query = sa.select(table, rows.erased(table).label("gone")).where(
            table.c.project_id == project, table.c.added_in.is_not(None)
        )
        for row in connection.execute(query.order_by(table.c.seq)).mappings():
            right = row["sample_id"] in samples if row["gone"] else leaf_of(row) == row["leaf"]
            if not right:
                raise IntegrityError(
                    f"The {table.name} row {row['seq']} of {project} (sample {row['sample_id'][:12]}) was changed.",
                    expected="an erasure in the audit trail." if row["gone"] else f"content of {row['leaf'][:12]}.",
                    do="Compare with a backup: somebody changed this row by hand.",
                    table=table.name,
                    row=row["seq"],
                    sample=row["sample_id"],
                )
            yield row["sample_id"], kind, row["leaf"], row["added_in"], row["removed_in"]
