"""Encrypted blobs in an object store: local files, S3, Google Cloud Storage or Azure, all through obstore.

An object is written first and its row after, in the caller's transaction; a crash between the two leaves an unnamed
object, never a row without bytes. Each write gets an object name of its own, so two writers of one picture cannot mix
one's bytes with the other's key: the row that comes second is dropped, and its object with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
import sqlalchemy as sa
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url
from sqlalchemy.engine import Connection

from keepsight.errors import NotFoundError, SettingsError, StorageError
from keepsight.store import schema
from keepsight.store.database import Database, insert_ignore
from keepsight.store.keys import Keys


@dataclass(frozen=True)
class Sealed:
    """An encrypted object that was written and awaits its row."""

    id: str
    location: str
    wrapped_key: bytes
    size_bytes: int


class Blobs:
    """Reads and writes the encrypted blobs of a workspace."""

    def __init__(self, database: Database, keys: Keys, *, url: str | None, folder: Path) -> None:
        self._database = database
        self._keys = keys
        self._objects = _open_store(url, folder)

    def name(self, data: bytes) -> str:
        """The id that this plaintext has or would have."""
        return self._keys.name(data)

    def existing(self, connection: Connection, ids: Sequence[str]) -> set[str]:
        """Those of the ids that are stored and not erased."""
        found: set[str] = set()
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            query = sa.select(schema.blob.c.id).where(
                schema.blob.c.id.in_(part), schema.blob.c.wrapped_key.is_not(None)
            )
            found.update(connection.scalars(query))
        return found

    def seal(self, data: bytes) -> Sealed:
        """Encrypts and writes the object; ``record`` makes it known.

        Raises:
            StorageError: The store cannot be written.
        """
        name = self._keys.name(data)
        sealed, wrapped = self._keys.encrypt(data, name=name)
        location = f"{name[:2]}/{name}-{secrets.token_hex(4)}"
        try:
            obstore.put(self._objects, location, sealed, mode="create")
        except (BaseError, OSError) as error:
            raise _store_error(error) from error
        return Sealed(id=name, location=location, wrapped_key=wrapped, size_bytes=len(data))

    def record(self, connection: Connection, sealed: Sequence[Sealed], *, now: float) -> None:
        """Adds the rows of written objects in the caller's truth transaction; equal plaintexts keep the first."""
        rows = [
            {
                "id": item.id,
                "location": item.location,
                "wrapped_key": item.wrapped_key,
                "size_bytes": item.size_bytes,
                "created_at": now,
                "erased_at": None,
            }
            for item in sealed
        ]
        insert_ignore(connection, schema.blob, rows)
        # Where each one's bytes are; None once erased.
        kept: dict[str, str | None] = {}
        for start in range(0, len(sealed), 500):
            part = [item.id for item in sealed[start : start + 500]]
            query = sa.select(schema.blob.c.id, schema.blob.c.location, schema.blob.c.wrapped_key)
            for row in connection.execute(query.where(schema.blob.c.id.in_(part))):
                kept[row.id] = row.location if row.wrapped_key is not None else None
        for item in sealed:
            if kept[item.id] is None:
                values = {"location": item.location, "wrapped_key": item.wrapped_key, "erased_at": None}
                connection.execute(sa.update(schema.blob).where(schema.blob.c.id == item.id).values(values))
                kept[item.id] = item.location
            elif kept[item.id] != item.location:
                self._delete(item.location)

    def put(self, data: bytes, *, now: float) -> str:
        """Stores one plaintext in a transaction of its own and returns its id."""
        name = self._keys.name(data)
        with self._database.read() as connection:
            if self.existing(connection, [name]):
                return name
        sealed = self.seal(data)
        with self._database.write() as connection:
            self.record(connection, [sealed], now=now)
        return name

    def get(self, blob_id: str) -> bytes:
        """The plaintext of a blob.

        Raises:
            NotFoundError: No such blob, or it was erased.
            IntegrityError: The stored bytes were changed.
        """
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(schema.blob.c.location, schema.blob.c.wrapped_key).where(schema.blob.c.id == blob_id)
            ).one_or_none()
        if row is None or row.wrapped_key is None:
            what = "was erased" if row is not None else "is not stored"
            raise NotFoundError(
                f"The picture {blob_id[:12]} {what}.", expected="a stored picture.", do="Leave it out.", blob=blob_id
            )
        try:
            sealed = bytes(obstore.get(self._objects, row.location).bytes())
        except (FileNotFoundError, BaseError, OSError) as error:
            raise _store_error(error) from error
        return self._keys.decrypt(sealed, row.wrapped_key, name=blob_id)

    def discard(self, location: str) -> None:
        """Deletes an object that was sealed and will get no row; nothing happens where it is gone already.

        Raises:
            StorageError: The store cannot be written.
        """
        self._delete(location)

    def erase(self, connection: Connection, blob_id: str, *, now: float) -> None:
        """Deletes the wrapped key in the caller's transaction and then the object.

        Without the key no copy of the object can ever be read again, backups of the store included.
        """
        row = connection.execute(sa.select(schema.blob.c.location).where(schema.blob.c.id == blob_id)).one_or_none()
        if row is None:
            return
        values: dict[str, Any] = {"wrapped_key": None, "location": "", "erased_at": now}
        connection.execute(sa.update(schema.blob).where(schema.blob.c.id == blob_id).values(values))
        if row.location:
            self._delete(row.location)

    def _delete(self, location: str) -> None:
        try:
            obstore.delete(self._objects, location)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise _store_error(error) from error


def _open_store(url: str | None, folder: Path) -> Any:
    try:
        if url is None or "://" not in url:
            path = folder / "blobs" if url is None else Path(url)
            path.mkdir(parents=True, exist_ok=True)
            return LocalStore(path)
        return from_url(url)
    except (BaseError, ValueError) as error:
        raise SettingsError(
            f"`blobs` cannot be opened: {error}",
            expected="a folder, or a URL such as s3://bucket/folder, gs:// or az://.",
            do="Correct `blobs` in keepsight.yaml and the credentials in the environment.",
        ) from None
    except OSError as error:
        raise _store_error(error) from error


def _store_error(error: Exception) -> StorageError:
    return StorageError(
        f"The blob store failed: {str(error).strip().splitlines()[0]}",
        expected="a store that can be read and written, with room.",
        do="Make room, or mend access to it, then try again; what was confirmed is kept.",
    )
