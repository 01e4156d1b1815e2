"""Alembic's entry: runs the migrations of one area over the connection that the caller hands in."""

from alembic import context

from keepsight.store import schema

connection = context.config.attributes["connection"]
area = context.config.attributes["area"]
sqlite = connection.dialect.name == "sqlite"
metadata = schema.AREAS[area]

context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table="schema_version",
    version_table_schema=None if sqlite else metadata.schema,
    include_schemas=not sqlite,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
