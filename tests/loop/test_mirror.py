"""What ended is in MLflow with its figures, model and aliases; twice changes nothing, and away fails no run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from keepsight.delivery import deployments
from keepsight.delivery.mlflow.store import MlflowStore
from keepsight.errors import ConflictError, SettingsError, StorageError
from keepsight.loop import mirror, runs
from keepsight.monitoring import alerts
from keepsight.store import leases, schema
from keepsight.store.workspace import Workspace
from keepsight.training import models
from tests import tiny
from tests.delivery.mlflow import sql

pytestmark = [pytest.mark.mlflow, pytest.mark.usefixtures("mlflow_installed")]

FIGURE = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 50}


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    root = tmp_path / "workspace"
    url = sql.make(root)
    (root / "keepsight.yaml").write_text(f"mlflow: {{url: '{url}'}}\nprojects: {{shop: {{}}}}\n")
    opened = Workspace.open(root, environment={}, clock=tiny.Clock())
    opened.ensure_project("shop")
    yield opened
    opened.close()


def ended(ws: Workspace, *, seed: int = 0, status: str = "done", **values: Any) -> str:
    """A run that ended; one that is done has a model, whose gate let it pass."""
    run_id = runs.enqueue(ws, "shop", trigger="hand", reason="new pictures", actor="ana")
    runs.update(ws, run_id, status="running", started_at=ws.clock())
    if status == "done":
        metrics = {
            "accuracy": FIGURE,
            "per_class": {"Käse/rund": {"precision": FIGURE, "recall": FIGURE, "f1": FIGURE, "support": 7}},
        }
        made = models.register(
            ws,
            "shop",
            tiny.bundle(seed, metrics=metrics, reference={"features": _vectors()}),
            run_id=run_id,
            dataset_version=3,
            metrics=metrics,
            actor="ana",
        )
        record = {
            "recipe": "head",
            "seed": 7,
            "settings": {"train.budget_minutes": 10.0, "data.source": "https://ana:secret@host/pictures"},
            "plan": {"recipe": "head", "strength": 0.5},
            "dataset": {"version": 3, "digest": "d" * 64},
            "bundle_digest": made.bundle_digest,
            "cost_eur": 0.01,
        }
        runs.add_record(ws, run_id, record)
        live = deployments.current(ws, "shop")
        gate: dict[str, Any] = {
            "decision": "deploy",
            "champion": None if live is None else live.model_number,
            "checks": [],
        }
        runs.update(ws, run_id, gate=gate, model_number=made.number, dataset_version=3)
    runs.finish(ws, run_id, status=status, **values)
    return run_id


def _vectors() -> Any:
    import numpy as np

    return np.zeros((3, 4), np.float16)


def opened(ws: Workspace) -> MlflowStore:
    return MlflowStore(sql.URL, root=ws.config.root)


def catch_up(ws: Workspace) -> dict[str, Any]:
    return mirror.catch_up(ws, lambda _: None)


def test_a_run_is_there_with_its_figures_data_and_model(ws: Workspace, tmp_path: Path) -> None:
    run_id = ended(ws)
    assert catch_up(ws) == {
        "url": sql.URL,
        "runs": 1,
        "models": 0,
        "aliases": {"shop": {"challenger": "1"}},
    }
    store = opened(ws)
    run = store.find_run("shop", run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test.accuracy"] == 0.9
    assert run.data.metrics["test.accuracy.low"] == 0.8
    assert run.data.metrics["class.K_se_rund.f1"] == 0.9
    assert run.data.metrics["cost_eur"] == 0.0  # what the run worked, which is nothing here
    assert run.data.params["setting.train.budget_minutes"] == "10.0"
    assert run.data.params["plan.strength"] == "0.5"
    assert run.data.params["setting.data.source"] == "https://host/pictures"
    assert run.data.tags["keepsight.actor"] == "ana"
    assert run.data.tags["keepsight.gate"] == "deploy"
    assert run.data.tags["keepsight.dataset.digest"] == "d" * 64
    [given] = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("shop@3", "d" * 36)
    assert (runs.get(ws, run_id).record or {})["mlflow"]["run"] == run.info.run_id

    folder = Path(store.client.download_artifacts(run.info.run_id, "", str(tmp_path / "files")))
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names >= {"model/MLmodel", "model/bundle/model.onnx", "report.md", "report.html", "gate.json"}
    # Vectors of single pictures stay at home.
    assert not [name for name in names if "reference" in name]


def test_the_model_there_answers_pictures(ws: Workspace, tmp_path: Path) -> None:
    from keepsight.delivery.mlflow import pyfunc

    run_id = ended(ws)
    catch_up(ws)
    store = opened(ws)
    run = store.find_run("shop", run_id)
    folder = Path(store.client.download_artifacts(run.info.run_id, "model", str(tmp_path)))
    flavour = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
    assert flavour["loader_module"] == pyfunc.__name__
    model = pyfunc._load_pyfunc(str(folder / flavour["data"]))
    answers = model.predict([tiny.picture(1), tiny.picture(2)], {"top_k": 1})
    assert {answer["label"] for answer in answers} <= {"a", "b"}


def test_mirroring_again_changes_nothing_and_a_cut_is_mended(ws: Workspace) -> None:
    run_id = ended(ws)
    ended(ws, status="failed", error={"code": "x", "found": "no room", "expected": "room", "do": "make some"})
    catch_up(ws)
    assert catch_up(ws) == {"url": sql.URL, "runs": 0, "models": 0, "aliases": {}}
    # As after a cut between writing there and noting it here.
    with ws.database.write() as connection:
        connection.execute(sa.update(schema.run).where(schema.run.c.id == run_id).values(record={}))
    assert catch_up(ws)["runs"] == 1
    store = opened(ws)
    found = store.client.search_runs([store.experiment("shop")])
    assert {run.info.status for run in found} == {"FINISHED", "FAILED"}
    assert len(found) == 2
    assert len(store.versions("shop")) == 1


def test_the_aliases_follow_promotions_and_going_back(ws: Workspace) -> None:
    ended(ws, seed=1)
    deployments.promote(ws, "shop", 1, actor="ana", reason="first")
    ended(ws, seed=2)
    assert catch_up(ws)["aliases"] == {"shop": {"champion": "1", "challenger": "2"}}
    deployments.promote(ws, "shop", 2, actor="ana", reason="better")
    assert catch_up(ws)["aliases"] == {"shop": {"champion": "2", "challenger": None}}
    deployments.rollback(ws, "shop", actor="ana", reason="complaints")
    assert catch_up(ws)["aliases"] == {"shop": {"champion": "1"}}
    # A model that no run made is there too, once it is live.
    tiny.release(ws, tiny.bundle(9))
    assert catch_up(ws)["models"] == 1
    champion = opened(ws).alias("shop", "champion")
    assert champion.tags["keepsight.model_number"] == "3"


def test_where_the_registry_is_in_mlflow_the_mirror_leaves_its_aliases_alone(ws: Workspace) -> None:
    ended(ws)
    ws.set_setting("shop", "registry.url", "mlflow", actor="ana")
    assert catch_up(ws)["runs"] == 1
    assert opened(ws).versions("shop") == []


def test_the_leader_s_mirror_writes_news_in_a_child_and_tries_again_after_trouble(
    ws: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    keeping = mirror.Mirror(ws)
    keeping.tick()  # nothing ended yet: no child
    run_id = ended(ws)
    # Whatever fails in the child is the same to the mirror; MLflow itself tries a store that is away for a minute.
    leases.acquire(ws.database, mirror.LEASE, holder="another", now=time.time(), ttl_s=600)
    with caplog.at_level(logging.WARNING):
        keeping.tick()
        keeping.finish()
    assert "gets them later" in caplog.text
    assert runs.get(ws, run_id).status == "done"
    leases.release(ws.database, mirror.LEASE, holder="another", now=0)
    keeping.finish()
    keeping.stop()
    assert opened(ws).find_run("shop", run_id) is not None
    assert "mlflow" in (runs.get(ws, run_id).record or {})


def test_an_mlflow_that_is_away_is_an_alert_until_it_is_back(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    away: StorageError | None = StorageError(
        "MLflow cannot be reached.", expected="a server that answers.", do="Start it."
    )

    def child(*_: Any, **__: Any) -> dict[str, Any]:
        if away is not None:
            raise away
        return {}

    def told() -> list[str]:
        return [alert.text for alert in alerts.open_alerts(ws, "shop", kind="mlflow")]

    monkeypatch.setattr(mirror, "run_child", child)
    ended(ws)
    keeping = mirror.Mirror(ws)
    keeping.finish()
    keeping.finish()
    (text,) = told()
    assert "MLflow cannot be reached" in text and "Start it." in text and "Nothing is lost" in text
    # Who has read it may close it; it does not come again while MLflow stays away.
    alerts.close_kinds(ws, "shop", ("mlflow",), actor="ana")
    keeping.finish()
    assert told() == []
    # A process that comes after tells again, and closes it once MLflow is back.
    after = mirror.Mirror(ws)
    ws.clock = lambda: time.time() + 60
    after.finish()
    assert len(told()) == 1
    away = None
    last = mirror.Mirror(ws)
    last.finish()
    assert told() == []


def test_one_at_a_time_and_only_where_mlflow_is_named(ws: Workspace) -> None:
    leases.acquire(ws.database, mirror.LEASE, holder="another", now=ws.clock(), ttl_s=60)
    with pytest.raises(ConflictError, match="Another process"):
        catch_up(ws)
    with ws.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.run)) == 0
    with tiny.workspace_with(ws.config.root / "without") as without, pytest.raises(SettingsError, match="No MLflow"):
        catch_up(without)


def test_a_server_that_is_away_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="failed") as told:
        MlflowStore("http://ana:secret@127.0.0.1:9", root=tmp_path).versions("shop")
    assert "secret" not in str(told.value)
