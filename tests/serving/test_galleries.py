"""Enrolments reach every running server within moments, without a deployment and without a failed request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from keepsight.data import erase
from keepsight.data.gallery import enrolling
from keepsight.loop import galleries
from keepsight.runtime.outputs.recognition.calibration import Calibration
from keepsight.runtime.outputs.recognition.gallery import Entry, Gallery
from keepsight.serving import shortlist
from keepsight.store.workspace import Workspace
from keepsight.training.recognition.network import Projection
from tests import tiny
from tests.gallery import bundle_with

SETTINGS = "projects: {parts: {task: recognition, review: {audit_share: 0.0, min_confidence: 0.0}}}\n"


@pytest.fixture
def ws(make_workspace: Callable[..., Workspace]) -> Workspace:
    return make_workspace(SETTINGS)


@pytest.fixture
def servers(ws: Workspace, deployed: Any, running: Any, make_app: Any) -> list[Any]:
    """Two servers with a model that knows nobody."""
    deployed(ws, bundle_with(), project="parts")
    return [running(make_app(ws, server_id=sign * 32)) for sign in "ab"]


def label(server: Any, seed: int) -> str:
    answer = server.predict(tiny.picture(seed), project="parts")
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["label"]
    return found


def enrol(ws: Workspace, name: str, seed: int) -> enrolling.Enrolled:
    """As the command line does, beside the servers."""
    engine = galleries.live_engine(ws, "parts")
    return enrolling.enrol(ws, "parts", name, tiny.picture(seed), engine=engine, actor="staff")


def test_every_server_knows_and_forgets(ws: Workspace, servers: list[Any], wait_until: Any) -> None:
    assert [label(server, 1) for server in servers] == ["unknown"] * 2
    enrol(ws, "bolt", 1)
    wait_until(lambda: [label(server, 1) for server in servers] == ["bolt"] * 2, limit_s=5)
    enrol(ws, "nut", 2)
    wait_until(lambda: [label(server, 2) for server in servers] == ["nut"] * 2, limit_s=5)
    enrolling.remove(ws, "parts", "bolt", actor="staff")
    wait_until(lambda: [label(server, 1) for server in servers] == ["unknown"] * 2, limit_s=5)
    erase.erase_picture(ws, ws.blobs.name(tiny.picture(2)), actor="staff", reason="asked")
    wait_until(lambda: [label(server, 2) for server in servers] == ["unknown"] * 2, limit_s=5)


def test_requests_go_on_meanwhile(ws: Workspace, servers: list[Any], wait_until: Any) -> None:
    enrol(ws, "bolt", 1)
    wait_until(lambda: label(servers[0], 1) == "bolt", limit_s=5)
    stop, wrong = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            found = label(servers[0], 1)
            if found != "bolt":
                wrong.append(found)

    asking = threading.Thread(target=ask)
    asking.start()
    for number in range(8):
        enrol(ws, f"part {number}", 100 + number)
    wait_until(lambda: label(servers[1], 107) == "part 7", limit_s=5)
    stop.set()
    asking.join()
    assert wrong == []


def test_a_model_with_other_vectors_learns_what_was_enrolled_before(
    ws: Workspace, servers: list[Any], deployed: Any, wait_until: Any
) -> None:
    enrol(ws, "bolt", 1)
    wait_until(lambda: label(servers[0], 1) == "bolt", limit_s=5)
    random = np.random.default_rng(0)
    matrix = random.standard_normal((tiny.DIMENSIONS, 20)).astype(np.float32)
    deployed(ws, bundle_with(projection=Projection(np.zeros(tiny.DIMENSIONS, np.float32), matrix)), project="parts")
    for server in servers:
        wait_until(
            lambda server=server: server.predict(tiny.picture(1), project="parts").json()["model"]["version"] == 2,
            limit_s=10,
        )
        assert label(server, 1) == "bolt"


def test_a_large_gallery_gets_an_index_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(shortlist, "LEAST_NUMBERS", 1000)
    random = np.random.default_rng(0)
    gallery = Gallery(64, Calibration(false_accepts=0.01, usual=0.5))
    vectors = random.standard_normal((500, 64)).astype(np.float32)
    gallery.put([Entry(f"n{number}", f"s{number}", vector) for number, vector in enumerate(vectors)])

    def first() -> list[str]:
        return [gallery.search(vector / np.linalg.norm(vector), top=3)[0].name for vector in vectors[:50]]

    plain = first()
    shortlist.refresh(gallery)
    assert gallery.beyond == 0
    assert first() == plain
    gallery.drop(["s7"])
    assert gallery.search(vectors[7] / np.linalg.norm(vectors[7]), top=1)[0].name != "n7"
    assert gallery.beyond == 1
    shortlist.refresh(gallery)
    assert gallery.beyond == 1, "so few changes need no new index"
    gallery.drop([f"s{number}" for number in range(100, 140)])
    shortlist.refresh(gallery)
    assert gallery.beyond == 0


def test_without_the_extra_a_large_gallery_answers_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shortlist, "LEAST_NUMBERS", 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    gallery = Gallery(4, Calibration(false_accepts=0.01, usual=0.5))
    gallery.put([Entry("a", "a", np.ones(4, np.float32))])
    shortlist.refresh(gallery)
    assert "extra [ann]" in caplog.text
    assert gallery.search(np.full(4, 0.5, np.float32), top=1)[0].name == "a"
