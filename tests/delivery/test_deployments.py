"""Releasing, overruling, going back; a release is live once every running server has it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from keepsight.delivery import deployments
from keepsight.errors import BadInputError, ConflictError, NotFoundError
from keepsight.loop import runs
from keepsight.store import schema
from keepsight.store.database import upsert
from keepsight.store.workspace import Workspace
from keepsight.training import models
from tests.tiny import Clock, bundle, register, release


def beat(ws: Workspace, *servers: str) -> None:
    """These servers are alive now."""
    row = {"url": "http://x", "pid": 1, "host": "h", "started_at": 0.0, "seen_at": ws.clock()}
    with ws.database.write() as connection:
        upsert(connection, schema.server, [{"id": server, **row} for server in servers])


def status(ws: Workspace, number: int) -> str:
    return models.get(ws, "shop", number).status


def audited(ws: Workspace) -> list[tuple[str, str]]:
    with ws.database.read() as connection:
        rows = connection.execute(sa.select(schema.audit.c.action, schema.audit.c.target).order_by(schema.audit.c.seq))
        return [(row.action, row.target) for row in rows if row.action.startswith("model.")]


def test_a_release_replaces_the_live_model_and_stands_in_the_audit_log(workspace: Workspace) -> None:
    assert deployments.current(workspace, "shop") is None
    release(workspace)
    second = release(workspace, bundle(1))
    assert [status(workspace, 1), status(workspace, 2)] == ["archived", "champion"]
    assert deployments.current(workspace, "shop") == second
    assert [row.model_number for row in deployments.history(workspace, "shop")] == [2, 1]
    assert audited(workspace)[-1] == ("model.override", "shop@2")
    assert deployments.current(workspace, "other") is None


def judged(ws: Workspace, seed: int = 0, **gate: Any) -> tuple[int, str]:
    """A challenger whose run's gate said so, and the run's id; without arguments the gate let it pass."""
    live = deployments.current(ws, "shop")
    run_id = runs.enqueue(ws, "shop", trigger="hand", reason="r", actor="ana")
    number = register(ws, bundle(seed), run_id=run_id).number
    said = {"decision": "deploy", "checks": [], "champion": None if live is None else live.model_number, **gate}
    runs.update(ws, run_id, gate=said, model_number=number)
    runs.finish(ws, run_id, status="done")
    return number, run_id


def test_a_run_releases_once(workspace: Workspace) -> None:
    number, run_id = judged(workspace)
    made = [
        deployments.promote(workspace, "shop", number, actor="keepsight", reason="passed", run_id=run_id)
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert audited(workspace)[-1] == ("model.promote", "shop@1")
    # Nor does a step that is repeated undo what a person did meanwhile.
    later = release(workspace, bundle(1))
    deployments.promote(workspace, "shop", number, actor="keepsight", reason="passed", run_id=run_id)
    assert deployments.current(workspace, "shop") == later


@pytest.mark.parametrize("decision", ["ask", "reject"])
@pytest.mark.parametrize("own", [True, False])
def test_nobody_gets_around_the_gate(workspace: Workspace, decision: str, own: bool) -> None:
    checks = [
        {"name": "pictures", "status": "cannot_tell", "reason": "few"},
        {"name": "consent", "status": "cannot_tell", "reason": "no ledger", "binding": False},
        {"name": "test", "status": "fail", "reason": "worse"},
    ]
    number, run_id = judged(workspace, decision=decision, checks=checks)
    with pytest.raises(ConflictError, match="did not pass its gate") as caught:
        deployments.promote(workspace, "shop", number, actor="ana", reason="please", run_id=run_id if own else "f" * 32)
    assert caught.value.details["not_passed"] == ["test", "pictures"]
    with pytest.raises(ConflictError, match="never live"):
        deployments.promote(workspace, "shop", number, actor="ana", reason="back", kind="rollback")
    with pytest.raises(BadInputError):
        deployments.promote(workspace, "shop", number, actor="ana", reason="so", kind="force")
    assert status(workspace, number) == "challenger"
    assert deployments.history(workspace, "shop") == []


def test_a_model_that_no_gate_saw_is_not_promoted(workspace: Workspace) -> None:
    number = register(workspace).number
    with pytest.raises(ConflictError, match="no gate's result"):
        deployments.promote(workspace, "shop", number, actor="ana", reason="please")


def test_a_model_passes_only_against_the_one_that_is_live(workspace: Workspace) -> None:
    release(workspace)
    number, run_id = judged(workspace, seed=1)
    release(workspace, bundle(2))
    with pytest.raises(ConflictError, match="compared model 2 of shop with model 1, and now model 3 is live") as caught:
        deployments.promote(workspace, "shop", number, actor="keepsight", reason="passed", run_id=run_id)
    assert (caught.value.details["compared_with"], caught.value.details["champion"]) == (1, 3)
    unnamed, _ = judged(workspace, seed=3, champion=-1)
    with pytest.raises(ConflictError):
        deployments.promote(workspace, "shop", unnamed, actor="keepsight", reason="passed")


def test_of_two_that_passed_at_once_one_goes_live(workspace: Workspace) -> None:
    numbers = [judged(workspace, seed)[0] for seed in range(4)]
    start, refused = threading.Barrier(len(numbers)), []

    def promote(number: int) -> None:
        start.wait()
        try:
            deployments.promote(workspace, "shop", number, actor="keepsight", reason="passed")
        except ConflictError as error:
            refused.append(error.details["compared_with"])

    threads = [threading.Thread(target=promote, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == [None] * 3
    assert len(deployments.history(workspace, "shop")) == 1


def test_an_override_stands_in_the_audit_log_with_what_it_overrides(workspace: Workspace) -> None:
    checks = [{"name": "test", "status": "fail", "reason": "worse"}, {"name": "size", "status": "pass", "reason": ""}]
    number, _ = judged(workspace, decision="reject", checks=checks)
    with pytest.raises(BadInputError, match="no name"):
        deployments.promote(workspace, "shop", number, actor=" ", reason="seen", kind="override")
    deployments.promote(workspace, "shop", number, actor="ana", reason="seen", kind="override")
    with workspace.database.read() as connection:
        row = connection.execute(sa.select(schema.audit).order_by(schema.audit.c.seq.desc()).limit(1)).one()
    assert (row.actor, row.action) == ("ana", "model.override")
    assert row.detail == {"reason": "seen", "before": None, "gate": "reject", "not_passed": ["test"]}


@pytest.mark.parametrize("reason", ["", "  "])
def test_overruling_the_gate_needs_a_reason(workspace: Workspace, reason: str) -> None:
    number = register(workspace).number
    with pytest.raises(BadInputError):
        deployments.promote(workspace, "shop", number, actor="ana", reason=reason, kind="override")
    assert status(workspace, number) == "challenger"


def test_what_is_live_or_discarded_or_unknown_cannot_be_released(workspace: Workspace) -> None:
    release(workspace)
    with pytest.raises(ConflictError, match="live already"):
        deployments.promote(workspace, "shop", 1, actor="ana", reason="again")
    models.discard(workspace, "shop", register(workspace, bundle(1)).number, actor="ana", reason="bad")
    with pytest.raises(ConflictError, match="discarded"):
        deployments.promote(workspace, "shop", 2, actor="ana", reason="still")
    with pytest.raises(NotFoundError):
        deployments.promote(workspace, "shop", 9, actor="ana", reason="none")


def test_going_back_serves_the_model_before(workspace: Workspace) -> None:
    with pytest.raises(ConflictError, match="no earlier model"):
        deployments.rollback(workspace, "shop", actor="ana")
    release(workspace)
    with pytest.raises(ConflictError, match="no earlier model"):
        deployments.rollback(workspace, "shop", actor="ana")
    release(workspace, bundle(1))
    back = deployments.rollback(workspace, "shop", actor="ana")
    assert (back.model_number, back.kind) == (1, "rollback")
    assert [status(workspace, 1), status(workspace, 2)] == ["champion", "archived"]
    assert audited(workspace)[-1] == ("model.rollback", "shop@1")


def test_going_back_again_goes_further_until_the_first(workspace: Workspace) -> None:
    def back() -> int:
        return deployments.rollback(workspace, "shop", actor="ana").model_number

    for seed in range(3):
        release(workspace, bundle(seed))
    assert [back(), back()] == [2, 1]
    assert deployments.before(workspace, "shop") is None
    with pytest.raises(ConflictError, match="nothing was live before model 1") as told:
        back()
    assert "models promote shop N" in told.value.do
    # What comes after going back replaced the model that was gone back to.
    release(workspace, bundle(3))
    assert back() == 1
    # A model that was left comes back by hand, and can be left again.
    deployments.promote(workspace, "shop", 3, actor="ana", reason="it was fine", kind="rollback")
    assert back() == 1


def test_going_back_passes_over_discarded_models(workspace: Workspace) -> None:
    for seed in range(3):
        release(workspace, bundle(seed))
    models.discard(workspace, "shop", 2, actor="ana", reason="bad")
    assert deployments.rollback(workspace, "shop", actor="ana").model_number == 1


def test_live_only_once_every_running_server_serves_it(workspace: Workspace) -> None:
    beat(workspace, "one", "two")
    made = release(workspace)
    deployments.acknowledge(workspace, made.id, "one")
    assert deployments.history(workspace, "shop")[0].live_at is None
    deployments.acknowledge(workspace, made.id, "two", error="no memory")
    assert deployments.history(workspace, "shop")[0].live_at is None
    deployments.acknowledge(workspace, made.id, "two")
    assert deployments.history(workspace, "shop")[0].live_at == 1000.0
    assert deployments.wait_live(workspace, "shop", made.id, timeout_s=5)


def test_a_server_that_dies_is_not_waited_for(workspace: Workspace) -> None:
    clock = workspace.clock = Clock()
    beat(workspace, "one", "two")
    made = release(workspace)
    deployments.acknowledge(workspace, made.id, "one")
    assert not deployments.wait_live(workspace, "shop", made.id, timeout_s=0.05)
    clock.now += 6
    beat(workspace, "one")
    assert deployments.wait_live(workspace, "shop", made.id, timeout_s=5)
    assert deployments.history(workspace, "shop")[0].live_at == clock.now


def test_two_servers_that_acknowledge_at_once_make_it_live(workspace: Workspace) -> None:
    servers = [f"server {number}" for number in range(6)]
    beat(workspace, *servers)
    made = release(workspace)
    start = threading.Barrier(len(servers))

    def acknowledge(server: str) -> None:
        start.wait()
        deployments.acknowledge(workspace, made.id, server)

    threads = [threading.Thread(target=acknowledge, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert deployments.history(workspace, "shop")[0].live_at == 1000.0


def test_waiting_tells_why_a_running_server_cannot_serve_it(workspace: Workspace) -> None:
    clock = workspace.clock = Clock()
    beat(workspace, "one", "two")
    made = release(workspace)
    deployments.acknowledge(workspace, made.id, "one", error="no memory")
    with pytest.raises(ConflictError, match="no memory"):
        deployments.wait_live(workspace, "shop", made.id, timeout_s=5)
    clock.now += 6
    beat(workspace, "two")
    deployments.acknowledge(workspace, made.id, "two")
    assert deployments.wait_live(workspace, "shop", made.id, timeout_s=5)


def test_without_a_server_nobody_is_waited_for(workspace: Workspace) -> None:
    made = release(workspace)
    assert not deployments.wait_live(workspace, "shop", made.id, timeout_s=60)
