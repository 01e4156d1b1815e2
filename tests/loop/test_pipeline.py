"""The pipeline's steps: each finds its work done when it runs a second time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from keepsight.data import versions
from keepsight.data.adding import NewSample, add
from keepsight.delivery import deployments
from keepsight.errors import CancelledError, ConflictError, DataError, NotFoundError
from keepsight.loop import pipeline, runs
from keepsight.loop.workflow import Run
from keepsight.monitoring import alerts
from keepsight.store.workspace import Workspace
from tests.tiny import bundle, picture, register, release, workspace_with

CHECKS = [
    {"status": "pass", "reason": "Fast enough."},
    {"status": "cannot_tell", "reason": "Too few pictures."},
]


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with workspace_with(tmp_path / "ws") as opened:
        yield opened


def start(ws: Workspace, **params: Any) -> str:
    return runs.enqueue(ws, "shop", trigger="hand", reason="because", actor="ana", params=params)


def step(ws: Workspace, run_id: str, name: str) -> Mapping[str, Any]:
    steps = {each.name: each.fn for each in pipeline.Pipeline(ws, lambda: {"fence": 1}).steps()}
    return steps[name](Run(id=run_id, args={}, results={}, stop_reason=lambda: None))


def import_pictures(ws: Workspace, count: int, *, first: int = 0) -> None:
    items = [NewSample(picture(n), f"{n}.png", {"label": "ab"[n % 2]}, "train") for n in range(first, first + count)]
    add(ws, "shop", items, author="ana")


def judged(ws: Workspace, decision: str, **params: Any) -> str:
    """A run that has come as far as the gate."""
    run_id = start(ws, **params)
    number = register(ws, bundle(9), run_id=run_id).number
    live = deployments.current(ws, "shop")
    champion = None if live is None else live.model_number
    runs.update(ws, run_id, gate={"decision": decision, "checks": CHECKS, "champion": champion}, model_number=number)
    return run_id


def test_the_version_step_commits_once(ws: Workspace) -> None:
    import_pictures(ws, 4)
    run_id = start(ws)
    assert step(ws, run_id, "version")["version"] == 1
    import_pictures(ws, 2, first=4)
    assert step(ws, run_id, "version") == {"version": 1}
    assert [version.message for version in versions.log(ws, "shop")] == ["because"]
    run = runs.get(ws, run_id)
    assert (run.dataset_version, run.step) == (1, "version")


def test_a_run_on_an_older_version_commits_nothing(ws: Workspace) -> None:
    import_pictures(ws, 4)
    versions.commit(ws, "shop", message="first", author="ana")
    import_pictures(ws, 2, first=4)
    assert step(ws, start(ws, version=1), "version")["version"] == 1
    assert len(versions.log(ws, "shop")) == 1


def test_without_pictures_or_version_there_is_nothing_to_train_on(ws: Workspace) -> None:
    run_id = start(ws)
    with pytest.raises(DataError, match="no pictures yet"):
        step(ws, run_id, "version")
    runs.finish(ws, run_id, status="failed")
    with pytest.raises(NotFoundError):
        step(ws, start(ws, version=7), "version")


def test_trainers_get_the_lease_and_their_results_stand_in_the_run(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = []

    def child(target: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        payloads.append(payload)
        options["on_progress"]({"text": "training"})
        return {"model_number": 3} if target.endswith("train") else {"decision": "ask", "checks": []}

    monkeypatch.setattr(pipeline, "run_child", child)
    run_id = start(ws)
    step(ws, run_id, "train")
    assert step(ws, run_id, "gate") == {"decision": "ask"}
    run = runs.get(ws, run_id)
    assert run.model_number == 3
    assert run.gate == {"decision": "ask", "checks": []}
    assert run.progress == {"text": "training"}
    assert [entry["name"] for entry in (run.record or {})["steps"]] == ["train", "gate"]
    assert all(payload["lease"] == {"fence": 1} and payload["run_id"] == run_id for payload in payloads)


@pytest.mark.parametrize("name", ["version", "features", "train", "gate", "deploy"])
def test_a_cancelled_run_goes_no_further(ws: Workspace, name: str) -> None:
    run_id = judged(ws, "deploy")
    runs.cancel(ws, run_id, actor="ana")
    with pytest.raises(CancelledError):
        step(ws, run_id, name)
    assert deployments.current(ws, "shop") is None


def test_a_model_that_passed_goes_live_once_and_settles_the_alarms(ws: Workspace) -> None:
    release(ws)
    for kind in ("drift", "accuracy", "gate", "run"):
        alerts.raise_alert(ws, "shop", kind=kind, key="k", title="t", text="")
    run_id = judged(ws, "deploy")
    for _ in range(2):
        assert step(ws, run_id, "deploy") == {"outcome": "deployed", "model_number": 2}
    assert [row.model_number for row in deployments.history(ws, "shop")] == [2, 1]
    assert [alert.kind for alert in alerts.open_alerts(ws, "shop")] == ["run"]
    assert runs.get(ws, run_id).outcome == "deployed"


@pytest.mark.parametrize("again", ["deploy", "reject"])
def test_another_model_that_went_live_meanwhile_is_compared_with(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    release(ws)
    run_id = judged(ws, "deploy")
    release(ws, bundle(1))
    compared = []

    def child(target: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        live = deployments.current(ws, "shop")
        assert live is not None
        compared.append((target, live.model_number))
        return {"decision": again, "checks": CHECKS, "champion": live.model_number}

    monkeypatch.setattr(pipeline, "run_child", child)
    outcome = step(ws, run_id, "deploy")["outcome"]
    assert compared == [("keepsight.loop.comparison:compare", 3)]
    assert outcome == ("deployed" if again == "deploy" else "rejected")
    assert (runs.get(ws, run_id).gate or {})["champion"] == 3
    assert deployments.history(ws, "shop")[0].model_number == (2 if again == "deploy" else 3)


def test_a_live_model_that_keeps_changing_ends_the_run_and_not_the_service(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = judged(ws, "deploy")
    release(ws)
    monkeypatch.setattr(
        pipeline, "run_child", lambda *_, **__: {"decision": "deploy", "checks": CHECKS, "champion": None}
    )
    with pytest.raises(ConflictError, match="no live model, and now model 2 is live"):
        step(ws, run_id, "deploy")
    assert [row.model_number for row in deployments.history(ws, "shop")] == [2]


def test_a_person_may_be_quicker_than_the_run(ws: Workspace) -> None:
    run_id = judged(ws, "deploy")
    made = deployments.promote(ws, "shop", 1, actor="ana", reason="now", kind="override")
    assert step(ws, run_id, "deploy")["outcome"] == "deployed"
    assert deployments.history(ws, "shop")[0].id == made.id


def test_a_run_that_only_trains_keeps_its_model_back(ws: Workspace) -> None:
    assert step(ws, judged(ws, "deploy", promote=False), "deploy")["outcome"] == "kept"
    assert deployments.current(ws, "shop") is None
    assert alerts.open_alerts(ws, "shop") == []


@pytest.mark.parametrize(("decision", "outcome"), [("ask", "ask"), ("reject", "rejected")])
def test_a_model_that_did_not_pass_is_told_of_once(ws: Workspace, decision: str, outcome: str) -> None:
    release(ws)
    run_id = judged(ws, decision)
    for _ in range(2):
        assert step(ws, run_id, "deploy")["outcome"] == outcome
    (alert,) = alerts.open_alerts(ws, "shop")
    assert (alert.kind, alert.text) == ("gate", "Too few pictures.")
    assert alert.data == {"run": run_id, "model": 2, "decision": decision}
    current = deployments.current(ws, "shop")
    assert current is not None
    assert current.model_number == 1
