"""Events of a server without a database: kept encrypted on disk, and forwarded to a workspace's server.

An answer leaves when its event is on this disk. A thread posts the records to ``POST /v1/{project}/events`` whenever
that server can be reached; it takes each by its id once, so sending again after a crash changes nothing. A kept
picture travels inside its event.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from keepsight.errors import SettingsError, StorageError, WorkspaceKeyError
from keepsight.runtime.decode import PictureInfo
from keepsight.serving.commits import GroupCommit
from keepsight.serving.events import Event, Feedback
from keepsight.serving.segments import KEY_BYTES, Position, SegmentLog

KEY_VARIABLE = "KEEPSIGHT_SPOOL_KEY"
KEY_FILE = "spool.key"
MAX_BYTES = 1024**3
BATCH_RECORDS = 200
BATCH_BYTES = 8 * 1024 * 1024
TIMEOUT_S = 60.0
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
REJECTED_FOLDER = "rejected"

log = logging.getLogger(__name__)


class SpoolSink:
    """Keeps events in an encrypted spool and forwards them.

    Args:
        folder: Where the spool lies.
        key: 32 bytes, see ``load_key``.
        forward_url: The server that gets the events, such as ``https://keepsight.example``; None: they only pile up.
        token: A token of that server with the scope ``predict``.
        max_bytes: How much may lie here; when it is full, requests fail until something was forwarded.

    Raises:
        SettingsError: The URL is none.
        StorageError, WorkspaceKeyError: The spool cannot be opened.
    """

    def __init__(
        self,
        folder: Path,
        key: bytes,
        *,
        forward_url: str | None = None,
        token: str | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._log = SegmentLog(folder, key, max_bytes=max_bytes)
        self._rejected = SegmentLog(folder / REJECTED_FOLDER, key, max_bytes=max_bytes)
        self._url = None if forward_url is None else _checked_url(forward_url)
        self._token = token
        self._waiting = sum(1 for _ in self._log.read())
        self._count = threading.Lock()
        self._writer: GroupCommit[Event | Feedback] = GroupCommit(self._commit, name="keepsight-spool")
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._trouble = ""
        self._forwarder = threading.Thread(target=self._forward, name="keepsight-forward", daemon=True)

    def start(self) -> None:
        """Starts writing and forwarding."""
        self._writer.start()
        if self._url is not None:
            self._forwarder.start()

    def keep(self, data: bytes, *, info: PictureInfo) -> Mapping[str, Any]:
        """The picture as it travels inside its event."""
        return {
            "data": base64.b64encode(data).decode(),
            "size_bytes": len(data),
            "format": info.format,
            "width": info.width,
            "height": info.height,
        }

    def write(self, event: Event) -> Future[None]:
        """Records an event on this disk."""
        return self._writer.put(event)

    def feedback(self, feedback: Feedback) -> Future[None]:
        """Records feedback; whether its prediction exists is checked where it is forwarded to."""
        return self._writer.put(feedback)

    def knows(self, project: str, event_ids: Sequence[str]) -> None:  # noqa: ARG002 - the protocol's parameters
        """A spool cannot tell which events were recorded: they may be forwarded and gone."""
        return

    def number_of(self, project: str, bundle_digest: str) -> int:  # noqa: ARG002 - the protocol's parameters
        """0: models have numbers only in a workspace."""
        return 0

    def waiting(self) -> int:
        """Records not yet forwarded."""
        with self._count:
            return self._waiting + self._writer.waiting()

    def close(self) -> None:
        """Writes what is waiting and stops; what was not forwarded stays for the next start."""
        self._writer.close()
        self._stop.set()
        self._wake.set()
        if self._forwarder.ident is not None:
            self._forwarder.join()
        self._log.close()
        self._rejected.close()

    def _commit(self, records: Sequence[Event | Feedback]) -> None:
        lines = [
            json.dumps(["event" if isinstance(item, Event) else "feedback", item.as_dict()]).encode()
            for item in records
        ]
        try:
            self._log.append(lines)
        except StorageError as error:
            if self._trouble:
                raise StorageError(
                    f"{error.found} Forwarding fails: {self._trouble}", expected=error.expected, do=error.do
                ) from error
            raise
        with self._count:
            self._waiting += len(records)
        self._wake.set()

    # --- forwarding ---------------------------------------------------------------------------------------------------

    def _forward(self) -> None:
        retry_s, most = FIRST_RETRY_S, BATCH_RECORDS
        while not self._stop.is_set():
            self._wake.clear()
            try:
                most = self._forward_some(most)
            except (_ForwardError, StorageError) as error:
                if str(error) != self._trouble:
                    log.warning("%d events wait: %s", self.waiting(), error)
                self._trouble = str(error)
                self._stop.wait(retry_s)
                retry_s = min(LAST_RETRY_S, 2 * retry_s)
                continue
            if self._trouble:
                log.info("Events are forwarded again")
            self._trouble, retry_s = "", FIRST_RETRY_S
            if most == 0:
                # `close` sets `stop` first, so it is seen here or ends the wait.
                if not self._stop.is_set():
                    self._wake.wait()
                most = BATCH_RECORDS

    def _forward_some(self, most: int) -> int:
        """Forwards up to ``most`` records; how many to take the next time, 0 where none are left."""
        project, records, end = self._batch(most)
        if end is None:
            return 0
        try:
            rejected = self._post(project, records)
        except _TooLargeError:
            if len(records) > 1:
                return len(records) // 2
            rejected = [{"id": records[0][1]["id"], "error": {"found": "It is too large for the server."}}]
        self._set_aside(records, rejected)
        self._log.consume(end)
        with self._count:
            self._waiting -= len(records)
        return BATCH_RECORDS

    def _batch(self, most: int) -> tuple[str, list[tuple[str, dict[str, Any]]], Position | None]:
        """The next records of one project, and the place after them."""
        project, size = "", 0
        records: list[tuple[str, dict[str, Any]]] = []
        end: Position | None = None
        for stored in self._log.read():
            kind, values = json.loads(stored.data)
            if records and (values["project_id"] != project or len(records) >= most or size > BATCH_BYTES):
                break
            project = values["project_id"]
            records.append((kind, values))
            size += len(stored.data)
            end = stored.end
        return project, records, end

    def _post(self, project: str, records: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
        body = {
            "events": [values for kind, values in records if kind == "event"],
            "feedback": [values for kind, values in records if kind == "feedback"],
        }
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        # The scheme was checked when the sink was made.
        request = urllib.request.Request(  # noqa: S310
            f"{self._url}/v1/{quote(project)}/events", data=json.dumps(body).encode(), headers=headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                content = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 413:
                    raise _TooLargeError from error
                told = error.read(2000).decode(errors="replace")
            raise _ForwardError(f"{self._url} answered {error.code}: {told}") from error
        except (OSError, HTTPException, ValueError) as error:
            raise _ForwardError(f"{self._url} cannot be reached: {error}") from error
        if not isinstance(content, dict) or not isinstance(content.get("rejected"), list):
            raise _ForwardError(f"{self._url} answered something else than a Keepsight server does")
        rejected: list[dict[str, Any]] = content["rejected"]
        return rejected

    def _set_aside(self, records: Sequence[tuple[str, dict[str, Any]]], rejected: Sequence[dict[str, Any]]) -> None:
        """Keeps what the server would never take, encrypted, in the folder ``rejected``."""
        ids = {item.get("id") for item in rejected}
        if not ids:
            return
        for item in rejected:
            log.error("The server rejected record %s: %s", item.get("id"), item.get("error"))
        self._rejected.append([json.dumps(record).encode() for record in records if record[1]["id"] in ids])


class _ForwardError(Exception):
    """The server was not reached, or did not take the records now."""


class _TooLargeError(Exception):
    """The server does not take so much at once."""


def load_key(folder: Path, *, environment: Mapping[str, str]) -> bytes:
    """The spool's key: from ``KEEPSIGHT_SPOOL_KEY`` (base64) or the file ``spool.key``, which is made if missing.

    A key file beside the spool protects copies and backups of the spool alone; a variable protects a stolen device.

    Raises:
        WorkspaceKeyError: It is no key. StorageError: The file cannot be made.
    """
    text = environment.get(KEY_VARIABLE)
    path = folder / KEY_FILE
    place = KEY_VARIABLE if text is not None else str(path)
    if text is None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            text = _key_file(path)
        except OSError as error:
            raise StorageError(
                f"The key file {path} cannot be used: {error.strerror}.",
                expected="a folder that can be written.",
                do=f"Change its permissions, or set {KEY_VARIABLE}.",
            ) from None
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise WorkspaceKeyError(
            f"{place} holds no key.", expected="32 bytes in base64.", do="Put the key back from your backup."
        )
    return key


def _key_file(path: Path) -> str:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii", errors="replace")
    text = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() + "\n"
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return text


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise SettingsError(
            f'"{url}" is no address of a server.',
            expected="such as https://keepsight.example:8000.",
            do="Correct the address that events are forwarded to.",
        )
    return url.rstrip("/")
