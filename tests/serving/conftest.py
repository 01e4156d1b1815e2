"""A tiny network that names the colour of a picture, real workspaces, and the real HTTP server on a free port."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from fastapi import FastAPI
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from keepsight.delivery import deployments
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.preprocess import Preprocessing
from keepsight.runtime.quality import QualityLimits
from keepsight.serving.app import create_app
from keepsight.serving.database import DatabaseSink, DatabaseSource, DatabaseTokens
from keepsight.serving.guard import Guard
from keepsight.serving.run import Server, Told, bind, make_config, url_of
from keepsight.store.workspace import Workspace
from keepsight.training import models

COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}
LENIENT = QualityLimits(min_blur=0.0, min_brightness=0.0, max_brightness=255.0, min_contrast=0.0, min_side=1)

MakeBundle = Callable[..., Bundle]
MakePicture = Callable[..., bytes]
Running = Callable[..., "Running_"]


def build_bundle(
    labels: Sequence[str] = ("red", "green", "blue"), *, threshold: float = 0.0, limits: QualityLimits = LENIENT
) -> Bundle:
    """A bundle whose answer is the strongest channel; logits are the mean of each channel, -1 to 1, times 4."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("features", "logits")],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32) * np.float32(4), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    info = BundleInfo(
        task="classification",
        labels=tuple(labels),
        preprocessing=Preprocessing(size=16),
        created_at="2026-01-01T00:00:00+00:00",
        thresholds={"auto": threshold},
        quality_limits=limits,
    )
    return Bundle.create(info, model=model.SerializeToString())


@pytest.fixture(scope="session")
def make_bundle() -> MakeBundle:
    return build_bundle


@pytest.fixture(scope="session")
def picture() -> MakePicture:
    """``picture("red", size=32)``: a JPEG of one colour; ``noise`` makes it differ from others of that colour."""

    def make(colour: str = "red", *, size: int = 32, kind: str = "JPEG", noise: int = 0) -> bytes:
        rng = np.random.default_rng(noise)
        pixels = np.full((size, size, 3), COLOURS[colour], np.int16) + rng.integers(-15, 16, (size, size, 3))
        out = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, kind)
        return out.getvalue()

    return make


SETTINGS = "projects:\n  shop:\n    task: classification\n    review: {audit_share: 0.0}\n  empty: {}\n"


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace on SQLite with the projects shop and empty."""
    with workspace(tmp_path / "ws") as opened:
        yield opened


@contextmanager
def workspace(root: Path, settings: str = SETTINGS) -> Iterator[Workspace]:
    root.mkdir()
    (root / "keepsight.yaml").write_text(settings)
    opened = Workspace.open(root, environment={})
    for project in opened.config.projects:
        opened.ensure_project(project)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def make_workspace(tmp_path: Path) -> Iterator[Callable[..., Workspace]]:
    """``make_workspace(settings)``: a workspace with other settings."""
    with ExitStack() as stack:
        count = iter(range(100))
        yield lambda settings=SETTINGS: stack.enter_context(workspace(tmp_path / f"ws{next(count)}", settings))


def deploy(ws: Workspace, bundle: Bundle, project: str = "shop") -> int:
    """Registers and promotes a bundle; gives its number."""
    model = models.register(ws, project, bundle, run_id=None, dataset_version=None, metrics={}, actor="tester")
    deployments.promote(ws, project, model.number, actor="tester", reason="test", kind="override")
    return model.number


@pytest.fixture
def deployed() -> Callable[..., int]:
    return deploy


@dataclass
class Running_:
    """A server on a free port."""

    url: str
    client: httpx.Client
    app: FastAPI
    server: Server
    thread: threading.Thread

    def predict(self, data: bytes, project: str = "shop", **query: str) -> httpx.Response:
        return self.client.post(f"/v1/{project}/predict", content=data, params=query)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=30)
        assert not self.thread.is_alive()


@contextmanager
def run_app(app: FastAPI) -> Iterator[Running_]:
    listener = bind("127.0.0.1", 0)
    ready = threading.Event()
    server = Server(make_config(Told(app)), on_ready=ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(30), "the server did not start"
        with httpx.Client(base_url=url_of(listener), timeout=30) as client:
            yield Running_(url_of(listener), client, app, server, thread)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()


@pytest.fixture
def running() -> Iterator[Callable[[FastAPI], Running_]]:
    """``running(app)``: the application behind the real server."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(run_app(app))


def database_app(ws: Workspace, *, server_id: str = "a" * 32, **options: Any) -> FastAPI:
    """The application of a workspace."""
    return create_app(
        DatabaseSource(ws, server_id=server_id, url="http://127.0.0.1:1"),
        options.pop("sink", None) or DatabaseSink(ws),
        options.pop("guard", None) or Guard(DatabaseTokens(ws)),
        threads=options.pop("threads", 2),
        **options,
    )


@pytest.fixture
def make_app() -> Callable[..., FastAPI]:
    return database_app


@pytest.fixture
def shop(ws: Workspace, running: Callable[[FastAPI], Running_]) -> Running_:
    """The server of ``ws``, with model 1 of shop deployed."""
    deploy(ws, build_bundle())
    return running(database_app(ws))


def until(condition: Callable[[], bool], *, limit_s: float = 30.0) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return until
