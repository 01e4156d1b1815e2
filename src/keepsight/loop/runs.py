"""Runs as the workspace knows them: queued by anyone, worked on by the leader, followed by everyone.

A row is the request and the record; the durable workflow of the same id does the work. So the command line, a server
without a loop and the dashboard all start a run the same way: by a row.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepsight.errors import ConflictError, KeepsightError, NotFoundError
from keepsight.loop import scratch, spending
from keepsight.store import audit, schema
from keepsight.store.workspace import Workspace

OPEN = ("queued", "running")
TRIGGERS = ("hand", "api", "ci", "drift", "accuracy", "labels", "schedule")


@dataclass(frozen=True)
class RunRow:
    """One run: why it was started, where it stands and what came of it. Times are seconds since 1970."""

    id: str
    seq: int
    project: str
    trigger: str
    reason: str
    actor: str
    trace_id: str
    status: str
    step: str | None
    progress: dict[str, Any] | None
    outcome: str | None
    params: dict[str, Any]
    created_at: float
    started_at: float | None
    finished_at: float | None
    dataset_version: int | None
    record: dict[str, Any] | None
    gate: dict[str, Any] | None
    model_number: int | None
    error: dict[str, Any] | None

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.status not in OPEN

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """What went wrong without changing the outcome: ``found``, ``expected`` and ``do`` of errors, with ``step``."""
        return list((self.record or {}).get("warnings", ()))

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return asdict(self)


def enqueue(
    ws: Workspace,
    project: str,
    *,
    trigger: str,
    reason: str,
    actor: str,
    params: dict[str, Any] | None = None,
    trace_id: str | None = None,
) -> str:
    """Asks for a run and returns its id; the leader starts it.

    Raises:
        ConflictError: A run of this project is queued or under way.
        BudgetError: The month's money for training is spent.
    """
    ws.check_project(project)
    spending.check_month(ws, project)
    run_id, now = uuid.uuid4().hex, ws.clock()
    with ws.database.write() as connection:
        ws.database.lock(connection, "run")
        busy = connection.scalar(
            sa.select(schema.run.c.id).where(schema.run.c.project_id == project, schema.run.c.status.in_(OPEN))
        )
        if busy is not None:
            raise ConflictError(
                f"A run of {project} is under way ({busy[:8]}).",
                expected="one run at a time for a project.",
                do=f"Wait for it, or cancel it: `keepsight runs cancel {project}`.",
                run=busy,
            )
        seq = 1 + (connection.scalar(sa.select(sa.func.max(schema.run.c.seq))) or 0)
        connection.execute(
            sa.insert(schema.run).values(
                id=run_id,
                seq=seq,
                project_id=project,
                trigger=trigger,
                reason=reason,
                actor=actor,
                trace_id=trace_id or uuid.uuid4().hex,
                status="queued",
                params=params or {},
                created_at=now,
            )
        )
        audit.append(
            ws.database,
            connection,
            actor=actor,
            action="run.request",
            target=f"{project}/{run_id}",
            now=now,
            detail={"trigger": trigger, "reason": reason},
        )
    return run_id


def get(ws: Workspace, run_id: str) -> RunRow:
    """One run.

    Raises:
        NotFoundError: No such run.
    """
    with ws.database.read() as connection:
        row = connection.execute(sa.select(schema.run).where(schema.run.c.id == run_id)).mappings().one_or_none()
    if row is None:
        raise NotFoundError(
            f'There is no run "{run_id}".', expected="the id of a run.", do="See `keepsight runs list PROJECT`."
        )
    return _run(row)


def list_runs(ws: Workspace, project: str | None = None, *, limit: int = 100, unfinished: bool = False) -> list[RunRow]:
    """Runs of one project or of all, newest first."""
    query = sa.select(schema.run).order_by(schema.run.c.seq.desc()).limit(limit)
    if project is not None:
        query = query.where(schema.run.c.project_id == project)
    if unfinished:
        query = query.where(schema.run.c.status.in_(OPEN))
    with ws.database.read() as connection:
        return [_run(row) for row in connection.execute(query).mappings()]


def cancel(ws: Workspace, run_id: str, *, actor: str) -> None:
    """Marks a run as cancelled, audited; the leader stops its work within a second.

    Raises:
        ConflictError: It has ended already.
    """
    run = get(ws, run_id)
    now = ws.clock()
    with ws.database.write() as connection:
        changed = connection.execute(
            sa.update(schema.run)
            .where(schema.run.c.id == run_id, schema.run.c.status.in_(OPEN))
            .values(status="cancelled", finished_at=now)
        ).rowcount
        if not changed:
            raise ConflictError(
                f"The run {run_id[:8]} is {run.status}.", expected="a run that is queued or under way.", do="Nothing."
            )
        audit.append(
            ws.database, connection, actor=actor, action="run.cancel", target=f"{run.project}/{run_id}", now=now
        )


def of_trace(ws: Workspace, project: str, trace_id: str) -> RunRow | None:
    """The newest run of a project that was asked for under a trace id, or None."""
    query = (
        sa.select(schema.run)
        .where(schema.run.c.project_id == project, schema.run.c.trace_id == trace_id)
        .order_by(schema.run.c.seq.desc())
        .limit(1)
    )
    with ws.database.read() as connection:
        row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _run(row)


def update(ws: Workspace, run_id: str, **values: Any) -> bool:
    """Changes columns of a run that has not ended; whether there was one."""
    with ws.database.write() as connection:
        return update_in(connection, run_id, **values)


def update_in(connection: Connection, run_id: str, **values: Any) -> bool:
    """The same within the caller's transaction."""
    statement = sa.update(schema.run).where(schema.run.c.id == run_id, schema.run.c.status.in_(OPEN)).values(values)
    return connection.execute(statement).rowcount == 1


def _run(row: Any) -> RunRow:
    names = RunRow.__dataclass_fields__
    return RunRow(project=row["project_id"], **{name: row[name] for name in names if name != "project"})


def add_step(ws: Workspace, run_id: str, *, name: str, began: float, ended: float) -> None:
    """Notes when a step worked, in the run's record; a repeated step replaces its earlier entry."""
    with ws.database.write() as connection:
        record = connection.scalar(sa.select(schema.run.c.record).where(schema.run.c.id == run_id)) or {}
        steps = [step for step in record.get("steps", []) if step["name"] != name]
        steps.append({"name": name, "began": began, "ended": ended})
        update_in(connection, run_id, record={**record, "steps": steps})


def add_worked(ws: Workspace, run_id: str, *, step: str, seconds: float) -> None:
    """Notes how long a step has worked by now, over all its attempts: what is spent counts even if it is killed."""
    with ws.database.write() as connection:
        record = connection.scalar(sa.select(schema.run.c.record).where(schema.run.c.id == run_id)) or {}
        worked = {**record.get("worked_s", {}), step: seconds}
        update_in(connection, run_id, record={**record, "worked_s": worked})


def add_record(ws: Workspace, run_id: str, values: dict[str, Any]) -> None:
    """Adds facts to the run's record: plan, seed, digests, environment, cost."""
    with ws.database.write() as connection:
        record = connection.scalar(sa.select(schema.run.c.record).where(schema.run.c.id == run_id)) or {}
        update_in(connection, run_id, record={**record, **values})


def fail(ws: Workspace, run_id: str, error: KeepsightError) -> bool:
    """Ends a run that an error stopped: as failed, or, where its outcome stands, as done with a warning; which it was.

    What came of a run does not change because something after it could not be done: a model that is live is live.
    """
    row = get(ws, run_id)
    told = error.as_dict()["error"]
    if row.outcome is None:
        finish(ws, run_id, status="failed", error=told)
        return True
    warning = {name: told[name] for name in ("code", "found", "expected", "do")}
    add_record(ws, run_id, {"warnings": [*row.warnings, {**warning, "step": row.step}]})
    finish(ws, run_id, status="done")
    return False


def finish(ws: Workspace, run_id: str, *, status: str, error: dict[str, Any] | None = None) -> None:
    """Closes a run: ``done``, ``failed`` or ``cancelled``; what it took, what that cost, and its folder is gone."""
    row = get(ws, run_id)
    duration_s = spending.worked_s(row.record)
    add_record(ws, run_id, {"duration_s": duration_s, "cost_eur": spending.cost_eur(ws, duration_s)})
    update(ws, run_id, status=status, error=error, finished_at=ws.clock(), progress=None)
    scratch.remove(ws, run_id)


def find(ws: Workspace, beginning: str) -> RunRow:
    """The run whose id begins so.

    Raises:
        NotFoundError: None does. ConflictError: Several do.
    """
    with ws.database.read() as connection:
        ids = connection.scalars(
            sa.select(schema.run.c.id).where(schema.run.c.id.startswith(beginning, autoescape=True)).limit(2)
        ).all()
    if len(ids) > 1:
        raise ConflictError(f"Several runs begin with {beginning}.", expected="one.", do="Give more letters.")
    return get(ws, ids[0] if ids else beginning)
