"""A run's gate from end to end on small real pictures: what is compared is what would be served."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepsight.data import versions
from keepsight.data.adding import NewSample, add
from keepsight.delivery import deployments
from keepsight.loop import comparison, decisions, runs, work
from keepsight.runtime.bundle import Bundle
from keepsight.store import leases
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.assessment import store
from tests.tiny import bundle, convolutional, release, workspace_with

LEASE = {"name": "loop", "holder": "test"}
LICENCE = "MIT"


def picture(label: str, seed: int) -> bytes:
    """Red or blue noise, so that a small network can tell them apart."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (20, 20, 3))
    pixels[..., 0 if label == "red" else 2] += 130
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a backbone of one's own."""
    (tmp_path / "small.onnx").write_bytes(convolutional())
    facts = {"size": 16, "mean": [127.0] * 3, "std": [64.0] * 3, "licences": [LICENCE]}
    (tmp_path / "small.json").write_text(json.dumps(facts))
    return tmp_path


@pytest.fixture
def ws(folder: Path, request: pytest.FixtureRequest) -> Iterator[Workspace]:
    own = getattr(request, "param", "")
    # Two workspaces read the clock (the step opens its own), so it is the real one.
    with workspace_with(folder / "ws", f"train: {{backbone: {folder / 'small.onnx'}, int8: true}}{own}") as opened:
        opened.clock = time.time
        yield opened


def import_pictures(ws: Workspace) -> None:
    items = []
    for place in range(160):
        label = ("red", "blue")[place % 2]
        split = ("train", "train", "test", "test")[place // 2 % 4]
        meta = {"camera": ("door", "shelf")[place // 8 % 2]}
        items.append(NewSample(picture(label, place), f"{place}.png", {"label": label}, split, f"g{place}", meta=meta))
    add(ws, "shop", items, author="ana")
    versions.commit(ws, "shop", message="first", author="ana")


def run(ws: Workspace) -> tuple[str, dict[str, Any]]:
    """Trains, gates, and ends the run: its id and what the gate said."""
    fence = leases.acquire(ws.database, "loop", holder="test", now=ws.clock(), ttl_s=600)
    run_id = runs.enqueue(ws, "shop", trigger="hand", reason="r", actor="ana")
    runs.update(ws, run_id, status="running", dataset_version=1)
    payload = {"root": str(ws.config.root), "run_id": run_id, "lease": {**LEASE, "fence": fence}}
    made = work.train(payload, lambda values: None)
    runs.update(ws, run_id, model_number=made["model_number"])
    gate = comparison.compare(payload, lambda values: None)
    runs.update(ws, run_id, gate=json.loads(json.dumps(gate)))
    runs.finish(ws, run_id, status="done")
    return run_id, gate


def checks(gate: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["status"] for check in gate["checks"]}


@pytest.mark.parametrize(
    "ws",
    [
        ", gate: {margin: 0.05, min_accuracy: 0.9, min_metric: {f1: 0.9}, "
        "min_slice: {camera=door: 0.8, camera=roof: 0.5}, max_slice_drop: 0.1, max_size_mb: 1, "
        "max_latency_ms: 10000, min_pictures: 50}"
    ],
    indirect=True,
)
def test_a_first_model_and_one_that_replaces_it(ws: Workspace) -> None:
    import_pictures(ws)
    _, first = run(ws)
    assert (first["champion"], first["challenger"], first["decision"]) == (None, 1, "ask")
    assert checks(first) == {
        "accuracy": "pass",
        "f1": "pass",
        "slice camera=door": "pass",
        "slice camera=roof": "cannot_tell",
        "pictures": "pass",
        "latency": "pass",
        "size": "pass",
        "int8": "pass",
        "licences": "pass",
        "consent": "cannot_tell",
    }
    decisions.promote(ws, "shop", 1, actor="ana", reason="there is no roof")
    _, second = run(ws)
    assert second["champion"] == 1
    assert {"test": "pass", "slices": "pass"}.items() <= checks(second).items()
    row = second["sides"]["parts"]["test"]
    assert (row["n"], row["gained"], row["lost"]) == (80, 0, 0)
    assert {each["name"] for each in second["sides"]["slices"]} >= {"camera=door", "camera=shelf", "light=normal"}
    card = decisions.card(ws, "shop", 2)
    assert card["question"] == "Shall model 2 replace model 1, which is live?"
    assert [check["name"] for check in card["unsure"]] == ["slice camera=roof"]
    assert [check["name"] for check in card["told"]] == ["consent"]
    assert card["needs_reason"]
    assert not card["stale"]
    assert card["sides"]["champion"]["accuracy"]["test"]["n"] == 80
    json.dumps(card)


@pytest.mark.parametrize("ws", [", serving: {variant: int8}"], indirect=True)
def test_the_8_bit_network_is_judged_where_it_is_served(ws: Workspace) -> None:
    import_pictures(ws)
    _, gate = run(ws)
    made = models.load_bundle(ws, models.get(ws, "shop", 1))
    assert made.variants == ("float", "int8")
    assert made.reference("int8") is not None
    assert gate["decision"] == "deploy"
    (check,) = [check for check in gate["checks"] if check["name"] == "int8"]
    assert (check["status"], check["binding"]) == ("pass", True)
    assert gate["sides"]["variant"] == "int8"
    assert gate["sides"]["size_bytes"]["challenger"] == len(made.model("int8"))
    assert deployments.serving_variant(ws, "shop", 1, bundle=made, wanted="int8") == "int8"


def test_an_8_bit_network_that_no_gate_saw_is_not_served(ws: Workspace) -> None:
    network = convolutional()
    made = Bundle.create(bundle().info, model=network, int8_model=network)
    live = release(ws, made)
    assert deployments.serving_variant(ws, "shop", live.model_number, bundle=made, wanted="int8") == "float"


def test_what_the_evaluation_found_reaches_the_gate(ws: Workspace) -> None:
    import_pictures(ws)
    run(ws)
    row = {"name": "darker", "text": "", "n": 80, "kept": 0.5}
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 80}
    store.save(ws, "shop", 1, {"robustness": [{**row, "clean": {**figure, "value": 1.0}, "accuracy": figure}]})
    job = work.Job.open({"root": str(ws.config.root), "run_id": runs.list_runs(ws)[0].id})
    parts = job.parts(lambda values: None)
    evidence = comparison.gather(job, parts, 1, None, lambda values: None)
    assert (evidence.evaluation or {})["robustness"][0]["kept"] == 0.5
    assert evidence.licences == (LICENCE,)
    assert evidence.int8 is not None
    assert len(evidence.int8.int8_scores) == len(evidence.test) == 80


def test_a_model_that_no_gate_saw_has_a_card_too(ws: Workspace) -> None:
    release(ws)
    card = decisions.card(ws, "shop", 1)
    assert (card["decision"], card["question"], card["stale"]) == (None, "Model 1 is live.", False)
    assert card["summary"] == ["The two were not compared on the same pictures."]
