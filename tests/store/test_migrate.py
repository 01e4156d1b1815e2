"""Migrations: the scripts make exactly the tables of the schema, once, and never touch a newer database."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from keepsight.errors import ConflictError
from keepsight.store import migrate, schema
from keepsight.store.workspace import Workspace


@pytest.mark.parametrize("area", schema.AREAS)
def test_scripts_and_schema_agree(workspace: Workspace, area: str) -> None:
    assert migrate.current(workspace.database, area) == migrate.head(area)
    metadata = schema.AREAS[area]
    with workspace.database.read(area) as connection:
        inspector = sa.inspect(connection)
        place = metadata.schema if workspace.database.dialect == "postgresql" else None
        for table in metadata.sorted_tables:
            found = {column["name"]: column["nullable"] for column in inspector.get_columns(table.name, schema=place)}
            assert found == {column.name: column.nullable for column in table.columns}
            names = {index["name"] for index in inspector.get_indexes(table.name, schema=place)}
            assert {index.name for index in table.indexes} <= names


def test_alembic_finds_nothing_to_change_on_postgresql(workspace: Workspace) -> None:
    if workspace.database.dialect == "sqlite":
        return  # it knows no schemas there; the test above compares columns and indexes
    for area, metadata in schema.AREAS.items():

        def mine(name: str | None, kind: str, _parents: object, wanted: str | None = metadata.schema) -> bool:
            return name == wanted if kind == "schema" else name != "schema_version"

        with workspace.database.read(area) as connection:
            options = {"include_schemas": True, "include_name": mine, "compare_type": True}
            context = MigrationContext.configure(connection.execution_options(schema_translate_map={}), opts=options)
            assert compare_metadata(context, metadata) == []


def test_a_second_upgrade_changes_nothing(workspace: Workspace) -> None:
    migrate.upgrade(workspace.database)
    migrate.verify(workspace.database)


@pytest.mark.parametrize(("number", "advice"), [("9999", "Upgrade Keepsight"), ("0000", "migrates by itself")])
def test_other_numbers_are_told(workspace: Workspace, number: str, advice: str) -> None:
    table = "schema_version" if workspace.database.dialect == "sqlite" else "keepsight_events.schema_version"
    with workspace.database.write("events") as connection:
        connection.execute(sa.text(f"UPDATE {table} SET version_num = '{number}'"))
    with pytest.raises(ConflictError, match=advice) as caught:
        migrate.verify(workspace.database)
    assert caught.value.details["area"] == "events"
    if number == "9999":
        with pytest.raises(ConflictError):
            Workspace.open(workspace.config.root, environment={})
