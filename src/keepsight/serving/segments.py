"""An encrypted append-only log on disk, in segments: the spool's storage.

A segment is ``KSSPOOL1``, 16 bytes that tell the key, then frames: 4 bytes of length, a nonce of 12 bytes, and the
record under AES-256-GCM. A batch is on disk (fsync) before ``append`` returns. Every start begins a new segment, so a
frame that a power cut tore stands at the end of one, and was never promised to anybody.
"""

from __future__ import annotations

import fcntl
import hmac
import logging
import os
import secrets
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keepsight.errors import StorageError, WorkspaceKeyError

MAGIC = b"KSSPOOL1"
KEY_CHECK_BYTES = 16
HEADER_BYTES = len(MAGIC) + KEY_CHECK_BYTES
NONCE_BYTES = 12
SEGMENT_BYTES = 16 * 1024 * 1024
KEY_BYTES = 32
SUFFIX = ".spool"
POSITION = "position"

_LENGTH = struct.Struct(">I")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """A place between two records."""

    segment: int
    offset: int


@dataclass(frozen=True)
class Stored:
    """A record and the place after it."""

    data: bytes
    end: Position


class SegmentLog:
    """A log in ``folder``, for one process; what a process before left in its own folder is taken over.

    Records are read from the oldest and stay until ``consume``.

    Args:
        folder: Holds one folder ``slot-N`` for each process that writes at the same time.
        key: 32 bytes.
        max_bytes: How much may lie here in all.

    Raises:
        StorageError: The folder cannot be written.
        WorkspaceKeyError: What lies here was written with another key.
    """

    def __init__(self, folder: Path, key: bytes, *, max_bytes: int) -> None:
        if len(key) != KEY_BYTES:
            raise WorkspaceKeyError(
                f"The spool's key has {len(key)} bytes.", expected="32 bytes.", do="Give the key made for the spool."
            )
        self._cipher = AESGCM(key)
        self._key_check = hmac.new(key, b"keepsight spool check", "sha256").digest()[:KEY_CHECK_BYTES]
        self._max_bytes = max_bytes
        self._guard = threading.Lock()
        self._handle: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._slot, self._lock = _claim(folder)
            self._start = _read_position(self._slot)
            self._sizes = {int(path.stem): path.stat().st_size for path in self._slot.glob(f"*{SUFFIX}")}
            for number in self._sizes:
                self._check_header(number)
        except OSError as error:
            raise _disk(error, folder) from error
        # Numbers are never used twice: what was consumed is told by a number.
        self._current = 1 + max(self._sizes, default=0)
        if self._start is not None:
            self._current = max(self._current, 1 + self._start.segment)

    @property
    def size_bytes(self) -> int:
        """What lies on disk."""
        with self._guard:
            return sum(self._sizes.values())

    def append(self, records: Sequence[bytes]) -> None:
        """Writes records, all or none; they are on disk when this returns.

        Raises:
            StorageError: The log is full, or the disk is.
        """
        frames = b"".join(self._frame(record) for record in records)
        with self._guard:
            used = sum(self._sizes.values())
            if used + len(frames) > self._max_bytes:
                raise StorageError(
                    f"The spool holds {used / 1e6:.0f} MB, and {self._max_bytes / 1e6:.0f} MB is its limit.",
                    expected="events that are forwarded.",
                    do="Check that the server they go to can be reached and takes the token, or allow the spool more.",
                )
            try:
                if self._handle is None or self._sizes[self._current] >= SEGMENT_BYTES:
                    self._open_segment()
                self._write(frames)
            except OSError as error:
                raise _disk(error, self._slot) from error

    def read(self) -> Iterator[Stored]:
        """The records that were not consumed, oldest first, up to what is written now.

        A frame that was changed on disk is left out, with a line in the log.

        Raises:
            StorageError: A segment cannot be read.
        """
        with self._guard:
            start, sizes = self._start, sorted(self._sizes.items())
        for number, size in sizes:
            if start is None or number > start.segment:
                yield from self._read_segment(number, HEADER_BYTES, size)
            elif number == start.segment:
                yield from self._read_segment(number, start.offset, size)

    def consume(self, end: Position) -> None:
        """Forgets the records before a place; segments that hold nothing else are deleted.

        Raises:
            StorageError: They cannot be deleted.
        """
        with self._guard:
            self._start = end
            try:
                done = [number for number in self._sizes if number < end.segment]
                if end.offset >= self._sizes.get(end.segment, end.offset + 1):
                    done.append(end.segment)
                if self._current in done:
                    self._close_segment()
                for number in done:
                    self._path(number).unlink(missing_ok=True)
                    del self._sizes[number]
                _write_position(self._slot, end)
            except OSError as error:
                raise _disk(error, self._slot) from error

    def close(self) -> None:
        """Closes the files; another process may then take them over."""
        with self._guard:
            self._close_segment()
            os.close(self._lock)

    def _path(self, number: int) -> Path:
        return self._slot / f"{number:08d}{SUFFIX}"

    def _open_segment(self) -> None:
        self._close_segment()
        handle = os.open(self._path(self._current), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._handle = handle
        self._sizes[self._current] = HEADER_BYTES
        os.write(handle, MAGIC + self._key_check)
        os.fsync(handle)
        _sync_folder(self._slot)

    def _close_segment(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
            self._current += 1

    def _write(self, frames: bytes) -> None:
        before, view = self._sizes[self._current], memoryview(frames)
        handle = self._handle
        assert handle is not None  # noqa: S101 - append has just opened it
        try:
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        except OSError:
            # Half a batch must not be read. What failed once may fail silently the next time, so a new segment follows.
            os.ftruncate(handle, before)
            self._close_segment()
            raise
        self._sizes[self._current] = before + len(frames)

    def _frame(self, record: bytes) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, record, MAGIC)
        return _LENGTH.pack(NONCE_BYTES + len(sealed)) + nonce + sealed

    def _check_header(self, number: int) -> None:
        with self._path(number).open("rb") as file:
            header = file.read(HEADER_BYTES)
        # A header that a power cut tore has no records behind it.
        if len(header) == HEADER_BYTES and header != MAGIC + self._key_check:
            raise WorkspaceKeyError(
                f"{self._path(number)} was written with another key.",
                expected="the key that this spool was begun with.",
                do="Give that key, or another empty folder.",
            )

    def _read_segment(self, number: int, offset: int, size: int) -> Iterator[Stored]:
        path = self._path(number)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                while offset + _LENGTH.size <= size:
                    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
                    frame = file.read(length) if offset + _LENGTH.size + length <= size else b""
                    if len(frame) < max(length, NONCE_BYTES):
                        log.warning("The last %d bytes of %s are no whole record", size - offset, path)
                        return
                    offset += _LENGTH.size + length
                    try:
                        data = self._cipher.decrypt(frame[:NONCE_BYTES], frame[NONCE_BYTES:], MAGIC)
                    except InvalidTag:
                        log.error("A record before byte %d of %s was changed on disk and is left out", offset, path)
                        continue
                    yield Stored(data, Position(number, offset))
        except OSError as error:
            raise _disk(error, path) from error


def _claim(folder: Path) -> tuple[Path, int]:
    """A slot for this process and its lock; the segments of slots that nobody holds are moved into it."""
    free = [(slot, lock) for slot in sorted(folder.glob("slot-*")) if (lock := _lock(slot)) is not None]
    number = 0
    while not free:
        slot = folder / f"slot-{number}"
        slot.mkdir(exist_ok=True, mode=0o700)
        lock = _lock(slot)
        if lock is not None:
            free.append((slot, lock))
        number += 1
    own, own_lock = free[0]
    position = _read_position(own)
    last = max((int(path.stem) for path in own.glob(f"*{SUFFIX}")), default=0)
    last = last if position is None else max(last, position.segment)
    for slot, lock in free[1:]:
        for path in sorted(slot.glob(f"*{SUFFIX}")):
            last += 1
            path.rename(own / f"{last:08d}{SUFFIX}")
        (slot / POSITION).unlink(missing_ok=True)
        os.close(lock)
    return own, own_lock


def _lock(slot: Path) -> int | None:
    handle = os.open(slot / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _read_position(slot: Path) -> Position | None:
    """Where reading had got to; it only saves reading again, so a damaged file counts as none."""
    try:
        segment, offset = map(int, (slot / POSITION).read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return None
    return Position(segment, offset)


def _write_position(slot: Path, position: Position) -> None:
    path = slot / f"{POSITION}.new"
    path.write_text(f"{position.segment} {position.offset}\n", encoding="ascii")
    path.replace(slot / POSITION)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _disk(error: OSError, place: Path) -> StorageError:
    return StorageError(
        f"The spool in {place} failed: {error.strerror}.",
        expected="a folder that can be written, with room.",
        do="Make room or mend access to it; what was confirmed is kept.",
    )
