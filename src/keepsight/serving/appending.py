"""Inserting events into SQLite by one prepared statement, at half the processor time of a general insert.

The writer of events runs beside the threads that compute pictures; what it spends is taken from them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from keepsight.serving.events import Event
from keepsight.store import schema
from keepsight.store.database import Database


class EventInsert:
    """The insert of an event, put together once.

    Args:
        database: Of SQLite files.
    """

    def __init__(self, database: Database) -> None:
        dialect = database.engine("events").dialect
        compiled = (
            sqlite.insert(schema.event)
            .on_conflict_do_nothing()
            .compile(
                dialect=dialect,
                column_keys=list(Event.__dataclass_fields__),
                schema_translate_map={metadata.schema: None for metadata in schema.AREAS.values()},
                render_schema_translate=True,
            )
        )
        self._statement = str(compiled)
        order: Sequence[str] = getattr(compiled, "positiontup")  # noqa: B009 - not in SQLAlchemy's types
        self._columns: list[tuple[str, Callable[[Any], Any] | None]] = [
            (name, schema.event.c[name].type.bind_processor(dialect)) for name in order
        ]

    def __call__(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Inserts the events that are not there yet.

        Raises:
            StatementError: SQLAlchemy's, as its own inserts raise it.
        """
        rows = [self._row(event) for event in events]
        try:
            # The driver's own cursor: SQLAlchemy's way to it takes several times as long as the insert.
            connection.connection.cursor().executemany(self._statement, rows)
        except sqlite3.Error as error:
            raise sa.exc.DBAPIError.instance(self._statement, None, error, sqlite3.Error) from error

    def _row(self, event: Event) -> tuple[Any, ...]:
        values = event.row()
        return tuple(values[name] if bind is None else bind(values[name]) for name, bind in self._columns)
