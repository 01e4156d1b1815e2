"""Serving from a workspace: models as its deployments say, events into its database, tokens from it.

The only module of serving (besides ``deployments``) that knows the store.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from keepsight.delivery import deployments
from keepsight.errors import (
    BadInputError,
    BundleError,
    KeepsightError,
    NotFoundError,
    NotReadyError,
    StorageError,
)
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.decode import PictureInfo
from keepsight.runtime.predictor import Predictor
from keepsight.serving.appending import EventInsert
from keepsight.serving.commits import GroupCommit
from keepsight.serving.events import Event, Feedback, Served, ServingSettings
from keepsight.serving.galleries import Galleries
from keepsight.serving.guard import Identity
from keepsight.store import schema, tokens
from keepsight.store.database import insert_ignore, upsert
from keepsight.store.workspace import Workspace

POLL_S = 0.25
BEAT_S = 1.0
RETRY_LOAD_S = 10.0
# Without news from the database for so long a server is not ready: it could not log an answer either.
SILENT_S = 30.0
FORGET_SERVERS_S = 3600.0
TOKEN_TTL_S = 2.0
MAX_CACHED_TOKENS = 1000

log = logging.getLogger(__name__)

# Asked four times a second, so they are put together once.
_PROJECTS = sa.select(schema.project.c.id)
_DEPLOYED = (
    sa.select(
        schema.deployment.c.id,
        schema.deployment.c.project_id,
        schema.deployment.c.model_number,
        schema.model.c.blob_id,
        schema.model.c.bundle_digest,
    )
    .join(
        schema.model,
        (schema.model.c.project_id == schema.deployment.c.project_id)
        & (schema.model.c.number == schema.deployment.c.model_number),
    )
    .where(
        schema.deployment.c.id.in_(
            sa.select(sa.func.max(schema.deployment.c.id)).group_by(schema.deployment.c.project_id)
        )
    )
)
_ALARMED = sa.select(schema.alert.c.project_id).where(
    schema.alert.c.closed_at.is_(None), schema.alert.c.kind.in_(("drift", "accuracy"))
)
_SETTINGS = sa.select(schema.setting)


@dataclass(frozen=True)
class _Wanted:
    """A deployment that should be served."""

    id: int
    project: str
    model_number: int
    blob_id: str
    bundle_digest: str


@dataclass(frozen=True)
class _State:
    """What one look into the database says."""

    projects: tuple[str, ...]
    wanted: tuple[_Wanted, ...]
    stored: Mapping[str, Mapping[str, Any]]
    alarmed: frozenset[str]


class DatabaseSource:
    """Serves the newest deployment of every project, and takes a new one in while requests run.

    A thread looks every 250 ms; it loads and warms a new model, swaps it in and acknowledges. Where that fails the
    reason is acknowledged and the old model answers on. A second thread tells that this server lives.

    Args:
        ws: The workspace.
        server_id: 32 hex digits, new for each process.
        url: Where this server can be reached.
    """

    def __init__(self, ws: Workspace, *, server_id: str, url: str) -> None:
        self._ws = ws
        self._server_id = server_id
        self._url = url
        self._started_at = ws.clock()
        self._projects: tuple[str, ...] = ()
        self._served: dict[str, Served] = {}
        self._deployed: dict[str, int] = {}
        self._failed: dict[str, tuple[int, float, KeepsightError]] = {}
        self._galleries = Galleries(ws)
        self._heard = time.monotonic()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, name="keepsight-deployments", daemon=True),
            threading.Thread(target=self._beat, name="keepsight-heartbeat", daemon=True),
        ]

    def start(self) -> None:
        """Loads what is deployed, then follows it.

        Raises:
            StorageError: The database cannot be read or written.
        """
        self._tell_alive()
        self._look()
        for thread in self._threads:
            thread.start()

    def projects(self) -> Sequence[str]:
        """Names of all projects."""
        return self._projects

    def served(self) -> Sequence[Served]:
        """All that is loaded."""
        return list(self._served.values())

    def current(self, project: str) -> Served:
        """What answers the project now.

        Raises:
            NotFoundError: There is no such project. NotReadyError: It has no model yet.
        """
        served = self._served.get(project)
        if served is not None:
            return served
        if project not in self._projects:
            raise NotFoundError.among(
                "project", project, self._projects, do=f"Add it with `keepsight init {project[:40]}`."
            )
        failed = self._failed.get(project)
        if failed is not None:
            raise NotReadyError(
                f"The model of {project} cannot be loaded: {failed[2].found}",
                expected=failed[2].expected,
                do=failed[2].do,
            )
        raise NotReadyError(
            f"{project} has no live model yet.",
            expected="a deployed model.",
            do=f"Import pictures (`keepsight data import {project} PHOTOS/`), then `keepsight train {project}`.",
        )

    def check(self) -> Mapping[str, int]:
        """Model numbers by project, once everything that is deployed is loaded.

        Raises:
            NotReadyError: A first model cannot be loaded, or the database has been silent.
        """
        silent_s = time.monotonic() - self._heard
        if silent_s > SILENT_S or not all(thread.is_alive() for thread in self._threads):
            raise NotReadyError(
                f"The server has not followed the database for {silent_s:.0f} s.",
                expected="a database that answers.",
                do="Look into the server's log; check the database, then restart the server.",
            )
        for project in self._failed:
            self.current(project)
        return {served.project: served.model_number for served in self.served()}

    def close(self) -> None:
        """Stops following and takes this server off the list."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        try:
            with self._ws.database.write() as connection:
                connection.execute(sa.delete(schema.server).where(schema.server.c.id == self._server_id))
        except StorageError as error:
            log.warning("This server could not be taken off the list, where it expires by itself: %s", error)

    # --- following ----------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                self._look()
            except KeepsightError as error:
                log.warning("Deployments cannot be followed: %s", error)

    def _look(self) -> None:
        state = self._read()
        self._heard = time.monotonic()
        self._projects = state.projects
        for wanted in state.wanted:
            settings = self._settings(wanted.project, state)
            if not self._is_taken(wanted, settings) and self._is_due(wanted):
                self._take(wanted, settings)
        for project, served in list(self._served.items()):
            settings = replace(self._settings(project, state), variant=served.settings.variant)
            if settings != served.settings:
                self._served[project] = replace(served, settings=settings)
        self.follow_galleries()

    def follow_galleries(self) -> None:
        """Takes in what was enrolled or taken out since the last look.

        Raises:
            StorageError: The database cannot be read.
        """
        self._galleries.follow([(served.project, served.predictor) for served in list(self._served.values())])

    def _read(self) -> _State:
        stored: dict[str, dict[str, Any]] = {}
        with self._ws.database.read() as connection:
            projects = {*connection.scalars(_PROJECTS), *self._ws.config.projects}
            wanted = tuple(_Wanted(*row) for row in connection.execute(_DEPLOYED))
            alarmed = frozenset(connection.scalars(_ALARMED))
            for row in connection.execute(_SETTINGS):
                stored.setdefault(row.project_id, {})[row.name] = row.value
        return _State(tuple(sorted(projects)), wanted, stored, alarmed)

    def _settings(self, project: str, state: _State) -> ServingSettings:
        values = self._ws.config.project(project, state.stored.get(project, {}))
        share = values["review.audit_share"]
        if project in state.alarmed:
            share = max(share, values["review.audit_share_alarm"])
        return ServingSettings(
            top_k=values["serving.top_k"],
            video_s=values["serving.video_seconds"],
            min_confidence=values["review.min_confidence"],
            audit_share=share,
            variant=values["serving.variant"],
        )

    def _is_taken(self, wanted: _Wanted, settings: ServingSettings) -> bool:
        served = self._served.get(wanted.project)
        return (
            self._deployed.get(wanted.project) == wanted.id
            and served is not None
            and served.settings.variant == settings.variant
        )

    def _is_due(self, wanted: _Wanted) -> bool:
        failed = self._failed.get(wanted.project)
        return failed is None or failed[0] != wanted.id or time.monotonic() >= failed[1]

    def _take(self, wanted: _Wanted, settings: ServingSettings) -> None:
        try:
            predictor = self._predictor(wanted, variant=settings.variant)
        except KeepsightError as error:
            log.error("Deployment %d of %s cannot be served: %s", wanted.id, wanted.project, error)
            self._failed[wanted.project] = (wanted.id, time.monotonic() + RETRY_LOAD_S, error)
            deployments.acknowledge(self._ws, wanted.id, self._server_id, error=str(error))
            return
        self._served[wanted.project] = Served(
            project=wanted.project,
            model_number=wanted.model_number,
            bundle_digest=wanted.bundle_digest,
            predictor=predictor,
            settings=settings,
            variant=predictor.variant,
        )
        self._failed.pop(wanted.project, None)
        # Only what was acknowledged counts as taken: if the database fails here, the next look does it again.
        deployments.acknowledge(self._ws, wanted.id, self._server_id)
        self._deployed[wanted.project] = wanted.id
        log.info("%s is answered by model %d", wanted.project, wanted.model_number)

    def _predictor(self, wanted: _Wanted, *, variant: str) -> Predictor:
        served = self._served.get(wanted.project)
        same = served if served is not None and served.bundle_digest == wanted.bundle_digest else None
        bundle = self._bundle(wanted) if same is None else same.predictor.bundle
        allowed = deployments.serving_variant(
            self._ws, wanted.project, wanted.model_number, bundle=bundle, wanted=variant
        )
        if allowed != variant:
            log.warning(
                "%s is answered by the %s network of model %d: it has no %s one that its gate looked at.",
                wanted.project,
                allowed,
                wanted.model_number,
                variant,
            )
        if same is not None and same.variant == allowed:
            return same.predictor
        predictor = Predictor(bundle, variant=allowed)
        self._galleries.prepare(wanted.project, predictor)
        predictor.warm()
        return predictor

    def _bundle(self, wanted: _Wanted) -> Bundle:
        bundle = Bundle.from_bytes(self._ws.blobs.get(wanted.blob_id))
        if bundle.digest != wanted.bundle_digest:
            raise BundleError(
                f"The stored bundle of model {wanted.model_number} is not the one that was registered.",
                expected=f"digest {wanted.bundle_digest[:12]}.",
                do="Restore the blob store from a backup, or roll back to another model.",
            )
        return bundle

    # --- heartbeat ----------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                self._tell_alive()
            except StorageError as error:
                log.warning("The heartbeat cannot be written: %s", error)

    def _tell_alive(self) -> None:
        now = self._ws.clock()
        row = {
            "id": self._server_id,
            "url": self._url,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_at": self._started_at,
            "seen_at": now,
        }
        with self._ws.database.write() as connection:
            upsert(connection, schema.server, [row])
            connection.execute(sa.delete(schema.server).where(schema.server.c.seen_at < now - FORGET_SERVERS_S))


class DatabaseSink:
    """Writes events and feedback into the workspace's database, many in one transaction.

    Args:
        ws: The workspace; its ``serving.log`` says whether an answer waits for the disk.
        capacity: Records that may wait.
    """

    def __init__(self, ws: Workspace, *, capacity: int = 10_000) -> None:
        self._ws = ws
        self._numbers: dict[tuple[str, str], int] = {}
        self._insert = EventInsert(ws.database) if ws.database.dialect == "sqlite" else None
        self._writer: GroupCommit[Event | Feedback] = GroupCommit(
            self._commit,
            name="keepsight-events",
            durable=ws.config["serving.log"] == "durable",
            capacity=capacity,
        )

    def start(self) -> None:
        """Starts the writer."""
        self._writer.start()

    def keep(self, data: bytes, *, info: PictureInfo) -> Mapping[str, Any]:
        """Encrypts and stores a picture; its rows are made later from what this gives.

        Raises:
            StorageError: The store cannot be written.
        """
        sealed = self._ws.blobs.seal(data)
        return {
            "id": sealed.id,
            "location": sealed.location,
            "wrapped_key": base64.b64encode(sealed.wrapped_key).decode(),
            "size_bytes": sealed.size_bytes,
            "format": info.format,
            "width": info.width,
            "height": info.height,
        }

    def write(self, event: Event) -> Future[None]:
        """Records an event; one with a known id is taken already."""
        return self._writer.put(event)

    def feedback(self, feedback: Feedback) -> Future[None]:
        """Records feedback; the same rules."""
        return self._writer.put(feedback)

    def knows(self, project: str, event_ids: Sequence[str]) -> set[str]:
        """Which of these events are recorded or on their way."""
        found: set[str] = set()
        with self._ws.database.read("events") as connection:
            for start in range(0, len(event_ids), 500):
                query = sa.select(schema.event.c.id).where(
                    schema.event.c.id.in_(event_ids[start : start + 500]), schema.event.c.project_id == project
                )
                found.update(connection.scalars(query))
        if len(found) < len(event_ids):
            waiting = {item.id for item in self._writer.pending() if item.project_id == project}
            found.update(waiting.intersection(event_ids))
        return found

    def number_of(self, project: str, bundle_digest: str) -> int:
        """The number that a model has in the registry; 0 where it is not registered."""
        key = (project, bundle_digest)
        if key not in self._numbers:
            query = sa.select(sa.func.max(schema.model.c.number)).where(
                schema.model.c.project_id == project, schema.model.c.bundle_digest == bundle_digest
            )
            with self._ws.database.read() as connection:
                number = connection.scalar(query)
            if number is None:
                return 0
            self._numbers[key] = number
        return self._numbers[key]

    def waiting(self) -> int:
        """Records accepted and not yet written."""
        return self._writer.waiting()

    def close(self) -> None:
        """Writes what is waiting, then stops."""
        self._writer.close()

    def _commit(self, records: Sequence[Event | Feedback]) -> None:
        events = [item for item in records if isinstance(item, Event)]
        judged = [item.row() for item in records if isinstance(item, Feedback)]
        try:
            with self._ws.database.write("events") as connection:
                # Servers commit one after the other, so that nobody reading by `seq` meets a gap that fills later.
                self._ws.database.lock(connection, "events")
                if self._insert is None:
                    insert_ignore(connection, schema.event, [event.row() for event in events])
                elif events:
                    self._insert(connection, events)
                insert_ignore(connection, schema.feedback, judged)
        except sa.exc.TimeoutError as error:
            raise StorageError(
                f"The database has no free connection: {error}.", expected="one.", do="Try again in a moment."
            ) from error
        except sa.exc.StatementError as error:
            raise BadInputError(
                f"The database does not take the record: {error.orig}.",
                expected="texts and numbers that it can hold.",
                do="Look at what was sent as source, group and meta.",
            ) from error


class DatabaseTokens:
    """Looks tokens up in the workspace; what it found counts for two seconds."""

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._found: dict[str, tuple[float, Identity | None]] = {}
        self._exist: tuple[float, bool] = (-TOKEN_TTL_S, False)

    async def find(self, secret: str) -> Identity | None:
        """Whose token this is; None if it is not valid."""
        key = hashlib.sha256(secret.encode()).hexdigest()
        at, identity = self._found.get(key, (-TOKEN_TTL_S, None))
        if time.monotonic() - at < TOKEN_TTL_S:
            return identity
        token = await asyncio.to_thread(tokens.find, self._ws.database, secret)
        identity = None if token is None else Identity(token.name, token.scopes)
        if len(self._found) >= MAX_CACHED_TOKENS:
            self._found.clear()
        self._found[key] = (time.monotonic(), identity)
        return identity

    async def exist(self) -> bool:
        """Whether there is any valid token."""
        at, exist = self._exist
        if time.monotonic() - at >= TOKEN_TTL_S:
            exist = bool(await asyncio.to_thread(tokens.valid_tokens, self._ws.database))
            self._exist = (time.monotonic(), exist)
        return exist
