"""The leader: the one process of a workspace that runs the loop.

It holds the lease ``loop``. While it does, it takes kept pictures into the review queue, watches the traffic, starts
what is due and works on queued runs. Whoever holds the lease continues the runs that a killed leader left: they all run
under one executor name, and the lease makes sure that there is one such executor.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from keepsight import __version__
from keepsight.delivery import deployments
from keepsight.errors import BudgetError, CancelledError, ConflictError, KeepsightError, NotFoundError
from keepsight.loop import mirror, runs, triggers
from keepsight.loop.engine import Engine
from keepsight.loop.pipeline import WORKFLOW, Pipeline
from keepsight.loop.workflow import RunState
from keepsight.monitoring import alerts, watch
from keepsight.review import intake
from keepsight.store import leases
from keepsight.store.workspace import Workspace

LEASE = "loop"
LEASE_TTL_S = 10.0
TICK_S = 0.25
# Rarer than the look for runs: this writes to the disk, which the answers wait for.
INTAKE_EVERY_S = 1.0
WATCH_EVERY_S = 1.0
EXECUTOR = "keepsight-loop"
# Names the list of steps: runs of another list are not continued.
PIPELINE_VERSION = "2"

log = logging.getLogger(__name__)


class Leader:
    """Runs the loop of a workspace in a background thread.

    Raises:
        ConflictError: Another process holds the lease (``start``).
    """

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._fence = 0
        self._renewed = 0.0
        self._taken_in = 0.0
        self._watched = 0.0
        # Runs that were open at the last look; before the first, one that is open no more.
        self._open = {"of an earlier leader"}
        self._told = ""
        # Reasons for retrains that the month's money did not allow; each is told once.
        self._unaffordable: set[str] = set()
        self.mirror = mirror.Mirror(ws)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._engine: Engine | None = None

    def start(self, *, wait_s: float = 0.0) -> None:
        """Takes the lease, continues unfinished runs and starts the thread.

        ``wait_s`` is how long to wait for another holder to go.
        """
        deadline = time.monotonic() + wait_s
        while not self._take_lease():
            if time.monotonic() >= deadline:
                raise _taken(self.ws)
            time.sleep(TICK_S)
        engine = Engine(
            system_database_url=_engine_url(self.ws), executor_id=EXECUTOR, application_version=PIPELINE_VERSION
        )
        engine.workflow(WORKFLOW, steps=Pipeline(self.ws, self._lease).steps())
        launched = False
        try:
            engine.launch()
            launched = True
        finally:
            if not launched:
                leases.release(self.ws.database, LEASE, holder=self.holder, now=self.ws.clock())
        self._engine = engine
        self._thread = threading.Thread(target=self._run, args=(engine,), name="keepsight-loop", daemon=True)
        self._thread.start()

    def stop(self) -> tuple[str, ...]:
        """Ends the thread, leaves unfinished runs for the next leader and gives the lease back.

        Returns:
            Runs whose step did not end in time.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.mirror.stop()
        left = () if self._engine is None else self._engine.shutdown()
        leases.release(self.ws.database, LEASE, holder=self.holder, now=self.ws.clock())
        return left

    def _lease(self) -> dict[str, Any]:
        return {"name": LEASE, "holder": self.holder, "fence": self._fence}

    def _take_lease(self) -> bool:
        now = self.ws.clock()
        holder = leases.holder_of(self.ws.database, LEASE, now=now)
        if holder is not None and holder != self.holder and _is_dead(holder):
            leases.release(self.ws.database, LEASE, holder=holder, now=now)
        fence = leases.acquire(self.ws.database, LEASE, holder=self.holder, now=now, ttl_s=LEASE_TTL_S)
        if fence is None:
            return False
        self._fence, self._renewed = fence, time.monotonic()
        return True

    def _run(self, engine: Engine) -> None:
        while not self._stop.wait(TICK_S):
            try:
                if not self._keep_lease(engine):
                    return
                self._tick(engine)
            except (KeepsightError, sa.exc.SQLAlchemyError, OSError) as error:
                # The disk may have room again, the database may come back: the loop goes on then.
                self._tell(f"The loop waits: {error}")
                self._stop.wait(2.0)

    def _tell(self, message: str) -> None:
        """Logs a trouble once, until another one comes."""
        if message != self._told:
            log.error("%s", message)
            self._told = message

    def _keep_lease(self, engine: Engine) -> bool:
        if time.monotonic() - self._renewed < LEASE_TTL_S / 4:
            return True
        before = self._fence
        # Each holding counts the fence up by one. The next number means that the lease ran out (this machine slept, a
        # tick or the database took long) while nobody else wanted it: the loop goes on. A step that had begun under the
        # old number is turned away and tries again.
        if self._take_lease() and self._fence <= before + 1:
            return True
        log.error("Another process took over the loop of this workspace; this one stops its part.")
        engine.shutdown()
        return False

    def _tick(self, engine: Engine) -> None:
        if time.monotonic() - self._taken_in >= INTAKE_EVERY_S:
            self._taken_in = time.monotonic()
            intake.run(self.ws)
        if time.monotonic() - self._watched >= WATCH_EVERY_S:
            self._watched = time.monotonic()
            for project in self.ws.projects():
                try:
                    watch.tick(self.ws, project)
                except KeepsightError as error:
                    # A model that cannot be watched must not keep the other projects from their loop.
                    self._tell(f"{project} is not watched: {error}")
                deployments.settle(self.ws, project)
                trigger = triggers.due(self.ws, project)
                if trigger is not None:
                    self._enqueue(project, trigger)
            self.mirror.tick()
        rows = runs.list_runs(self.ws, unfinished=True)
        now_open = {row.id for row in rows}
        # Noted before anything can fail, so that none of them is forgotten.
        self._open |= now_open
        for row in reversed(rows):
            self._advance(engine, row)
        if self._open != now_open:
            # Asking the engine is dear: only where a run is not open any more may there be something to cancel.
            self._cancel(engine)
            self._open = now_open

    def _enqueue(self, project: str, trigger: triggers.Trigger) -> None:
        try:
            runs.enqueue(
                self.ws,
                project,
                trigger=trigger.name,
                reason=trigger.reason,
                actor="keepsight",
                trace_id=trigger.trace_id,
            )
        except ConflictError:
            log.info("A run of %s was started meanwhile.", project)
        except BudgetError as error:
            if trigger.reason in self._unaffordable:
                return
            self._unaffordable.add(trigger.reason)
            alerts.raise_alert(
                self.ws,
                project,
                kind="run",
                key=f"month {datetime.fromtimestamp(self.ws.clock(), UTC):%Y-%m}",
                title="A retrain is due, but this month's money for training is spent",
                text=f"{error} The reason for the retrain: {trigger.reason}.",
                data={},
                trace_id=trigger.trace_id,
            )

    def _advance(self, engine: Engine, row: runs.RunRow) -> None:
        """Starts a queued run; writes down how a run ended whose workflow has."""
        if row.status == "queued":
            if runs.update(self.ws, row.id, status="running", started_at=self.ws.clock()):
                engine.start(WORKFLOW, row.id, args={})
            return
        try:
            status = engine.status(row.id)
        except NotFoundError:
            # Killed between the row and the workflow: start it now; a second start of one id changes nothing.
            engine.start(WORKFLOW, row.id, args={})
            return
        if not status.finished:
            if status.application_version != PIPELINE_VERSION:
                # Nothing would ever go on with it.
                self._fail(row, _of_another_version(row))
                engine.cancel(row.id)
            return
        if status.state is RunState.DONE:
            runs.finish(self.ws, row.id, status="done")
            alerts.close_kinds(self.ws, row.project, ("run",), actor="keepsight")
        elif status.error is None or isinstance(status.error, CancelledError):
            # A person cancelled it since the row was read, or its workflow was cancelled from outside.
            runs.finish(self.ws, row.id, status="cancelled")
        else:
            self._fail(row, status.error)

    def _fail(self, row: runs.RunRow, error: KeepsightError) -> None:
        """Ends a run that an error stopped, and tells of it; where its outcome stands, the run only has a warning."""
        if runs.get(self.ws, row.id).outcome is None:
            # The alert first: a leader that dies in between raises the same one again.
            alerts.raise_alert(
                self.ws,
                row.project,
                kind="run",
                key=row.id,
                title="A training run failed",
                text=str(error),
                data={"run": row.id},
                trace_id=row.trace_id,
            )
        if not runs.fail(self.ws, row.id, error):
            log.warning("Run %s of %s ended, but its last step failed: %s", row.id[:8], row.project, error)
            alerts.close_kinds(self.ws, row.project, ("run",), actor="keepsight")

    def _cancel(self, engine: Engine) -> None:
        """Stops the workflows of runs that a person cancelled."""
        for status in engine.pending():
            if runs.get(self.ws, status.id).status == "cancelled":
                engine.cancel(status.id)


def somebody_leads(ws: Workspace) -> bool:
    """Whether a living process runs the loop of this workspace."""
    holder = leases.holder_of(ws.database, LEASE, now=ws.clock())
    return holder is not None and not _is_dead(holder)


def _engine_url(ws: Workspace) -> str:
    url = ws.config["database"]
    return f"sqlite:///{ws.state / 'runs.db'}" if url is None else str(url)


def _of_another_version(row: runs.RunRow) -> ConflictError:
    return ConflictError(
        "Another version of Keepsight began this run; this one has other steps, so nothing can go on with it.",
        expected="a run that ends before Keepsight is updated.",
        do=f"Start a new one: `keepsight retrain {row.project}`. Pictures, labels and models are as they were.",
        pipeline=PIPELINE_VERSION,
    )


def _is_dead(holder: str) -> bool:
    """Whether a holder was a process of this machine that is gone; a killed server is then followed at once."""
    host, pid, _ = holder.rsplit(":", 2)
    return host == socket.gethostname() and not Path(f"/proc/{pid}").exists()


def _taken(ws: Workspace) -> ConflictError:
    holder = leases.holder_of(ws.database, LEASE, now=ws.clock()) or "unknown"
    return ConflictError(
        f"Another Keepsight server runs on this workspace ({holder.rsplit(':', 1)[0]}).",
        expected="one `keepsight up` for a workspace.",
        do="Use that one, stop it first, or start further servers with `keepsight serve`.",
        holder=holder,
        version=__version__,
    )
