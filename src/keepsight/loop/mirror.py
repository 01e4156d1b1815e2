"""Mirrors ended runs, their models and the aliases of what is live to MLflow (``mlflow.url``).

It happens after the fact and beside everything else: in a child process, because connecting to MLflow takes seconds
and memory. MLflow being away fails no run: an alert tells of it, what is missing there is written once it is back, and
then the alert is closed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from keepsight.delivery.mlflow import entry, mirror
from keepsight.delivery.mlflow.store import MlflowStore, without_secrets
from keepsight.errors import ConflictError, KeepsightError, SettingsError
from keepsight.loop import runs
from keepsight.loop.child import run_child
from keepsight.loop.work import Progress
from keepsight.monitoring import alerts
from keepsight.store import leases, schema
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.models import Model
from keepsight.training.reports import html, markdown
from keepsight.training.reports.content import Content
from keepsight.training.reports.document import document

SETTING = "mlflow.url"
RECORD = "mlflow"
LEASE, LEASE_TTL_S = "mlflow", 300.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
ALERT = "mlflow"
CHILD_TIMEOUT_S = 1800.0
# The registry of such projects is the registered model itself: its aliases are the registry's business.
REGISTRY_IN_MLFLOW = "mlflow"
MOST_RUNS = 1_000_000

log = logging.getLogger(__name__)
State = tuple[int, int, int]


def state(ws: Workspace) -> State:
    """What there is to mirror, cheaply: as long as it is the same, nothing new has come."""
    with ws.database.read() as connection:
        ended = connection.scalar(
            sa.select(sa.func.count()).select_from(schema.run).where(schema.run.c.status.not_in(runs.OPEN))
        )
        deployed = connection.scalar(sa.select(sa.func.max(schema.deployment.c.id)))
        waiting = connection.scalar(
            sa.select(sa.func.count()).select_from(schema.model).where(schema.model.c.status == "challenger")
        )
    return int(ended or 0), int(deployed or 0), int(waiting or 0)


def catch_up(ws: Workspace, progress: Progress) -> dict[str, Any]:
    """Writes what MLflow lacks: ``runs`` and ``models`` (how many), ``aliases`` (by project), ``url``.

    Raises:
        SettingsError: ``mlflow.url`` is not set. ConflictError: Another process is at it.
        MissingExtraError: MLflow is not installed. StorageError: It cannot be reached.
    """
    url = ws.config[SETTING]
    if url is None:
        raise SettingsError(
            "No MLflow is named.",
            expected=f"the setting {SETTING}.",
            do="Set it in keepsight.yaml, such as https://host.",
        )
    holder = uuid.uuid4().hex
    if not _hold(ws, holder):
        raise ConflictError(
            "Another process mirrors to MLflow now.", expected="one at a time.", do="Wait until it is through."
        )
    try:
        progress({"text": "connecting to MLflow"})
        store = MlflowStore(str(url), root=ws.config.root)
        written = _catch_up(ws, store, target=_target(str(url)), holder=holder, progress=progress)
        return {"url": without_secrets(str(url)), **written}
    finally:
        leases.release(ws.database, LEASE, holder=holder, now=ws.clock())


def child(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """:func:`catch_up` in a child process; ``payload`` names the workspace's ``root``."""
    ws = Workspace.open(Path(payload["root"]))
    try:
        return catch_up(ws, progress)
    finally:
        ws.close()


class Mirror:
    """Keeps MLflow up to date beside the loop: ``tick`` looks for news and lets a child process write them."""

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._done: State | None = None
        self._not_before = 0.0
        self._pause_s = FIRST_PAUSE_S
        # Whether an alert tells of trouble; None: of a process before this one there may be one.
        self._told: bool | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def tick(self) -> None:
        """Starts the child where there are news and none works; returns at once."""
        if self._ws.config[SETTING] is None:
            self._settled()
            return
        if time.monotonic() < self._not_before or self._works():
            return
        found = state(self._ws)
        if found in {self._done, (0, 0, 0)}:
            return
        self._thread = threading.Thread(target=self._run, args=(found,), name="keepsight-mlflow", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Mirrors what is left before a short-lived process ends; trouble fails nothing."""
        if self._thread is not None:
            self._thread.join()
        if not self._stop.is_set() and self._ws.config[SETTING] is not None:
            found = state(self._ws)
            if found != self._done:
                self._run(found)

    def stop(self) -> None:
        """Ends the child; what it did not write is written by the next one."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _works(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self, found: State) -> None:
        try:
            run_child(
                "keepsight.loop.mirror:child",
                {"root": str(self._ws.config.root)},
                cancel=self._stop.is_set,
                on_progress=lambda _: None,
                threads=1,
                timeout_s=CHILD_TIMEOUT_S,
            )
        except (KeepsightError, OSError) as error:
            if not self._stop.is_set():
                log.warning("MLflow does not have the newest runs yet, and gets them later: %s", error)
                self._tell(error)
            self._not_before = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        else:
            self._done, self._pause_s = found, FIRST_PAUSE_S
            self._settled()

    def _tell(self, error: Exception) -> None:
        """Opens an alert in each project, once until MLflow is back; another process at work is no trouble."""
        if self._told or isinstance(error, ConflictError):
            return
        for project in self._ws.projects():
            if not alerts.open_alerts(self._ws, project, kind=ALERT):
                alerts.raise_alert(
                    self._ws,
                    project,
                    kind=ALERT,
                    key=f"since {self._ws.clock():.0f}",
                    title="MLflow does not get the newest runs",
                    text=f"{error} Nothing is lost: they are written once it can be reached.",
                )
        self._told = True

    def _settled(self) -> None:
        """Closes the alerts: MLflow has everything, or is no longer asked for."""
        if self._told is not False:
            for project in self._ws.projects():
                alerts.close_kinds(self._ws, project, (ALERT,), actor="keepsight")
            self._told = False


def _catch_up(ws: Workspace, store: MlflowStore, *, target: str, holder: str, progress: Progress) -> dict[str, Any]:
    ended = [row for row in runs.list_runs(ws, limit=MOST_RUNS) if row.finished and not _is_there(row, target)]
    for place, row in enumerate(reversed(ended)):
        progress({"text": "mirroring runs to MLflow", "done": place, "total": len(ended)})
        _hold(ws, holder)
        made = mirror.write(store, _entry_of_run(ws, row), register=_registers(ws, row.project))
        _note(ws, row.id, {"run": made, "to": target})
    written, moved = 0, {}
    for project in ws.projects():
        if not _registers(ws, project):
            continue
        known = models.list_models(ws, project)
        champion = models.champion(ws, project)
        challenger = next((model for model in known if model.status == "challenger"), None)
        for model in (champion, challenger):
            # A model that no run of this workspace made has no run in MLflow yet.
            if model is not None and store.version_of(project, model.bundle_digest) is None:
                _hold(ws, holder)
                mirror.write(store, _entry_of_model(ws, model), register=True)
                written += 1
        changed = mirror.aliases(
            store,
            project,
            champion=None if champion is None else champion.bundle_digest,
            challenger=None if challenger is None else challenger.bundle_digest,
        )
        if changed:
            moved[project] = changed
    return {"runs": len(ended), "models": written, "aliases": moved}


def _entry_of_run(ws: Workspace, row: runs.RunRow) -> entry.Entry:
    run, record = row.as_dict(), row.record or {}
    model = None if row.model_number is None else models.get(ws, row.project, row.model_number)
    content = None if model is None else Content.gather(ws, model, run=run)
    dataset = record.get("dataset")
    return entry.Entry(
        project=row.project,
        key=row.id,
        name=f"{row.project} run {row.seq}" if model is None else f"{row.project} model {model.number}",
        status=entry.STATUSES[row.status],
        started_at=row.started_at or row.created_at,
        ended_at=row.finished_at or row.created_at,
        params=entry.params_of(run),
        metrics=entry.metrics_of(
            {} if model is None else model.metrics, {} if content is None else content.evaluation, record
        ),
        tags=entry.tags_of(run),
        dataset=None if dataset is None else (int(dataset["version"]), str(dataset["digest"])),
        files={} if content is None else _files(content),
        bundle=None if model is None else models.load_bundle(ws, model),
        model_number=None if model is None else model.number,
    )


def _entry_of_model(ws: Workspace, model: Model) -> entry.Entry:
    if model.run_id is not None:
        return _entry_of_run(ws, runs.get(ws, model.run_id))
    content = Content.gather(ws, model, run=None)
    return entry.Entry(
        project=model.project,
        key=f"bundle-{model.bundle_digest}",
        name=f"{model.project} model {model.number}",
        status=entry.STATUSES["done"],
        started_at=model.created_at,
        ended_at=model.created_at,
        metrics=entry.metrics_of(model.metrics, content.evaluation, {}),
        tags={"keepsight.project": model.project, "keepsight.model_number": str(model.number)},
        files=_files(content),
        bundle=models.load_bundle(ws, model),
        model_number=model.number,
    )


def _files(content: Content) -> dict[str, str]:
    """Reports without pictures, and what the gate said."""
    told = document(content)
    files = {"report.md": markdown.render(told), "report.html": html.render(told)}
    if content.gate is not None:
        files["gate.json"] = json.dumps(content.gate, indent=1, default=str)
    return files


def _note(ws: Workspace, run_id: str, value: Mapping[str, str]) -> None:
    """Writes into an ended run's record where it is in MLflow; nothing else of such a run changes any more."""
    where = schema.run.c.id == run_id
    with ws.database.write() as connection:
        record = connection.scalar(sa.select(schema.run.c.record).where(where)) or {}
        connection.execute(sa.update(schema.run).where(where).values(record={**record, RECORD: dict(value)}))


def _registers(ws: Workspace, project: str) -> bool:
    return not str(ws.settings(project)["registry.url"] or "").startswith(REGISTRY_IN_MLFLOW)


def _is_there(row: runs.RunRow, target: str) -> bool:
    return bool(((row.record or {}).get(RECORD) or {}).get("to") == target)


def _target(url: str) -> str:
    """Names an address without showing what secrets it holds."""
    return hashlib.sha256(without_secrets(url).encode()).hexdigest()[:16]


def _hold(ws: Workspace, holder: str) -> bool:
    return leases.acquire(ws.database, LEASE, holder=holder, now=ws.clock(), ttl_s=LEASE_TTL_S) is not None
