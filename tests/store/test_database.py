"""Both databases through the same calls: transactions, snapshots, and errors a user can mend."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from keepsight.errors import SettingsError, StorageError
from keepsight.store import schema
from keepsight.store.database import Database, insert_ignore, upsert
from keepsight.store.workspace import Workspace

TABLE = schema.workspace


def put(workspace: Workspace, name: str, value: str) -> None:
    with workspace.database.write() as connection:
        connection.execute(sa.insert(TABLE).values(name=name, value=value))


def value_of(workspace: Workspace, name: str) -> str | None:
    with workspace.database.read() as connection:
        return connection.scalar(sa.select(TABLE.c.value).where(TABLE.c.name == name))


def test_a_write_is_there_afterwards_and_a_failed_one_is_not(workspace: Workspace) -> None:
    put(workspace, "kept", "1")
    with pytest.raises(ZeroDivisionError), workspace.database.write() as connection:
        connection.execute(sa.insert(TABLE).values(name="lost", value="1"))
        _ = 1 / 0
    assert value_of(workspace, "kept") == "1"
    assert value_of(workspace, "lost") is None


def test_a_reader_sees_one_snapshot_while_others_write(workspace: Workspace) -> None:
    put(workspace, "first", "1")
    count = sa.select(sa.func.count()).select_from(TABLE)
    with workspace.database.read() as connection:
        before = connection.scalar(count)
        put(workspace, "second", "2")
        assert connection.scalar(count) == before
    with workspace.database.read() as connection:
        assert connection.scalar(count) == (before or 0) + 1


def test_writers_queue_instead_of_losing_updates(workspace: Workspace) -> None:
    put(workspace, "count", "0")

    def add() -> None:
        for _ in range(10):
            with workspace.database.write() as connection:
                workspace.database.lock(connection, "count")
                now = connection.scalar(sa.select(TABLE.c.value).where(TABLE.c.name == "count"))
                connection.execute(sa.update(TABLE).where(TABLE.c.name == "count").values(value=str(int(now or 0) + 1)))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value_of(workspace, "count") == "40"


def test_insert_ignore_keeps_and_upsert_replaces(workspace: Workspace) -> None:
    put(workspace, "a", "old")
    rows = [{"name": "a", "value": "new"}, {"name": "b", "value": "new"}]
    with workspace.database.write() as connection:
        insert_ignore(connection, TABLE, rows)
    assert (value_of(workspace, "a"), value_of(workspace, "b")) == ("old", "new")
    with workspace.database.write() as connection:
        upsert(connection, TABLE, [{"name": "a", "value": "newest"}])
    assert value_of(workspace, "a") == "newest"


def test_the_areas_do_not_wait_for_each_other(workspace: Workspace) -> None:
    feedback = {"id": "f", "project_id": "shop", "event_id": "e", "at": 1.0, "kind": "wrong", "author": "me"}
    with workspace.database.write() as long_import:
        long_import.execute(sa.insert(TABLE).values(name="slow", value="1"))
        with workspace.database.write("events") as answer:
            answer.execute(sa.insert(schema.feedback).values(feedback))
        with workspace.database.read("events") as reader:
            assert reader.scalar(sa.select(sa.func.count()).select_from(schema.feedback)) == 1


def test_one_row_of_a_sample_counts_at_a_time(workspace: Workspace) -> None:
    note = {
        "project_id": "shop",
        "sample_id": "s",
        "value": {},
        "author": "me",
        "origin": "import",
        "created_at": 0.0,
        "leaf": "",
    }
    with workspace.database.write() as connection:
        connection.execute(sa.insert(schema.annotation).values(note))
    with pytest.raises(sa.exc.IntegrityError), workspace.database.write() as connection:
        connection.execute(sa.insert(schema.annotation).values(note))


def test_another_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="mysql"):
        Database(tmp_path, url="mysql://root@localhost/x")


def test_a_server_that_is_away_is_told(tmp_path: Path) -> None:
    database = Database(tmp_path, url=f"postgresql://nobody@/none?host={tmp_path}")
    with pytest.raises(StorageError, match="PostgreSQL server"), database.read() as connection:
        connection.execute(sa.text("SELECT 1"))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        Database(tmp_path / "file" / "state")


def test_overwritten_content_does_not_linger_in_sqlite_files(tmp_path: Path) -> None:
    (tmp_path / "keepsight.yaml").write_text("projects: {}\n")
    opened = Workspace.open(tmp_path, environment={})
    secret = "Erika Mustermann, Heidestrasse 17"
    put(opened, "note", secret)
    opened.database.checkpoint()
    files = list(opened.state.glob("keepsight.db*"))
    assert any(secret.encode() in file.read_bytes() for file in files)
    with opened.database.write() as connection:
        connection.execute(sa.update(TABLE).where(TABLE.c.name == "note").values(value=""))
    opened.database.checkpoint()
    assert not any(secret.encode() in file.read_bytes() for file in opened.state.glob("keepsight.db*"))
    opened.close()
