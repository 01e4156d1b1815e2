"""The audit trail: one chain, append-only, and every forgery breaks it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from keepsight.errors import IntegrityError
from keepsight.store import audit, schema
from keepsight.store.workspace import Workspace


def write(workspace: Workspace, target: str, **detail: Any) -> None:
    with workspace.database.write() as connection:
        audit.append(
            workspace.database, connection, actor="me", action="test.do", target=target, now=12.5, detail=detail
        )


def allow_changes(workspace: Workspace) -> None:
    """What somebody with the database's password could do."""
    with workspace.database.write() as connection:
        if workspace.database.dialect == "sqlite":
            connection.execute(sa.text("DROP TRIGGER audit_no_update"))
            connection.execute(sa.text("DROP TRIGGER audit_no_delete"))
        else:
            connection.execute(sa.text("DROP TRIGGER audit_append_only ON keepsight.audit"))


def test_records_form_a_chain(workspace: Workspace) -> None:
    for name in "abc":
        write(workspace, name, word="Käse", number=1.5)
    assert audit.verify(workspace.database) == 3


def test_a_rolled_back_change_leaves_no_record(workspace: Workspace) -> None:
    with pytest.raises(ZeroDivisionError), workspace.database.write() as connection:
        audit.append(workspace.database, connection, actor="me", action="test.do", target="x", now=1.0)
        _ = 1 / 0
    assert audit.verify(workspace.database) == 0


def test_the_database_refuses_to_change_or_delete_records(workspace: Workspace) -> None:
    write(workspace, "a")
    for statement in (sa.update(schema.audit).values(actor="evil"), sa.delete(schema.audit)):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), workspace.database.write() as connection:
            connection.execute(statement)
    assert audit.verify(workspace.database) == 1


@pytest.mark.parametrize(
    ("forge", "wrong"),
    [
        (sa.update(schema.audit).where(schema.audit.c.seq == 2).values(actor="somebody else"), 2),
        (sa.update(schema.audit).where(schema.audit.c.seq == 2).values(detail={"n": 9}), 2),
        (sa.delete(schema.audit).where(schema.audit.c.seq == 2), 3),
        (sa.delete(schema.audit).where(schema.audit.c.seq == 1), 2),
    ],
)
def test_forgeries_break_the_chain_where_they_are(workspace: Workspace, forge: Any, wrong: int) -> None:
    for number in range(3):
        write(workspace, f"target {number}", n=number)
    allow_changes(workspace)
    with workspace.database.write() as connection:
        connection.execute(forge)
    with pytest.raises(IntegrityError) as caught:
        audit.verify(workspace.database)
    assert caught.value.details["seq"] == wrong


def test_writers_at_the_same_time_make_one_chain(workspace: Workspace) -> None:
    threads = [threading.Thread(target=write, args=(workspace, f"thread {number}")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert audit.verify(workspace.database) == 8


def test_canonical_json_is_one_text_for_equal_values() -> None:
    assert audit.canonical({"b": [1, None], "a": "ä"}) == '{"a":"ä","b":[1,null]}'.encode()
    with pytest.raises(ValueError):
        audit.canonical({"x": float("nan")})
