"""The transactional database: three SQLite files or three PostgreSQL schemas behind the same calls.

Logic is written once against SQLAlchemy Core; the two small dialects below differ in how an area is opened, how a write
begins and how an error is told.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from keepsight.errors import SettingsError, StorageError
from keepsight.store import schema

SQLITE_FILES = {"truth": "keepsight.db", "events": "events.db", "derived": "derived.db"}
BUSY_TIMEOUT_MS = 30_000
# SQLite tells a full disk in several ways, an input/output error among them.
FULL_BYTES = 1 << 20


class Database:
    """Connections to the three areas.

    Args:
        url: A PostgreSQL URL, or None for SQLite files in ``folder``.
        folder: The workspace folder.
        durable: Whether a committed event has reached the disk when the call returns (``synchronous=FULL``).

    Raises:
        SettingsError: The URL is of another database.
        StorageError: The files or the server cannot be reached.
    """

    def __init__(self, folder: Path, *, url: str | None = None, durable: bool = True) -> None:
        self.folder = folder
        self.url = url
        if url is None:
            self.dialect = "sqlite"
            self._engines = {
                area: _open_sqlite(folder / name, durable=durable or area == "truth")
                for area, name in SQLITE_FILES.items()
            }
            self._readers = self._engines
        else:
            self.dialect = "postgresql"
            engine = _open_postgresql(url)
            self._engines = dict.fromkeys(schema.AREAS, engine)
            # SQLite's readers see one snapshot anyway.
            snapshot = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._readers = dict.fromkeys(schema.AREAS, snapshot)

    @contextmanager
    def read(self, area: str = "truth") -> Iterator[Connection]:
        """A connection that sees one snapshot of an area."""
        with _told(self), self._readers[area].connect() as connection:
            yield connection

    @contextmanager
    def write(self, area: str = "truth") -> Iterator[Connection]:
        """A short write transaction: committed at the end of the block, rolled back on an error.

        On SQLite the write lock is taken at once, so that two writers queue instead of failing half-way.
        """
        with _told(self), self._engines[area].connect() as plain:
            connection = plain.execution_options(keepsight_write=True)
            with connection.begin():
                yield connection

    def engine(self, area: str) -> Engine:
        """The engine of an area, for migrations."""
        return self._engines[area]

    def lock(self, connection: Connection, name: str) -> None:
        """Serialises the writers that name the same lock until the transaction ends.

        SQLite's write lock does that already; PostgreSQL takes an advisory lock.
        """
        if self.dialect == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(name))))

    def checkpoint(self) -> None:
        """Empties SQLite's write-ahead logs, so that overwritten content does not linger in them.

        Readers that are at work keep theirs until the next time. PostgreSQL's own vacuum does the same there.
        """
        if self.dialect == "sqlite":
            for engine in self._engines.values():
                with closing(engine.raw_connection()) as connection:
                    connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Closes all connections."""
        for engine in self._engines.values():
            engine.dispose()


def insert_ignore(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts the rows that are not there yet, by any unique key."""
    if not rows:
        return
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    connection.execute(insert(table).on_conflict_do_nothing(), list(rows))


def upsert(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts the rows, or replaces the other columns where the primary key is there already."""
    if not rows:
        return
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    changes = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes), list(rows))


def _open_sqlite(path: Path, *, durable: bool) -> Engine:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The folder {path.parent} cannot be made: {error.strerror}.",
            expected="a folder that can be written.",
            do="Choose another place for the workspace, or change its permissions.",
        ) from None
    engine = sa.create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False, "isolation_level": None},
        pool_size=20,
        max_overflow=40,
    ).execution_options(schema_translate_map={metadata.schema: None for metadata in schema.AREAS.values()})

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("PRAGMA cache_size=-32000")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("keepsight_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _open_postgresql(url: str) -> Engine:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise SettingsError(
            f"`database` names a {parsed.get_backend_name()} database.",
            expected="a URL such as postgresql://user@host/name, or nothing for SQLite.",
            do="Correct `database` in keepsight.yaml.",
        )
    return sa.create_engine(parsed.set(drivername="postgresql+psycopg"), pool_size=20, pool_pre_ping=True)


@contextmanager
def _told(database: Database) -> Iterator[None]:
    """Turns the driver's troubles that a user can mend into a StorageError."""
    try:
        yield
    except sa.exc.OperationalError as error:
        raise StorageError(
            f"The database answered: {str(error.orig).strip()}.",
            expected="a database that can be read and written.",
            do=_advice(str(error.orig), database),
        ) from error


def _advice(message: str, database: Database) -> str:
    text = message.lower()
    place = str(database.folder) if database.url is None else "the PostgreSQL server"
    full = database.url is None and shutil.disk_usage(database.folder).free < FULL_BYTES
    if full or "full" in text or "no space" in text:
        return f"Make room on the disk of {place}; nothing that was confirmed is lost."
    if "readonly" in text or "read-only" in text or "unable to open" in text:
        return f"Give the user that runs Keepsight write access to {place}."
    if "locked" in text:
        return "Another program holds the database; try again, or stop it."
    return f"Check that {place} is there and can be reached."
