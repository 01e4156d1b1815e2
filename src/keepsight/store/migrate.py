"""Numbered migrations of the three areas, and a mode that only verifies.

Each area has a folder of Alembic scripts, ``0001_….py`` upwards. A newer database than this program knows is refused.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from keepsight.errors import ConflictError
from keepsight.store import schema
from keepsight.store.database import Database

FOLDER = Path(__file__).parent / "migrations"


def head(area: str) -> str:
    """The newest migration number that this program knows, such as ``0001``."""
    return max(path.name[:4] for path in (FOLDER / area).glob("[0-9]*.py"))


def current(database: Database, area: str) -> str | None:
    """The migration number that an area stands at; None for an empty one."""
    name = schema.AREAS[area].schema
    place = None if database.dialect == "sqlite" else name
    with database.read(area) as connection:
        if not sa.inspect(connection).has_table("schema_version", schema=place):
            return None
        table = "schema_version" if place is None else f"{place}.schema_version"
        number = connection.scalar(sa.text(f"SELECT version_num FROM {table}"))
        return None if number is None else str(number)


def verify(database: Database) -> None:
    """Makes sure that every area stands at this program's migration.

    Raises:
        ConflictError: An area is older or newer.
    """
    for area in schema.AREAS:
        stands = current(database, area)
        if stands != head(area):
            _refuse(area, stands)


def upgrade(database: Database) -> None:
    """Brings every area to this program's migration; quick where nothing is to do, safe beside other processes.

    Raises:
        ConflictError: The database was written by a newer Keepsight.
    """
    for area in schema.AREAS:
        stands = current(database, area)
        if stands == head(area):
            continue
        if stands is not None and stands > head(area):
            _refuse(area, stands)
        _run(database, area)


def _run(database: Database, area: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("version_locations", str(FOLDER / area))
    config.set_main_option("path_separator", "newline")
    config.attributes["area"] = area
    name = schema.AREAS[area].schema
    with database.write(area) as connection:
        database.lock(connection, "migrate")
        if database.dialect == "postgresql":
            connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {name}"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _refuse(area: str, stands: str | None) -> None:
    newer = stands is not None and stands > head(area)
    raise ConflictError(
        f"The {area} database stands at migration {stands or 'none'}.",
        expected=f"migration {head(area)}, which this Keepsight knows.",
        do="Upgrade Keepsight." if newer else "Open the workspace with any command; it migrates by itself.",
        area=area,
    )
