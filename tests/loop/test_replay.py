"""Replaying a run compares the digest of the network with the recorded one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from keepsight.errors import NotFoundError, NotReadyError
from keepsight.loop import replay, runs
from keepsight.store.workspace import Workspace
from tests.tiny import register, workspace_with


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with workspace_with(tmp_path / "ws") as opened:
        yield opened


def trained(ws: Workspace) -> str:
    run_id = runs.enqueue(ws, "shop", trigger="hand", reason="r", actor="ana")
    register(ws, run_id=run_id)
    return run_id


@pytest.mark.parametrize(("digest", "same"), [("d" * 64, True), ("e" * 64, False)])
def test_the_digests_are_compared(ws: Workspace, monkeypatch: pytest.MonkeyPatch, digest: str, same: bool) -> None:
    run_id = trained(ws)
    runs.add_record(ws, run_id, {"model_digest": "d" * 64})

    def child(target: str, payload: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        assert payload["run_id"] == run_id
        return {"model_digest": digest, "metrics": {}}

    monkeypatch.setattr(replay, "run_child", child)
    answer = replay.replay(ws, "shop", 1)
    assert (answer["same"], answer["digest"], answer["recorded"]) == (same, digest, "d" * 64)


@pytest.mark.parametrize(
    ("frozen", "replayed", "agrees"),
    [(False, 0.904, True), (False, 0.894, False), (True, 0.904, False)],
    ids=["within half a point", "further off", "a head must be the same"],
)
def test_a_trained_network_agrees_by_its_figures(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, frozen: bool, replayed: float, agrees: bool
) -> None:
    run_id = trained(ws)
    before = {"accuracy": {"value": 0.9, "n": 10}, "f1": {"value": 0.5, "n": 10}, "names": ["a"]}
    runs.add_record(ws, run_id, {"model_digest": "d" * 64, "frozen": frozen, "metrics": before})

    def child(target: str, payload: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        after = {"accuracy": {"value": replayed, "n": 10}, "f1": {"value": None, "n": 0}}
        return {"model_digest": "e" * 64, "metrics": after}

    monkeypatch.setattr(replay, "run_child", child)
    answer = replay.replay(ws, "shop", 1)
    assert (answer["same"], answer["agrees"]) == (False, agrees)
    assert answer["differences"] == {"accuracy": pytest.approx(replayed - 0.9)}


def test_only_a_recorded_run_can_be_replayed(ws: Workspace) -> None:
    with pytest.raises(NotReadyError):
        replay.replay(ws, "shop", None)
    trained(ws)
    with pytest.raises(NotFoundError, match="cut off"):
        replay.replay(ws, "shop", 1)
    register(ws)
    with pytest.raises(NotFoundError, match="no run"):
        replay.replay(ws, "shop", 2)
