"""Encrypted blobs: unreadable at rest, stored once, and gone when erased."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from keepsight.errors import IntegrityError, NotFoundError, SettingsError, StorageError
from keepsight.store import schema
from keepsight.store.workspace import Workspace

SECRET = b"the face of a customer" * 10


def objects(workspace: Workspace) -> list[Path]:
    return [path for path in (workspace.state / "blobs").rglob("*") if path.is_file()]


def test_bytes_come_back_and_cannot_be_read_at_rest(workspace: Workspace) -> None:
    name = workspace.blobs.put(SECRET, now=1.0)
    assert workspace.blobs.get(name) == SECRET
    assert name == workspace.blobs.name(SECRET)
    assert all(SECRET[:22] not in path.read_bytes() for path in objects(workspace))


def test_equal_bytes_are_stored_once(workspace: Workspace) -> None:
    assert workspace.blobs.put(SECRET, now=1.0) == workspace.blobs.put(SECRET, now=2.0)
    assert len(objects(workspace)) == 1


def test_of_two_writers_of_one_picture_one_object_stays_readable(workspace: Workspace) -> None:
    first, second = workspace.blobs.seal(SECRET), workspace.blobs.seal(SECRET)
    with workspace.database.write() as connection:
        workspace.blobs.record(connection, [first, second], now=1.0)
    assert workspace.blobs.get(first.id) == SECRET
    assert len(objects(workspace)) == 1


def test_existing_tells_stored_ones(workspace: Workspace) -> None:
    name = workspace.blobs.put(SECRET, now=1.0)
    with workspace.database.read() as connection:
        assert workspace.blobs.existing(connection, [name, "0" * 64]) == {name}


def test_erasing_deletes_key_and_object(workspace: Workspace) -> None:
    name = workspace.blobs.put(SECRET, now=1.0)
    with workspace.database.write() as connection:
        workspace.blobs.erase(connection, name, now=2.0)
    with pytest.raises(NotFoundError, match="erased"):
        workspace.blobs.get(name)
    assert objects(workspace) == []
    with workspace.database.read() as connection:
        row = connection.execute(sa.select(schema.blob)).one()
        assert (row.wrapped_key, row.location, row.erased_at) == (None, "", 2.0)
        assert workspace.blobs.existing(connection, [name]) == set()


def test_an_erased_picture_that_comes_again_is_stored_anew(workspace: Workspace) -> None:
    name = workspace.blobs.put(SECRET, now=1.0)
    with workspace.database.write() as connection:
        workspace.blobs.erase(connection, name, now=2.0)
    sealed = [workspace.blobs.seal(SECRET), workspace.blobs.seal(SECRET)]
    with workspace.database.write() as connection:
        workspace.blobs.record(connection, sealed, now=3.0)
    assert workspace.blobs.get(name) == SECRET
    assert len(objects(workspace)) == 1


def test_changed_bytes_are_noticed(workspace: Workspace) -> None:
    name = workspace.blobs.put(SECRET, now=1.0)
    path = objects(workspace)[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError):
        workspace.blobs.get(name)


def test_an_object_that_is_gone_is_told(workspace: Workspace) -> None:
    name = workspace.blobs.put(SECRET, now=1.0)
    objects(workspace)[0].unlink()
    with pytest.raises(StorageError) as caught:
        workspace.blobs.get(name)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_unknown_ids_are_told(workspace: Workspace) -> None:
    with pytest.raises(NotFoundError, match="not stored"):
        workspace.blobs.get("0" * 64)


def test_a_sealed_object_can_be_discarded_twice(workspace: Workspace) -> None:
    sealed = workspace.blobs.seal(SECRET)
    workspace.blobs.discard(sealed.location)
    workspace.blobs.discard(sealed.location)
    assert objects(workspace) == []


def test_a_wrong_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "keepsight.yaml").write_text("blobs: gopher://x\nprojects: {}\n")
    with pytest.raises(SettingsError, match="blobs"):
        Workspace.open(tmp_path, environment={})
