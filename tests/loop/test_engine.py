from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from keepsight.errors import (
    CancelledError,
    ConflictError,
    DataError,
    NotFoundError,
    NotReadyError,
    StorageError,
    TrainingError,
)
from keepsight.loop.child import run_child
from keepsight.loop.engine import Engine
from keepsight.loop.workflow import Run, RunState, RunStatus, Step

PROCESS = Path(__file__).parent / "engine_process.py"
STEPS = ["prepare", "train", "deploy"]

Make = Callable[..., Engine]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The database of durable runs, of both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'runs.db'}"
    found: str = request.getfixturevalue("postgres_database")
    return found


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    """Makes a launched engine whose workflow "work" has the steps given; shuts down what the test left running."""
    made: list[Engine] = []

    def launch(*steps: Step, executor_id: str = "here", application_version: str = "1") -> Engine:
        engine = Engine(system_database_url=url, executor_id=executor_id, application_version=application_version)
        engine.workflow("work", steps=steps)
        made.append(engine)
        engine.launch()
        return engine

    yield launch
    for engine in made:
        engine.shutdown()


def finish(engine: Engine, run_id: str) -> RunStatus:
    status = engine.wait(run_id, timeout_s=60)
    assert status.finished, status
    return status


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Count:
    """A step that counts how often it ran."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, run: Run) -> dict[str, Any]:
        self.calls += 1
        return {"calls": self.calls}


class Patient:
    """A step that begins, then waits to be cancelled or let go."""

    def __init__(self, *, listens: bool = True) -> None:
        self.began = threading.Semaphore(0)
        self.release = threading.Event()
        self.reasons: list[str | None] = []
        self._listens = listens

    def __call__(self, run: Run) -> dict[str, Any]:
        self.began.release()
        while not self.release.wait(0.02):
            reason = run.stop_reason()
            if reason and self._listens:
                self.reasons.append(reason)
                raise CancelledError("Stopped.", expected="an end.", do="Nothing.")
        return {"patient": True}


def test_steps_run_in_order_and_see_what_came_before(make: Make) -> None:
    def second(run: Run) -> dict[str, Any]:
        return {"sum": run.args["a"] + run.results["first"]["b"], "id": run.id}

    engine = make(Step("first", lambda run: {"b": 2, "pair": (1, 2)}), Step("second", second))
    engine.start("work", "run-1", args={"a": 40})
    status = finish(engine, "run-1")
    assert status.state is RunState.DONE
    assert status.workflow == "work"
    assert status.args == {"a": 40}
    assert status.results == {"first": {"b": 2, "pair": [1, 2]}, "second": {"sum": 42, "id": "run-1"}}
    assert [step.name for step in status.steps] == ["first", "second"]
    assert status.steps[0].started_ms <= status.steps[0].ended_ms <= status.steps[1].ended_ms
    assert status.error is None and status.stop is None and not status.active
    assert engine.pending() == ()


def test_a_step_can_end_the_run_early(make: Make) -> None:
    engine = make(Step("gate", lambda run: {"stop": "rejected", "why": "ä"}), Step("deploy", lambda run: {}))
    engine.start("work", "run-1", args={})
    status = finish(engine, "run-1")
    assert (status.state, status.stop) == (RunState.DONE, "rejected")
    assert list(status.results) == ["gate"]


def test_a_run_is_started_once_by_its_id(make: Make) -> None:
    count = Count()
    engine = make(Step("count", count))
    engine.start("work", "run-1", args={"by": "first"})
    engine.start("work", "run-1", args={"by": "second"})
    finish(engine, "run-1")
    engine.start("work", "run-1", args={"by": "third"})
    assert count.calls == 1
    assert engine.status("run-1").args == {"by": "first"}


def test_an_error_is_kept_whole_and_the_run_can_go_on_after_it(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    ready: list[bool] = []
    prepare = Count()

    def train(run: Run) -> dict[str, Any]:
        if not ready:
            raise DataError("One class only, “Äpfel”.", expected="two.", do="Add pictures.", classes=["Äpfel"])
        return {"ok": True}

    engine = make(Step("prepare", prepare), Step("train", train), Step("deploy", lambda run: {}))
    engine.start("work", "run-1", args={})
    status = finish(engine, "run-1")
    assert status.state is RunState.FAILED
    assert type(status.error) is DataError
    assert status.error.as_dict() == {
        "error": {
            "code": "data_insufficient",
            "found": "One class only, “Äpfel”.",
            "expected": "two.",
            "do": "Add pictures.",
            "details": {"classes": ["Äpfel"]},
        }
    }
    assert list(status.results) == ["prepare"]
    assert not caplog.records, "an error that the status tells is not logged as a fault of the program"

    ready.append(True)
    engine.resume("run-1")
    status = finish(engine, "run-1")
    assert (status.state, status.error) == (RunState.DONE, None)
    assert list(status.results) == ["prepare", "train", "deploy"]
    assert prepare.calls == 1


def test_a_fault_of_the_program_is_named_and_logged_with_its_traceback(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make(Step("divide", lambda run: {"x": 1 / run.args["zero"]}))
    engine.start("work", "run-1", args={"zero": 0})
    status = finish(engine, "run-1")
    assert isinstance(status.error, TrainingError)
    assert "ZeroDivisionError: division by zero" in status.error.found
    until(lambda: "ZeroDivisionError" in caplog.text)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ([1], "must be a dict"),
        ({"x": float("nan")}, "not JSON"),
        ({"x": object()}, "not JSON"),
        ({"x": "y" * 70_000}, "65536"),
    ],
)
def test_a_result_that_does_not_belong_in_the_database_fails_the_step(make: Make, result: Any, words: str) -> None:
    engine = make(Step("answer", lambda run: result))
    engine.start("work", "run-1", args={})
    status = finish(engine, "run-1")
    assert status.error is not None and words in status.error.found


def test_only_the_listed_failures_are_tried_again(make: Make) -> None:
    tries: dict[str, int] = {"flaky": 0, "wrong": 0}

    def flaky(run: Run) -> dict[str, Any]:
        tries["flaky"] += 1
        if tries["flaky"] < 3:
            raise StorageError("The disk is full.", expected="space.", do="Free some.")
        return {}

    def wrong(run: Run) -> dict[str, Any]:
        tries["wrong"] += 1
        raise DataError("Wrong.", expected="right.", do="Correct it.")

    engine = make(Step("flaky", flaky, retries=2, retry_wait_s=0.01), Step("wrong", wrong, retries=2))
    engine.start("work", "run-1", args={})
    assert isinstance(finish(engine, "run-1").error, DataError)
    assert tries == {"flaky": 3, "wrong": 1}


def test_cancel_tells_the_step_and_resume_runs_it_again(make: Make) -> None:
    patient, later = Patient(), Count()
    engine = make(Step("wait", patient), Step("later", later))
    engine.start("work", "run-1", args={})
    assert patient.began.acquire(timeout=30)
    assert [status.id for status in engine.pending()] == ["run-1"]
    assert engine.cancel("run-1").state is RunState.CANCELLED
    status = finish(engine, "run-1")
    assert (status.state, status.results, status.error) == (RunState.CANCELLED, {}, None)
    assert (patient.reasons, later.calls) == (["cancelled"], 0)
    assert engine.cancel("run-1").state is RunState.CANCELLED

    patient.release.set()
    engine.resume("run-1")
    assert finish(engine, "run-1").results == {"wait": {"patient": True}, "later": {"calls": 1}}
    with pytest.raises(ConflictError, match="is done"):
        engine.resume("run-1")
    assert engine.cancel("run-1").state is RunState.DONE


def test_a_cancelled_run_is_not_resumed_while_its_step_still_works(make: Make) -> None:
    patient = Patient(listens=False)
    engine = make(Step("wait", patient))
    engine.start("work", "run-1", args={})
    assert patient.began.acquire(timeout=30)
    assert engine.cancel("run-1").active
    with pytest.raises(ConflictError, match="still ends its last step"):
        engine.resume("run-1")
    patient.release.set()
    assert finish(engine, "run-1").state is RunState.CANCELLED


def test_shutdown_leaves_the_run_for_the_next_engine(make: Make) -> None:
    patient, first = Patient(), Count()
    steps = [Step("first", first), Step("wait", patient)]
    engine = make(*steps)
    engine.start("work", "run-1", args={"n": 1})
    assert patient.began.acquire(timeout=30)
    assert engine.shutdown() == ()
    assert patient.reasons == ["shutdown"]
    with pytest.raises(NotReadyError):
        engine.start("work", "run-2", args={})

    patient.release.set()
    again = make(*steps)
    status = finish(again, "run-1")
    assert (status.state, first.calls) == (RunState.DONE, 1)
    assert status.results == {"first": {"calls": 1}, "wait": {"patient": True}}


def test_shutdown_names_the_runs_that_do_not_listen(make: Make) -> None:
    patient = Patient(listens=False)
    engine = make(Step("wait", patient))
    engine.start("work", "run-1", args={})
    assert patient.began.acquire(timeout=30)
    assert engine.shutdown(timeout_s=0.1) == ("run-1",)
    patient.release.set()
    again = make(Step("wait", patient))
    assert finish(again, "run-1").state is RunState.DONE


def test_another_executor_leaves_a_run_alone(make: Make) -> None:
    patient = Patient()
    engine = make(Step("wait", patient), executor_id="dead")
    engine.start("work", "run-1", args={})
    assert patient.began.acquire(timeout=30)
    engine.shutdown()

    patient.release.set()
    heir = make(Step("wait", patient), executor_id="heir")
    assert [(each.id, each.executor_id) for each in heir.pending()] == [("run-1", "dead")]
    assert not patient.began.acquire(timeout=2.5)


def test_runs_of_another_version_are_left_alone_and_shown(make: Make) -> None:
    patient = Patient()
    engine = make(Step("wait", patient))
    engine.start("work", "run-1", args={})
    assert patient.began.acquire(timeout=30)
    engine.shutdown()

    newer = make(Step("other", lambda run: {}), application_version="2")
    assert [(each.id, each.application_version) for each in newer.pending()] == [("run-1", "1")]
    newer.cancel("run-1")
    with pytest.raises(ConflictError, match="another version"):
        newer.resume("run-1")


def test_a_run_that_is_cut_off_again_and_again_is_not_restarted_by_itself(make: Make, url: str) -> None:
    patient = Patient()
    engine = make(Step("wait", patient))
    engine.start("work", "run-1", args={})
    assert patient.began.acquire(timeout=30)
    engine.shutdown()

    table = "workflow_status" if url.startswith("sqlite") else "keepsight_runs.workflow_status"
    database = sqlalchemy.create_engine(url)
    with database.begin() as connection:
        connection.execute(sqlalchemy.text(f"UPDATE {table} SET recovery_attempts = 21"))
    database.dispose()
    patient.release.set()
    again = make(Step("wait", patient))
    status = finish(again, "run-1")
    assert status.state is RunState.FAILED
    assert status.error is not None and "was interrupted 22 times" in status.error.found
    again.resume("run-1")
    assert finish(again, "run-1").state is RunState.DONE


def test_a_trainer_ends_with_its_run_and_starts_again_with_it(make: Make) -> None:
    pids: list[int] = []

    def note(values: Mapping[str, Any]) -> None:
        pids.append(values["pid"])

    def train(run: Run) -> dict[str, Any]:
        target = "child_targets:linger" if len(pids) < 2 else "child_targets:echo"
        env = {"PYTHONPATH": str(PROCESS.parent)}
        return run_child(target, {"by": "child"}, cancel=run.cancelled, on_progress=note, env=env)

    engine = make(Step("train", train))
    engine.start("work", "run-1", args={})
    until(lambda: len(pids) == 1)
    assert engine.shutdown() == ()
    assert not Path(f"/proc/{pids[0]}").exists()

    again = make(Step("train", train))
    until(lambda: len(pids) == 2)
    again.cancel("run-1")
    assert finish(again, "run-1").state is RunState.CANCELLED
    assert not Path(f"/proc/{pids[1]}").exists()
    again.resume("run-1")
    assert finish(again, "run-1").results == {"train": {"by": "child"}}


def test_a_process_runs_one_engine_at_a_time(make: Make, url: str) -> None:
    engine = make(Step("first", lambda run: {}))
    second = Engine(system_database_url=url, executor_id="other", application_version="1")
    second.workflow("work", steps=[Step("first", lambda run: {})])
    with pytest.raises(ConflictError, match="Another engine"):
        second.launch()
    with pytest.raises(NotReadyError):
        second.status("run-1")
    engine.start("work", "run-1", args={})
    assert finish(engine, "run-1").state is RunState.DONE
    engine.shutdown()
    second.launch()
    assert second.status("run-1").state is RunState.DONE
    second.shutdown()
    with pytest.raises(RuntimeError, match="new one"):
        second.launch()


def test_unknown_names_and_ids_are_refused(make: Make) -> None:
    engine = make(Step("first", lambda run: {}))
    with pytest.raises(NotFoundError, match='Did you mean "work"'):
        engine.start("wrok", "run-1", args={})
    with pytest.raises(NotFoundError, match="run-9"):
        engine.status("run-9")
    with pytest.raises(NotFoundError):
        engine.cancel("run-9")
    with pytest.raises(ValueError, match="not JSON"):
        engine.start("work", "run-1", args={"x": float("inf")})


def test_a_step_may_start_and_watch_other_runs_without_marking_its_own(make: Make) -> None:
    def outer(run: Run) -> dict[str, Any]:
        if run.args.get("inner"):
            return {}
        engine.start("work", "inner-1", args={"inner": True})
        return {"state": engine.wait("inner-1", timeout_s=30).state}

    engine = make(Step("outer", outer))
    engine.start("work", "outer-1", args={})
    status = finish(engine, "outer-1")
    assert [step.name for step in status.steps] == ["outer"]
    assert status.results["outer"] == {"state": "done"}


@pytest.mark.parametrize("point", ["train:before", "train:after", "train:recorded"])
def test_a_killed_process_goes_on_after_its_last_recorded_step(url: str, tmp_path: Path, point: str) -> None:
    log = tmp_path / "log"
    env = {**os.environ, "KEEPSIGHT_FAULT": point, "KEEPSIGHT_FAULT_ONCE": str(tmp_path / "once")}
    command = [sys.executable, str(PROCESS), url, str(log), "run-1"]
    killed = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout, again.stderr) == (0, "done\n", "")

    step, _, where = point.partition(":")
    expected = list(STEPS)
    if where == "after":
        # The step had worked but was not recorded: this is what "at least once" means.
        expected.insert(STEPS.index(step), step)
    assert log.read_text().split() == expected

    reader = Engine(system_database_url=url, executor_id="reader", application_version="1")
    reader.launch()
    try:
        results = reader.status("run-1").results
    finally:
        reader.shutdown()
    for number, name in enumerate(STEPS):
        assert results[name] == {"name": name, "seen": sorted(STEPS[:number]), "from": "v3 “ä”"}


def test_the_sqlite_file_is_in_wal_mode_and_holds_json_only(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    engine = Engine(system_database_url=f"sqlite:///{path}", executor_id="here", application_version="1")
    engine.workflow("work", steps=[Step("first", lambda run: {"n": 1})])
    engine.launch()
    engine.start("work", "run-1", args={"a": "b"})
    finish(engine, "run-1")
    engine.shutdown()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        kinds = connection.execute("SELECT DISTINCT serialization FROM operation_outputs").fetchall()
        kinds += connection.execute("SELECT DISTINCT serialization FROM workflow_status").fetchall()
    connection.close()
    assert set(kinds) == {("portable_json",)}


@pytest.mark.parametrize(
    "bad", ["sqlite:///{tmp}/no/such/folder/runs.db", "postgresql://nobody@127.0.0.1:1/none?connect_timeout=2"]
)
def test_a_database_that_cannot_be_opened_is_said_and_leaves_no_engine(
    bad: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(system_database_url=bad.format(tmp=tmp_path), executor_id="here", application_version="1")
    with pytest.raises(StorageError, match="cannot be opened"):
        engine.launch()
    good = Engine(system_database_url=f"sqlite:///{tmp_path}/runs.db", executor_id="here", application_version="1")
    good.launch()
    good.shutdown()


def test_dbos_is_not_loaded_before_it_is_needed() -> None:
    code = (
        "import sys, keepsight.loop.engine, keepsight.loop.child;"
        "print(sorted({'dbos', 'sqlalchemy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
