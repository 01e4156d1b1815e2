"""The registry: numbered once for each run, discarded only while not live."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from keepsight.errors import ConflictError, NotFoundError, NotReadyError
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.training import models
from tests.tiny import bundle, register, release


def test_models_are_numbered_and_come_back_whole(workspace: Workspace) -> None:
    made = bundle()
    first, second = register(workspace, made), register(workspace, bundle(1))
    assert (first.number, second.number, first.status) == (1, 2, "challenger")
    assert models.load_bundle(workspace, first).digest == made.digest == first.bundle_digest
    assert [model.number for model in models.list_models(workspace, "shop")] == [2, 1]
    assert models.list_models(workspace, "other") == []


def test_a_run_registers_once_and_leaves_no_second_bundle_behind(workspace: Workspace) -> None:
    first = register(workspace, bundle(0), run_id="r" * 32)
    assert register(workspace, bundle(1), run_id="r" * 32) == first
    with workspace.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.blob)) == 1
        actions = connection.scalars(sa.select(schema.audit.c.action)).all()
    assert actions.count("model.register") == 1


def test_the_live_model_is_found_without_a_number(workspace: Workspace) -> None:
    assert models.champion(workspace, "shop") is None
    with pytest.raises(NotReadyError):
        models.find(workspace, "shop", None)
    release(workspace)
    release(workspace, bundle(1))
    assert models.find(workspace, "shop", None).number == 2
    assert models.find(workspace, "shop", 1).status == "archived"
    with pytest.raises(NotFoundError, match="1, 2"):
        models.find(workspace, "shop", 3)


def test_a_live_model_cannot_be_discarded(workspace: Workspace) -> None:
    release(workspace)
    with pytest.raises(ConflictError, match="live"):
        models.discard(workspace, "shop", 1, actor="ana", reason="bad")
    number = register(workspace, bundle(1)).number
    models.discard(workspace, "shop", number, actor="ana", reason="bad")
    discarded = models.get(workspace, "shop", number)
    assert discarded.status == "discarded"
    assert models.load_bundle(workspace, discarded).info.labels == ("a", "b")
