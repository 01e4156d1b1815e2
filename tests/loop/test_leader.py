"""The leader: one for a workspace, followed at once when it is dead, gone when it lost the lease."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepsight.errors import BundleError, CancelledError, ConflictError, DataError
from keepsight.loop import leader, runs
from keepsight.loop.engine import Engine
from keepsight.loop.leader import EXECUTOR, LEASE, Leader, somebody_leads
from keepsight.loop.pipeline import WORKFLOW, Pipeline
from keepsight.loop.workflow import Run, Step
from keepsight.monitoring import alerts, watch
from keepsight.store import leases, schema
from keepsight.store.workspace import Workspace
from tests.tiny import workspace_with


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with workspace_with(tmp_path / "ws") as opened:
        opened.clock = time.time
        yield opened


@pytest.fixture
def lead(ws: Workspace) -> Iterator[Callable[[], Leader]]:
    """Starts a leader; it stops after the test."""
    made: list[Leader] = []

    def start() -> Leader:
        made.append(Leader(ws))
        made[-1].start()
        return made[-1]

    yield start
    for each in made:
        each.stop()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def ask(ws: Workspace, project: str = "shop") -> str:
    return runs.enqueue(ws, project, trigger="hand", reason="r", actor="ana")


def holder(ws: Workspace) -> str | None:
    return leases.holder_of(ws.database, LEASE, now=ws.clock())


def hold(ws: Workspace, name: str, *, ttl_s: float = 60.0) -> None:
    assert leases.acquire(ws.database, LEASE, holder=name, now=ws.clock(), ttl_s=ttl_s) is not None


def test_it_works_on_runs_and_a_second_one_is_refused(ws: Workspace, lead: Callable[[], Leader]) -> None:
    assert not somebody_leads(ws)
    cancelled, stale = ask(ws), ask(ws, "other")
    runs.cancel(ws, cancelled, actor="ana")
    # As a server leaves it that was killed between the row and the workflow.
    runs.update(ws, stale, status="running")
    queued = ask(ws)
    first = lead()
    assert somebody_leads(ws)
    with pytest.raises(ConflictError, match="Another Keepsight server"):
        Leader(ws).start()
    assert holder(ws) == first.holder
    # Neither project has pictures, so both fail, which is told once each.
    until(lambda: runs.get(ws, queued).finished and runs.get(ws, stale).finished)
    for run_id, project in ((queued, "shop"), (stale, "other")):
        run = runs.get(ws, run_id)
        assert run.status == "failed"
        assert run.error is not None
        assert "no pictures yet" in str(run.error)
        assert [(alert.kind, alert.data) for alert in alerts.open_alerts(ws, project)] == [("run", {"run": run_id})]
    assert runs.get(ws, cancelled).status == "cancelled"
    assert first.stop() == ()
    assert not somebody_leads(ws)


def under_way(ws: Workspace, *, version: str, outcome: str | None) -> str:
    """A run whose workflow a version of Keepsight began, and left in its last step."""
    run_id = ask(ws)
    runs.update(ws, run_id, status="running", step="robustness", outcome=outcome)
    url = f"sqlite:///{ws.state / 'runs.db'}"
    engine = Engine(system_database_url=url, executor_id=EXECUTOR, application_version=version)

    def waits(run: Run) -> dict[str, Any]:
        until(run.cancelled)
        raise CancelledError("It was stopped.", expected="an end.", do="Wait.")

    engine.workflow(WORKFLOW, steps=[Step("robustness", waits)])
    engine.launch()
    engine.start(WORKFLOW, run_id, args={})
    assert engine.shutdown() == ()
    return run_id


def test_a_run_of_another_version_ends_with_an_error_that_says_what_to_do(
    ws: Workspace, lead: Callable[[], Leader]
) -> None:
    run_id = under_way(ws, version="1", outcome=None)
    lead()
    until(lambda: runs.get(ws, run_id).finished)
    run = runs.get(ws, run_id)
    assert run.status == "failed"
    assert run.error is not None
    assert "Another version of Keepsight" in run.error["found"]
    assert "keepsight retrain shop" in run.error["do"]
    assert [alert.data for alert in alerts.open_alerts(ws, "shop")] == [{"run": run_id}]
    again = ask(ws)
    until(lambda: runs.get(ws, again).finished)


@pytest.mark.parametrize("version", ["1", leader.PIPELINE_VERSION])
def test_what_came_of_a_run_stands_when_a_later_step_fails(
    ws: Workspace, lead: Callable[[], Leader], version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Pipeline, run: Run, row: runs.RunRow) -> dict[str, Any]:
        raise DataError("No picture can be spoiled.", expected="some.", do="Look at them.")

    monkeypatch.setattr(Pipeline, "robustness", fails)
    for step in ("version", "features", "train", "evaluate", "gate", "deploy"):
        monkeypatch.setattr(Pipeline, step, lambda _, run, row: {})
    run_id = under_way(ws, version=version, outcome="deployed")
    lead()
    until(lambda: runs.get(ws, run_id).finished)
    run = runs.get(ws, run_id)
    assert (run.status, run.outcome, run.error) == ("done", "deployed", None)
    (warning,) = run.warnings
    assert warning["step"] == "robustness"
    assert warning["found"].startswith("Another version" if version == "1" else "No picture can be spoiled")
    assert alerts.open_alerts(ws, "shop") == []


def test_a_dead_leader_is_followed_at_once(ws: Workspace, lead: Callable[[], Leader]) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    hold(ws, f"{socket.gethostname()}:{dead.pid}:abcdef01")
    assert not somebody_leads(ws)
    follower = lead()
    assert holder(ws) == follower.holder


def test_a_leader_elsewhere_is_never_taken_for_dead(ws: Workspace) -> None:
    hold(ws, "another machine:1:abcdef01")
    assert somebody_leads(ws)
    with pytest.raises(ConflictError, match="another machine:1"):
        Leader(ws).start(wait_s=0.1)


def test_a_leader_that_lost_the_lease_leaves_the_work_to_the_other(
    ws: Workspace, lead: Callable[[], Leader], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leader, "LEASE_TTL_S", 1.0)
    lost = lead()
    leases.release(ws.database, LEASE, holder=lost.holder, now=ws.clock() - 1)
    hold(ws, "another machine:1:abcdef01")
    until(lambda: "took over" in caplog.text)
    run_id = ask(ws)
    assert lost.stop() == ()
    assert runs.get(ws, run_id).status == "queued"
    assert holder(ws) == "another machine:1:abcdef01"


def test_a_leader_whose_lease_ran_out_unnoticed_goes_on(
    ws: Workspace, lead: Callable[[], Leader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "LEASE_TTL_S", 1.0)
    slept = lead()
    leases.release(ws.database, LEASE, holder=slept.holder, now=ws.clock() - 1)
    until(lambda: holder(ws) == slept.holder)
    with ws.database.read() as connection:
        assert connection.scalar(sa.select(schema.lease.c.fence)) == 2
    run_id = ask(ws)
    until(lambda: runs.get(ws, run_id).finished)


def test_a_model_that_cannot_be_watched_does_not_stop_the_loop(
    ws: Workspace, lead: Callable[[], Leader], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def tick(_: Workspace, project: str) -> None:
        raise BundleError(f"The bundle of {project} is damaged.", expected="a whole one.", do="Roll back.")

    monkeypatch.setattr(watch, "tick", tick)
    lead()
    until(lambda: "is not watched" in caplog.text)
    run_id = ask(ws)
    until(lambda: runs.get(ws, run_id).finished)
