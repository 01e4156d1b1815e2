"""A workspace that has lived a while: pictures, versions, a model, traffic, a queue, a run with its gate, an alert."""

from __future__ import annotations

import base64
import io
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

from keepsight.data import adding, samples, versions
from keepsight.delivery import deployments
from keepsight.loop import runs
from keepsight.monitoring import alerts
from keepsight.review import intake
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.preprocess import Preprocessing
from keepsight.serving.database import DatabaseSink, DatabaseSource, DatabaseTokens
from keepsight.serving.run import Server, Told, bind, make_config, url_of
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.assessment import store
from keepsight.web.app import create_app

FRUIT = ("apple", "banana", "cherry", "fig", "grape")
HOUR_S = 3600.0


def build_bundle(labels: Sequence[str], *, seed: int = 0) -> Bundle:
    """A tiny network over the mean colour of the picture."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(3, len(labels))).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["features"]),
            helper.make_node("Gemm", ["features", "weight"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(labels)]),
        ],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    info = BundleInfo(
        task="classification",
        labels=tuple(labels),
        preprocessing=Preprocessing(size=16),
        created_at="2026-01-01T00:00:00+00:00",
        metrics={"accuracy": {"value": 0.93, "low": 0.9, "high": 0.955}},
    )
    return Bundle.create(info, model=model.SerializeToString())


def draw(number: int, *, side: int = 96) -> bytes:
    """A JPEG that looks like no other."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", (side, side * 3 // 4), tuple(int(v) for v in rng.integers(60, 220, 3)))
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, r = rng.integers(0, side, 3)
        pen.ellipse(
            (int(x - r), int(y - r), int(x + r), int(y + r)), fill=tuple(int(v) for v in rng.integers(0, 255, 3))
        )
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


@dataclass
class Seeded:
    """What stands in the seeded workspace."""

    ws: Workspace
    project: str
    labels: tuple[str, ...]
    audits: list[str]
    uncertain: list[str]
    run_id: str
    champion: int
    challenger: int


def event_row(
    project: str,
    *,
    at: float,
    label: str,
    confidence: float,
    digest: str,
    labels: Sequence[str],
    selected_by: str | None = None,
    sealed: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One row of ``event``."""
    others = [name for name in labels if name != label][:4]
    return {
        "id": uuid.uuid4().hex,
        "project_id": project,
        "at": at,
        "model_number": 1,
        "bundle_digest": digest,
        "variant": "float",
        "prediction": {
            "label": label,
            "confidence": confidence,
            "alternatives": [{"label": name, "confidence": (1 - confidence) / 5} for name in others],
        },
        "label": label,
        "confidence": confidence,
        "decision": "review" if selected_by == "uncertain" else "auto",
        "quality": {"blur": 100.0, "brightness": 120.0, "contrast": 40.0},
        "reasons": [],
        "features": None,
        "picture_id": None,
        "sealed": sealed,
        "selected_by": selected_by,
        "probability": 0.05 if selected_by == "audit" else 1.0,
        "source": "till 1",
        "trace_id": uuid.uuid4().hex,
        "meta": {},
        "latency_ms": 12.0,
    }


def seal(ws: Workspace, data: bytes) -> dict[str, Any]:
    """What serving writes into an event of a kept picture."""
    sealed = ws.blobs.seal(data)
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    return {
        "id": sealed.id,
        "location": sealed.location,
        "wrapped_key": base64.b64encode(sealed.wrapped_key).decode(),
        "size_bytes": sealed.size_bytes,
        "format": "jpeg",
        "width": width,
        "height": height,
    }


def share(value: float, n: int = 420, *, half: float = 0.03) -> dict[str, Any]:
    """A figure with an interval."""
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": n}


def side_row(n: int, live: int, new: int, *, sure: bool) -> dict[str, Any]:
    """Both models on n pictures, of which each got so many right."""
    gap = (new - live) / n
    half = abs(gap) / 2 if sure else abs(gap) + 0.02
    return {
        "n": n,
        "challenger": share(new / n, n),
        "champion": share(live / n, n),
        "difference": {"value": gap, "low": gap - half, "high": gap + half, "n": n},
        "gained": max(0, new - live) + 3,
        "lost": max(0, live - new) + 3,
    }


def sides_of(labels: Sequence[str]) -> dict[str, Any]:
    """What the gate measured of both models, as ``training.gate.side_by_side`` gives it."""
    return {
        "variant": "float",
        "parts": {"test": side_row(200, 186, 188, sure=False), "recent": side_row(31, 28, 29, sure=False)},
        "classes": [
            {"name": label, **side_row(40, 30, 36 - 3 * place, sure=place == 0)} for place, label in enumerate(labels)
        ],
        "slices": [
            {"key": "camera", "value": "door", "name": "camera=door", **side_row(100, 70, 84, sure=True)},
            {"key": "light", "value": "dark", "name": "light=dark", **side_row(60, 55, 53, sure=False)},
        ],
        "latency_ms": {"challenger": 9.1, "champion": 9.0},
        "size_bytes": {"challenger": 13_500_000, "champion": 13_500_000},
    }


GATE = {
    "decision": "ask",
    "champion": 1,
    "challenger": 2,
    "checks": [
        {
            "name": "test",
            "status": "pass",
            "value": 0.012,
            "threshold": -0.02,
            "low": -0.011,
            "high": 0.035,
            "n": 420,
            "reason": "On the test pictures it is not worse than the live model.",
        },
        {
            "name": "recent",
            "status": "cannot_tell",
            "value": 0.04,
            "threshold": -0.02,
            "low": -0.06,
            "high": 0.14,
            "n": 31,
            "reason": "There are too few recent checked pictures to tell whether it is better on them.",
            "evidence": {"pictures_needed": 180, "groups": 12},
            "binding": True,
        },
        {
            "name": "latency_ms",
            "status": "pass",
            "value": 9.1,
            "threshold": 20.0,
            "low": None,
            "high": None,
            "n": None,
            "reason": "It answers fast enough.",
            "evidence": {"runs": [{"name": "first", "kept": 0.93}, {"name": "second", "kept": None}], "steady": True},
        },
        {
            "name": "consent",
            "status": "cannot_tell",
            "value": None,
            "threshold": None,
            "low": None,
            "high": None,
            "n": 0,
            "reason": "No ledger of consent is kept, so nobody can tell.",
            "evidence": {},
            "binding": False,
        },
    ],
}


ESTIMATE = {
    "seconds": {"value": 80.0, "low": 50.0, "high": 140.0},
    "cost_eur": {"value": 0.0022, "low": 0.0014, "high": 0.0039},
    "basis": "2 earlier runs",
}
RECORD = {
    "recipe": "auto",
    "plan": {
        "recipe": "auto",
        "chosen": "head",
        "why": "finetune is 0.4% worse on 300 held-out pictures",
        "head": {"recipe": "head", "strength": 0.1},
        "finetune": None,
    },
    "out_of_fold": {
        "accuracy": 0.94,
        "candidates": {
            "head": {"accuracy": 0.94, "nll": 0.2, "pictures": 300},
            "finetune": {"accuracy": 0.936, "nll": 0.3, "pictures": 300},
        },
    },
    "backbone": {"name": "efficientnet-lite0", "digest": "ab" * 32},
    "pictures": {"training": 300, "test": 420, "recent": 31},
}


def metrics_of(labels: Sequence[str], *, gain: float = 0.0) -> dict[str, Any]:
    """What training measures on the test pictures: the last class is the weakest, taken for the first."""
    k = len(labels)
    recall = [0.99 - 0.3 * place / k + gain for place in range(k)]
    confusion = [[0] * k for _ in range(k)]
    for place in range(k):
        right = round(40 * recall[place])
        confusion[place][place] = right
        confusion[place][0 if place else 1] += 40 - right
    return {
        "accuracy": {**share(0.93 + gain, 40 * k), "low": 0.9 + gain, "high": 0.955 + gain},
        "precision": share(0.92 + gain),
        "recall": share(0.92 + gain),
        "f1": share(0.91 + gain),
        "ece": share(0.031, half=0.01),
        "per_class": {
            label: {
                "precision": share(recall[place], 40),
                "recall": share(recall[place], 40, half=0.08),
                "f1": share(recall[place], 40),
                "support": 40,
                "predicted": 40,
            }
            for place, label in enumerate(labels)
        },
        "confusion": confusion,
        "names": list(labels),
        "absent": [],
    }


def bins_of(*, off: float) -> list[dict[str, Any]]:
    """A calibration table whose confidence is too high by ``off``."""
    rows: list[dict[str, Any]] = []
    for place in range(15):
        low, high = place / 15, (place + 1) / 15
        middle = (low + high) / 2
        there = place >= 4
        rows.append(
            {
                "low": low,
                "high": high,
                "n": 3 * place**2 if there else 0,
                "confidence": middle if there else None,
                "accuracy": max(0.0, middle - off) if there else None,
            }
        )
    return rows


def evaluation_of(ws: Workspace, project: str, labels: Sequence[str]) -> dict[str, Any]:
    """What the evaluate step finds out, with real pictures of the project as mistakes."""
    current = samples.current(ws, project)
    test = [item for item in current if item.split == "test"]
    training = [item for item in current if item.split == "train"]
    tilted = {"text": "tilted (by 20 degrees)", "n": 300, "clean": share(0.93)}
    return {
        "pictures": 420,
        "unknown": {"medlar": 3},
        "metrics": metrics_of(labels),
        "calibration": {
            "temperature": 1.31,
            "before": {"ece": 0.082, "bins": bins_of(off=0.09)},
            "after": {"ece": 0.031, "bins": bins_of(off=0.02)},
        },
        "slices": [
            {
                "key": key,
                "value": value,
                "n": 210,
                "accuracy": share(right),
                "difference": {"value": gap, "low": gap - 0.04, "high": gap + 0.04, "n": 210},
                "clear": abs(gap) > 0.08,
            }
            for key, value, right, gap in (
                ("camera", "door", 0.84, -0.11),
                ("camera", "till", 0.95, 0.11),
                ("light", "dark", 0.9, -0.03),
                ("light", "normal", 0.93, 0.03),
            )
        ]
        + [{"key": "size", "value": "small", "n": 420, "accuracy": share(0.93), "difference": None, "clear": False}],
        "robustness": [
            {"name": "rotated", **tilted, "accuracy": share(0.9), "kept": 0.968},
            {
                "name": "darker",
                **tilted,
                "text": "much darker (a third of the light)",
                "accuracy": share(0.6, half=0.06),
                "kept": 0.645,
            },
        ],
        "mistakes": [
            {
                "sample_id": item.sample_id,
                "picture_id": item.picture_id,
                "label": str((item.value or {}).get("label")),
                "predicted": next(name for name in labels if name != (item.value or {}).get("label")),
                "confidence": 0.97 - place / 50,
                "nearest": [
                    {
                        "sample_id": near.sample_id,
                        "picture_id": near.picture_id,
                        "label": str((near.value or {}).get("label")),
                        "cosine": 0.93,
                    }
                    for near in training[place : place + 3]
                ],
            }
            for place, item in enumerate(test)
        ],
        "explained_by": "class activation map",
        "latency_ms": {"p50": 9.1, "p95": 12.4, "n": 50},
        "size_bytes": {"float": 13_500_000, "int8": None},
        "parameters": 3_400_000,
    }


def seed(
    ws: Workspace,
    project: str,
    *,
    labels: Sequence[str] = FRUIT,
    pictures: Sequence[tuple[bytes, str]] | None = None,
    audits: int = 3,
    uncertain: int = 4,
    traffic: int = 60,
) -> Seeded:
    """Fills a project."""
    rng = np.random.default_rng(7)
    now = ws.clock()
    ws.check_project(project)
    pictures = pictures or [(draw(n), labels[n % len(labels)]) for n in range(4 * len(labels))]
    splits = ("train", "train", "val", "test")
    adding.add(
        ws,
        project,
        [
            adding.NewSample(data, f"{label}/{n}.jpg", value={"label": label}, split=splits[(n // len(labels)) % 4])
            for n, (data, label) in enumerate(pictures)
        ],
        author="ana",
    )
    versions.commit(ws, project, message="first pictures", author="ana")
    bundle = build_bundle(labels)
    first = models.register(
        ws, project, bundle, run_id=None, dataset_version=1, metrics=metrics_of(labels), actor="ana"
    )
    deployments.promote(ws, project, first.number, actor="ana", reason="first model", kind="override")
    run_id = runs.enqueue(
        ws, project, trigger="labels", reason="25 new labels", actor="keepsight", params={"estimate": ESTIMATE}
    )
    better = metrics_of(labels, gain=0.01)
    second = models.register(
        ws, project, build_bundle(labels, seed=1), run_id=run_id, dataset_version=1, metrics=better, actor="keepsight"
    )
    store.save(ws, project, second.number, evaluation_of(ws, project, labels))
    runs.update(
        ws,
        run_id,
        status="running",
        started_at=now - 60,
        dataset_version=1,
        model_number=second.number,
        gate={**GATE, "sides": sides_of(labels)},
    )
    runs.add_record(ws, run_id, RECORD)
    for place, name in enumerate(("version", "features", "train", "evaluate", "gate", "deploy")):
        runs.add_step(ws, run_id, name=name, began=now - 60 + place, ended=now - 59 + place)
    runs.add_worked(ws, run_id, step="train", seconds=95.0)
    runs.update(ws, run_id, outcome="ask", step="deploy")
    runs.finish(ws, run_id, status="done")
    alerts.raise_alert(
        ws,
        project,
        kind="gate",
        key=run_id,
        title=f"Model {second.number} waits for your decision",
        text=GATE["checks"][1]["reason"],  # type: ignore[index]
        data={"run": run_id, "model": second.number, "decision": "ask"},
    )
    rows = [
        event_row(
            project,
            at=now - float(rng.uniform(0, 40 * HOUR_S)),
            label=str(rng.choice(labels)),
            confidence=float(rng.uniform(0.6, 0.99)),
            digest=bundle.digest,
            labels=labels,
        )
        for _ in range(traffic)
    ]
    kept: dict[str, list[str]] = {"audit": [], "uncertain": []}
    for kind, count in (("audit", audits), ("uncertain", uncertain)):
        for n in range(count):
            data = pictures[n][0] if len(pictures) > 400 else draw(1000 + n + 500 * (kind == "audit"), side=320)
            row = event_row(
                project,
                at=now - 600 + n,
                label=labels[n % len(labels)],
                confidence=0.98765 if kind == "audit" else 0.3 + n / 50,
                digest=bundle.digest,
                labels=labels,
                selected_by=kind,
                sealed=seal(ws, data),
            )
            rows.append(row)
            kept[kind].append(row["id"])
    with ws.database.write("events") as connection:
        connection.execute(schema.event.insert(), rows)
    intake.run(ws)
    return Seeded(ws, project, tuple(labels), kept["audit"], kept["uncertain"], run_id, first.number, second.number)


SETTINGS = "projects:\n  shop:\n    gate: {min_accuracy: 0.8}\n  empty: {}\n"


@contextmanager
def open_workspace(root: Path, settings: str = SETTINGS) -> Iterator[Workspace]:
    root.mkdir()
    (root / "keepsight.yaml").write_text(settings)
    opened = Workspace.open(root, environment={})
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace with the projects shop and empty."""
    with open_workspace(tmp_path / "ws") as opened:
        yield opened


@pytest.fixture
def shop(ws: Workspace) -> Seeded:
    """The project shop, filled."""
    return seed(ws, "shop")


@pytest.fixture
def fill(ws: Workspace) -> Callable[..., Seeded]:
    """``fill(project, labels=...)``."""
    return lambda project, **options: seed(ws, project, **options)


@contextmanager
def run_server(ws: Workspace) -> Iterator[str]:
    """The whole application behind the real server; gives its URL."""
    listener = bind("127.0.0.1", 0)
    url = url_of(listener)
    app = create_app(
        ws,
        source=DatabaseSource(ws, server_id=uuid.uuid4().hex, url=url),
        sink=DatabaseSink(ws),
        tokens=DatabaseTokens(ws),
        threads=1,
    )
    ready = threading.Event()
    server = Server(make_config(Told(app)), on_ready=ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(30), "the server did not start"
        yield url
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()


@pytest.fixture
def url(ws: Workspace) -> Iterator[str]:
    """The server of ``ws``."""
    with run_server(ws) as address:
        yield address


class Browser:
    """A browser without JavaScript: it keeps cookies, and sends forms as the page has them."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, headers={"accept": "text/html", **options.pop("headers", {})}, **options)

    def form_key(self, path: str = "/login") -> str:
        text = self.get(path).text
        return text.split('name="form_key" value="', 1)[1].split('"', 1)[0]

    def post(self, path: str, data: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        fields = {"form_key": self.form_key(), **(data or {})}
        return self.client.post(
            path, data=fields, headers={"accept": "text/html", **options.pop("headers", {})}, **options
        )


@pytest.fixture
def browser(url: str) -> Iterator[Browser]:
    with httpx.Client(base_url=url, timeout=30, follow_redirects=True) as client:
        yield Browser(client)


@pytest.fixture
def new_browser(url: str) -> Iterator[Callable[[], Browser]]:
    """Another browser, with cookies of its own."""
    with ExitStack() as stack:
        yield lambda: Browser(stack.enter_context(httpx.Client(base_url=url, timeout=30, follow_redirects=True)))


def until(condition: Callable[[], bool], *, limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return until


@pytest.fixture
def world() -> Any:
    """This module, for tests that make their own workspace."""
    return sys.modules[__name__]
