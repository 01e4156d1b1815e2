"""Workflows that survive a killed process: named steps in order, each recorded when it ends (on DBOS 3).

The only module that imports dbos, and it does so when an engine is launched. A workflow is a list of steps; a step is a
function of a :class:`~keepsight.loop.workflow.Run` that answers a small JSON dict. A process that dies resumes, when an
engine with the same ``executor_id`` is launched, after the last recorded step. Steps are **at least once**: one that
had taken effect but was not yet recorded runs again, so every effect needs a key made of the run and the step.

DBOS is one per process, and so is a launched engine. Its methods block; call them from a thread, never from a running
event loop (DBOS refuses that).
"""

from __future__ import annotations

import contextvars
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from keepsight.errors import (
    CancelledError,
    ConflictError,
    KeepsightError,
    NotFoundError,
    NotReadyError,
    StorageError,
)
from keepsight.loop.faults import fault_point
from keepsight.loop.records import UNFINISHED, StepFailed, json_dict, run_status
from keepsight.loop.workflow import Run, RunState, RunStatus, Step, StopReason

if TYPE_CHECKING:
    from dbos import StepInfo, WorkflowStatus

P = ParamSpec("P")
T = TypeVar("T")

_APPLICATION = "keepsight"
_POOL_SIZE = 8
# A run that is cut off this often is taken for the cause of the crashes, and no longer restarted by itself.
_MAX_INTERRUPTIONS = 20


class _Interrupted(BaseException):
    """Leaves a run unrecorded, for the next start; DBOS records what is an Exception and lets anything else pass."""


class _Quiet(logging.Filter):
    """Drops DBOS's tracebacks of what the run's status tells anyway (failed by a KeepsightError, cancelled)."""

    _TOLD = frozenset({"StepFailed", "PortableWorkflowError", "DBOSAwaitedWorkflowCancelledError"})
    _PARKED = ("was cancelled during execution", "is no longer owned by this execution")

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        if kind is not None and kind.__name__ in self._TOLD:
            return False
        message = record.getMessage()
        return not message.startswith("DBOS failed to launch") and not any(part in message for part in self._PARKED)


_guard = threading.Lock()
_launched: list[Engine] = []


class Engine:
    """Runs workflows durably; declare them with :meth:`workflow`, then :meth:`launch` once and :meth:`shutdown`.

    Args:
        system_database_url: ``sqlite:///PATH`` (the file is created, in WAL mode) or ``postgresql://...``.
        executor_id: Stable name of who works here. Launching recovers the unfinished runs of the same name, so two live
            processes must never share one: hold a lease.
        application_version: Names the step lists. Runs of another version are left alone; :meth:`pending` shows them.
        schema: Where the tables stand on PostgreSQL.
    """

    def __init__(
        self, *, system_database_url: str, executor_id: str, application_version: str, schema: str = "keepsight_runs"
    ) -> None:
        self._url = system_database_url
        self._executor_id = executor_id
        self._version = application_version
        self._schema = schema
        self._workflows: dict[str, tuple[Step, ...]] = {}
        self._registered: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {}
        self._stopping = threading.Event()
        self._idle = threading.Condition()
        self._active: dict[str, int] = {}

    def workflow(self, name: str, *, steps: Sequence[Step]) -> None:
        """Declares the workflow ``name``: its steps in order, until one answers "stop". Before :meth:`launch` only.

        Each step has the fault points ``STEP:before``, ``STEP:after`` (it has worked, nothing is recorded) and
        ``STEP:recorded``.
        """
        names = [step.name for step in steps]
        if not steps or len(set(names)) != len(names):
            raise ValueError(f"workflow {name!r} needs steps of different names, got {names}")
        if name in self._workflows or self in _launched:
            raise ValueError(f"workflow {name!r} is declared twice or after launch")
        self._workflows[name] = tuple(steps)

    def launch(self) -> None:
        """Opens the database and resumes this executor's unfinished runs.

        Raises:
            ConflictError: Another engine is launched in this process.
            StorageError: The database cannot be opened.
        """
        if self._stopping.is_set():
            raise RuntimeError("an engine is launched once; make a new one after a shutdown")
        with _guard:
            if _launched:
                raise ConflictError(
                    "Another engine runs in this process.",
                    expected="one launched engine in a process, because DBOS is one per process.",
                    do="Shut the other one down first, or use it.",
                )
            _launched.append(self)
        opened = False
        try:
            self._open()
            opened = True
        finally:
            if not opened:
                self._close()

    def _open(self) -> None:
        from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer
        from dbos import error as dbos_error
        from sqlalchemy.exc import SQLAlchemyError

        logger = logging.getLogger("dbos")
        if not any(isinstance(each, _Quiet) for each in logger.filters):
            # DBOS writes to stderr by itself unless its logger has a handler; this way its warnings reach ours.
            logger.addHandler(logging.NullHandler())
            logger.addFilter(_Quiet())
        config: DBOSConfig = {
            "name": _APPLICATION,
            "system_database_url": self._url,
            "dbos_system_schema": self._schema,
            "sys_db_pool_size": _POOL_SIZE,
            "executor_id": self._executor_id,
            "application_version": self._version,
            "serializer": DBOSPortableJSONSerializer(),
            "enable_otlp": False,
            "log_level": "WARNING",
            # Nothing here waits for a notification; without the listener a connection less is held open.
            "use_listen_notify": False,
            # An idle sleep of DBOS's poller, which a shutdown has to sit out.
            "notification_listener_polling_interval_sec": 0.1,
            # The loop has its own scheduler; DBOS would look for schedules every 30 s.
            "scheduler_polling_interval_sec": 86_400.0,
        }
        try:
            self._prepare_sqlite()
            DBOS(config=config)
            for name, steps in self._workflows.items():
                declare = DBOS.workflow(name=name, max_recovery_attempts=_MAX_INTERRUPTIONS)
                self._registered[name] = declare(self._body(steps))
            DBOS.launch()
        except (SQLAlchemyError, dbos_error.DBOSException, sqlite3.Error) as error:
            raise StorageError(
                f"The database of durable runs cannot be opened: {getattr(error, 'orig', error)}",
                expected="a SQLite file in a writable folder, or a PostgreSQL database that answers.",
                do="Check the database setting, the folder's permissions or the PostgreSQL server; then start again.",
            ) from error

    def _prepare_sqlite(self) -> None:
        """WAL is kept in the file: readers (status, cancel checks) then never wait for the writer."""
        from sqlalchemy import make_url

        url = make_url(self._url)
        if url.get_backend_name() == "sqlite" and url.database:
            with closing(sqlite3.connect(url.database, timeout=30)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")

    def shutdown(self, *, timeout_s: float = 10.0) -> tuple[str, ...]:
        """Stops: steps are told (``stop_reason`` is "shutdown"), unfinished runs stay for the next launch.

        Returns:
            The runs whose step did not end within ``timeout_s``. Their threads go on until the step returns, without
            being recorded, and hold the interpreter's exit for as long.
        """
        if self not in _launched:
            return ()
        self._stopping.set()
        with self._idle:
            self._idle.wait_for(lambda: not self._active, timeout=timeout_s)
            left = tuple(sorted(self._active))
        self._close()
        return left

    def _close(self) -> None:
        from dbos import DBOS

        try:
            DBOS.destroy(destroy_registry=True)
        finally:
            self._registered.clear()
            with _guard:
                _launched.remove(self)

    def start(self, workflow: str, workflow_id: str, *, args: Mapping[str, Any]) -> None:
        """Starts the run ``workflow_id``, once: a second start of the same id changes nothing, also after a crash.

        Args:
            workflow: A declared name.
            workflow_id: Id of the run, chosen by the caller.
            args: JSON dict for the steps; ids, not data.

        Raises:
            NotFoundError: No such workflow is declared.
            ConflictError: The id belongs to a run of another workflow.
        """
        self._require_running()
        from dbos import DBOS, SetWorkflowID
        from dbos import error as dbos_error

        if workflow not in self._registered:
            raise NotFoundError.among("workflow", workflow, self._registered)
        if not workflow_id.strip():
            raise ValueError("workflow_id must not be empty")
        body, plain = self._registered[workflow], json_dict(args, what="args")

        def begin() -> None:
            with SetWorkflowID(workflow_id):
                DBOS.start_workflow(body, workflow_id, plain)

        try:
            _apart(begin)
        except dbos_error.DBOSConflictingWorkflowError as error:
            raise ConflictError(
                f'The run "{workflow_id}" exists and is not a "{workflow}".',
                expected="an id that no other workflow uses.",
                do="Start it under a new id.",
            ) from error

    def status(self, workflow_id: str) -> RunStatus:
        """The run ``workflow_id``.

        Raises:
            NotFoundError: It was never started.
        """
        self._require_running()
        from dbos import DBOS

        found = _apart(DBOS.get_workflow_status, workflow_id)
        if found is None:
            raise NotFoundError(
                f'There is no run "{workflow_id}".',
                expected="the id of a run that was started.",
                do="Look the id up in the list of runs.",
                name=workflow_id,
            )
        return self._describe(found)

    def pending(self) -> tuple[RunStatus, ...]:
        """All unfinished runs in the database, oldest first, whoever's they are."""
        self._require_running()
        from dbos import DBOS

        found = _apart(lambda: DBOS.list_workflows(status=UNFINISHED))
        return tuple(self._describe(each) for each in found)

    def wait(self, workflow_id: str, *, timeout_s: float | None = None, poll_s: float = 0.1) -> RunStatus:
        """The run's status once it is finished and left by this process, or as it is after ``timeout_s``."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            status = self.status(workflow_id)
            if (status.finished and not status.active) or (deadline is not None and time.monotonic() >= deadline):
                return status
            time.sleep(poll_s)

    def cancel(self, workflow_id: str) -> RunStatus:
        """Cancels the run: no further step starts, a running one is told. A finished run stays as it is."""
        from dbos import DBOS

        if not self.status(workflow_id).finished:
            _apart(DBOS.cancel_workflow, workflow_id)
        return self.status(workflow_id)

    def resume(self, workflow_id: str) -> RunStatus:
        """Continues a cancelled or failed run after its last good step; an unfinished one stays as it is.

        Raises:
            ConflictError: The run is done, its cancelled step has not ended yet, or another version started it.
        """
        from dbos import DBOS

        status = self.status(workflow_id)
        if not status.finished:
            return status
        if status.state is RunState.DONE or status.active or status.application_version != self._version:
            reason = "is done" if status.state is RunState.DONE else "was started by another version"
            raise ConflictError(
                f'The run "{workflow_id}" {"still ends its last step" if status.active else reason}.',
                expected="a cancelled or failed run of this version that has come to rest.",
                do="Wait a moment and try again." if status.active else "Start a new run.",
            )
        # DBOS's own resume would answer a recorded failure again; a rewind drops it.
        failed = [info["function_id"] for info in self._steps(workflow_id) if info["error"] is not None]
        first = failed[0] if failed else len(status.steps) + 1
        _apart(lambda: DBOS.rewind_workflow(workflow_id, start_step=first))
        return self.status(workflow_id)

    def _require_running(self) -> None:
        if self not in _launched or self._stopping.is_set():
            raise NotReadyError(
                "The engine of durable runs is not running.",
                expected="a launched engine that is not shutting down.",
                do="Start the server, or try again when it is up.",
            )

    def _body(self, steps: tuple[Step, ...]) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
        from dbos import DBOS

        def body(run_id: str, args: dict[str, Any]) -> dict[str, Any]:
            results: dict[str, Mapping[str, Any]] = {}
            with self._entered(run_id):
                for step in steps:
                    # DBOS itself leaves here where the run was cancelled: it asks before each step.
                    run = Run(id=run_id, args=args, results=dict(results), stop_reason=self._asker(run_id))
                    results[step.name] = DBOS.run_step({"name": step.name}, self._perform, step, run)
                    fault_point(f"{step.name}:recorded")
                    if "stop" in results[step.name]:
                        return {"stop": results[step.name]["stop"]}
            return {"stop": None}

        return body

    def _perform(self, step: Step, run: Run) -> dict[str, Any]:
        """One step with its retries, ended in one of three ways: a result, StepFailed, or _Interrupted."""
        if self._stopping.is_set():
            raise _Interrupted
        try:
            fault_point(f"{step.name}:before")
            result = json_dict(self._attempt(step, run), what=f'the result of step "{step.name}"')
            fault_point(f"{step.name}:after")
        except KeepsightError as error:
            if isinstance(error, CancelledError) and run.stop_reason() == "shutdown":
                raise _Interrupted from error
            raise StepFailed(error) from error
        if self not in _launched:
            raise _Interrupted
        return result

    def _attempt(self, step: Step, run: Run) -> Mapping[str, Any]:
        for attempt in range(step.retries):
            try:
                return step.fn(run)
            except CancelledError:
                raise
            except step.retry_on as error:
                logging.getLogger(__name__).warning(
                    'Step "%s" of run "%s" failed and is tried again: %s', step.name, run.id, error
                )
                self._stopping.wait(step.retry_wait_s * 2**attempt)
                if run.cancelled():
                    raise CancelledError(
                        f'Step "{step.name}" was stopped while it waited to be tried again.',
                        expected="a step that ends by itself.",
                        do="Resume the run, or start a new one.",
                    ) from error
        return step.fn(run)

    def _asker(self, run_id: str) -> Callable[[], StopReason | None]:
        from dbos import DBOS

        def ask() -> StopReason | None:
            if self._stopping.is_set():
                return "shutdown"
            found = _apart(DBOS.get_workflow_status, run_id)
            return "cancelled" if found is not None and found.status == "CANCELLED" else None

        return ask

    @contextmanager
    def _entered(self, run_id: str) -> Iterator[None]:
        with self._idle:
            self._active[run_id] = self._active.get(run_id, 0) + 1
        try:
            yield
        finally:
            with self._idle:
                self._active[run_id] -= 1
                if not self._active[run_id]:
                    del self._active[run_id]
                self._idle.notify_all()

    def _describe(self, found: WorkflowStatus) -> RunStatus:
        with self._idle:
            active = found.workflow_id in self._active
        return run_status(found, self._steps(found.workflow_id), active=active)

    def _steps(self, workflow_id: str) -> list[StepInfo]:
        from dbos import DBOS

        return _apart(DBOS.list_workflow_steps, workflow_id)


def _apart(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls DBOS outside the run that the calling thread is in, which would record the call as one of its steps."""
    return contextvars.Context().run(call, *args, **kwargs)
