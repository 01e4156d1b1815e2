"""Runs as rows: one at a time for a project, cancelled once, closed with their cost."""

from __future__ import annotations

import threading

import pytest

from keepsight.errors import ConflictError, NotFoundError
from keepsight.loop import runs
from keepsight.store.workspace import Workspace
from tests.tiny import Clock


def ask(ws: Workspace, project: str = "shop") -> str:
    return runs.enqueue(ws, project, trigger="hand", reason="because", actor="ana")


def test_one_run_at_a_time_for_a_project(workspace: Workspace) -> None:
    first = ask(workspace)
    with pytest.raises(ConflictError, match="under way"):
        ask(workspace)
    ask(workspace, "other")
    runs.finish(workspace, first, status="done")
    second = ask(workspace)
    assert [run.id for run in runs.list_runs(workspace, "shop")] == [second, first]
    assert [run.id for run in runs.list_runs(workspace, "shop", unfinished=True)] == [second]
    with pytest.raises(NotFoundError):
        ask(workspace, "nowhere")


def test_of_several_who_ask_at_once_one_gets_a_run(workspace: Workspace) -> None:
    answers: list[str] = []
    start = threading.Barrier(4)

    def go() -> None:
        start.wait()
        try:
            ask(workspace)
            answers.append("run")
        except ConflictError:
            answers.append("refused")

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["refused", "refused", "refused", "run"]


def test_a_cancelled_run_stays_cancelled(workspace: Workspace) -> None:
    run_id = ask(workspace)
    runs.cancel(workspace, run_id, actor="ana")
    assert not runs.update(workspace, run_id, status="running")
    runs.finish(workspace, run_id, status="done")
    assert runs.get(workspace, run_id).status == "cancelled"
    with pytest.raises(ConflictError, match="is cancelled"):
        runs.cancel(workspace, run_id, actor="ana")
    ask(workspace)


def test_a_closed_run_tells_how_long_it_worked_and_what_that_cost(workspace: Workspace) -> None:
    clock = workspace.clock = Clock()
    run_id = ask(workspace)
    runs.add_record(workspace, run_id, {"seed": 7})
    runs.add_worked(workspace, run_id, step="train", seconds=500.0)
    # After a crash the step worked again; its seconds count the attempt before as well.
    runs.add_worked(workspace, run_id, step="train", seconds=900.0)
    runs.add_worked(workspace, run_id, step="gate", seconds=900.0)
    clock.now = 9000.0
    runs.finish(workspace, run_id, status="failed", error={"code": "x"})
    run = runs.get(workspace, run_id)
    assert run.finished
    assert (run.status, run.error, run.finished_at, run.progress) == ("failed", {"code": "x"}, 9000.0, None)
    assert run.record is not None
    assert run.record["seed"] == 7
    assert run.record["duration_s"] == 1800.0
    assert run.record["cost_eur"] == pytest.approx(workspace.config["machine.eur_per_hour"] / 2)


def test_a_run_is_found_by_the_beginning_of_its_id(workspace: Workspace) -> None:
    made = [ask(workspace), ask(workspace, "other")]
    assert runs.find(workspace, made[0][:12]).id == made[0]
    with pytest.raises(ConflictError):
        runs.find(workspace, "")
    for wrong in ("%", "_" * 32, "nothing"):
        with pytest.raises(NotFoundError):
            runs.find(workspace, wrong)
