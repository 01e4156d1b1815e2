"""Which network of a model answers: the one that the settings name, if its gate looked at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sqlalchemy as sa
from onnx import numpy_helper

from keepsight.delivery import deployments
from keepsight.errors import NotFoundError
from keepsight.loop import runs
from keepsight.monitoring import watch
from keepsight.runtime.bundle import Bundle
from keepsight.serving.bundles import BundleSource
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.training import models


def with_int8(bundle: Bundle) -> Bundle:
    """The bundle with a second network that takes red for green, so that the answer tells which one gave it."""
    network = onnx.load_from_string(bundle.model())
    swapped = numpy_helper.to_array(network.graph.initializer[0])[:, [1, 0, 2]]
    network.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(swapped), "weight"))
    return Bundle.create(bundle.info, model=bundle.model(), int8_model=network.SerializeToString())


def release(ws: Workspace, bundle: Bundle, *checks: dict[str, Any]) -> None:
    """A live model whose gate said so."""
    live = deployments.current(ws, "shop")
    run_id = runs.enqueue(ws, "shop", trigger="hand", reason="r", actor="ana")
    model = models.register(ws, "shop", bundle, run_id=run_id, dataset_version=None, metrics={}, actor="ana")
    champion = None if live is None else live.model_number
    runs.update(ws, run_id, gate={"decision": "deploy", "checks": list(checks), "champion": champion})
    runs.finish(ws, run_id, status="done")
    deployments.promote(ws, "shop", model.number, actor="ana", reason="passed", run_id=run_id)


def test_the_network_changes_while_serving_and_each_is_watched_for_itself(
    make_workspace: Any, make_app: Any, make_bundle: Any, running: Any, picture: Any, wait_until: Any
) -> None:
    ws: Workspace = make_workspace("projects:\n  shop: {}\n")
    release(ws, with_int8(make_bundle()), {"name": "int8", "status": "pass"})
    server = running(make_app(ws))
    assert server.predict(picture("red")).json()["label"] == "red"
    ws.set_setting("shop", "serving.variant", "int8", actor="ana")
    source = server.app.state.services.source
    wait_until(lambda: source.current("shop").variant == "int8")
    assert server.predict(picture("red")).json()["label"] == "green"
    wait_until(lambda: counted(ws) == {"float": 1, "int8": 1})
    live = watch.live_model(ws, "shop")
    assert live is not None
    assert live.variant == "int8"
    watch.tick(ws, "shop")
    assert watch.status(ws, "shop")["classes"] == {"green": 1}
    ws.set_setting("shop", "serving.variant", "float", actor="ana")
    wait_until(lambda: source.current("shop").variant == "float")
    assert server.predict(picture("red")).json()["label"] == "red"


def test_what_no_gate_looked_at_does_not_answer(
    make_workspace: Any, make_app: Any, make_bundle: Any, running: Any, picture: Any, wait_until: Any
) -> None:
    ws: Workspace = make_workspace("projects:\n  shop: {serving: {variant: int8}}\n")
    release(ws, with_int8(make_bundle()), {"name": "int8", "status": "fail", "binding": False})
    server = running(make_app(ws))
    assert server.predict(picture("red")).json()["label"] == "red"
    # A model that has no such network answers too.
    release(ws, make_bundle(threshold=0.1))
    source = server.app.state.services.source
    wait_until(lambda: source.current("shop").model_number == 2)
    assert source.current("shop").variant == "float"
    assert server.predict(picture("red")).json()["label"] == "red"


def test_a_bundle_on_disk_answers_with_the_network_that_is_asked_for(tmp_path: Path, make_bundle: Any) -> None:
    environment = {"KEEPSIGHT_SERVING_VARIANT": "int8"}
    path = with_int8(make_bundle()).to_zip(tmp_path / "both.zip")
    source = BundleSource({"shop": path}, environment=environment)
    source.start()
    assert source.current("shop").variant == "int8"
    plain = BundleSource({"shop": make_bundle().to_zip(tmp_path / "float.zip")}, environment=environment)
    with pytest.raises(NotFoundError, match="int8"):
        plain.start()


def counted(ws: Workspace) -> dict[str, int]:
    table = schema.event
    query = sa.select(table.c.variant, sa.func.count()).group_by(table.c.variant)
    with ws.database.read("events") as connection:
        return {row[0]: row[1] for row in connection.execute(query)}
