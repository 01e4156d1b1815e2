"""A tiny real network, bundles made of it, pictures, and a clock that is set by hand."""

from __future__ import annotations

import functools
import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from keepsight import config
from keepsight.delivery import deployments
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BackboneInfo, BundleInfo
from keepsight.runtime.preprocess import Preprocessing
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.budget import Budget
from keepsight.training.models import Model
from keepsight.training.recipes import Material
from keepsight.zoo.backbone import Backbone

SIDE = 8
DIMENSIONS = 3 * SIDE * SIDE
LABELS = ("a", "b")


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def picture(seed: int, *, kind: str = "PNG", side: int = SIDE) -> bytes:
    """A picture of its own for each seed; odd ones are much lighter than even ones."""
    pixels = np.random.default_rng(seed).integers(0, 128, (side, side, 3)) + 127 * (seed % 2)
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, kind)
    return out.getvalue()


@functools.cache
def backbone() -> Backbone:
    """A network whose features are the pixels themselves."""
    content = bytes(_network().SerializeToString())
    return Backbone(
        name="tiny",
        onnx=content,
        digest=hashlib.sha256(content).hexdigest(),
        preprocessing=Preprocessing(size=SIDE, mean=(127.0,) * 3, std=(64.0,) * 3),
        features_dim=DIMENSIONS,
        licences=("Apache-2.0",),
    )


def bundle(
    seed: int = 0,
    *,
    task: str = "classification",
    labels: tuple[str, ...] = LABELS,
    outputs: Mapping[str, int] | None = None,
    thresholds: Mapping[str, float] | None = None,
    metrics: Mapping[str, Any] | None = None,
    reference: Mapping[str, NDArray[Any]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Bundle:
    """A bundle of that backbone with a random head; its features are the backbone's unless ``extra`` says other.

    ``outputs`` are the head's outputs and how many numbers each has; ``logits`` for the labels where not given.
    """
    network = _network()
    rng = np.random.default_rng(seed)
    for name, width in (outputs or {"logits": len(labels)}).items():
        weight = rng.standard_normal((DIMENSIONS, width)).astype(np.float32)
        network.graph.initializer.append(numpy_helper.from_array(weight, f"{name}.weight"))
        network.graph.node.append(helper.make_node("Gemm", ["features", f"{name}.weight"], [name]))
        network.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]))
    onnx.checker.check_model(network)
    info = BundleInfo(
        task=task,
        labels=labels,
        preprocessing=backbone().preprocessing,
        created_at="2026-01-01T00:00:00+00:00",
        thresholds={"auto": 0.5, **(thresholds or {})},
        metrics=dict(metrics or {}),
        backbone=BackboneInfo("tiny", backbone().digest, "Apache-2.0"),
        extra={"frozen_backbone": True} if extra is None else extra,
    )
    references = {} if reference is None else {"float": reference}
    return Bundle.create(info, model=network.SerializeToString(), references=references)


def detector(*, labels: tuple[str, ...] = LABELS, boxes: int = 6) -> Bundle:
    """A bundle that finds boxes which depend on the picture's pixels and have no meaning."""
    network = _network()
    graph = network.graph
    rng = np.random.default_rng(0)
    for name, width in (("boxes", 4), ("scores", len(labels))):
        weight = rng.standard_normal((DIMENSIONS, boxes * width)).astype(np.float32) / DIMENSIONS
        graph.initializer.append(numpy_helper.from_array(weight, f"{name}.weight"))
        graph.initializer.append(numpy_helper.from_array(np.array([-1, boxes, width], np.int64), f"{name}.shape"))
        graph.node.append(helper.make_node("Gemm", ["features", f"{name}.weight"], [f"{name}.flat"]))
        graph.node.append(helper.make_node("Reshape", [f"{name}.flat", f"{name}.shape"], [f"{name}.raw"]))
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", boxes, width]))
    corners = np.sort(rng.uniform(0, SIDE, (boxes, 2, 2)), axis=1).reshape(boxes, 4).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(corners, "corners"))
    graph.node.append(helper.make_node("Add", ["boxes.raw", "corners"], ["boxes"]))
    graph.node.append(helper.make_node("Sigmoid", ["scores.raw"], ["scores"]))
    onnx.checker.check_model(network)
    info = BundleInfo(
        task="detection",
        labels=labels,
        preprocessing=replace(backbone().preprocessing, fit="pad"),
        created_at="2026-01-01T00:00:00+00:00",
        thresholds={"auto": 0.5, "show": 0.5},
    )
    return Bundle.create(info, model=network.SerializeToString())


def convolutional(*, named: bool = True, side: int = 16, channels: int = 32) -> bytes:
    """Two convolutions with batch normalisation, pooled into ``features``, and a head of two classes; ONNX."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(0, 0.3, (channels, 3, 3, 3)) * rng.uniform(0.01, 3, (channels, 1, 1, 1)),
        "w2": rng.normal(0, 0.1, (channels, channels, 3, 3)),
        "gain": rng.uniform(0.5, 1.5, channels),
        "shift": rng.normal(0, 0.1, channels),
        "mean": rng.normal(0, 0.1, channels),
        "variance": rng.uniform(0.5, 1.5, channels),
        "head": rng.normal(0, 1, (channels, 2)),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c1", "gain", "shift", "mean", "variance"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "head"], ["logits"]),
    ]
    for place, node in enumerate(nodes):
        node.name = f"n{place}" if named else ""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, side, side])],
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", channels]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2]),
        ],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def register(ws: Workspace, made: Bundle | None = None, *, run_id: str | None = None) -> Model:
    """A new challenger of the project shop."""
    return models.register(ws, "shop", made or bundle(), run_id=run_id, dataset_version=None, metrics={}, actor="ana")


def release(ws: Workspace, made: Bundle | None = None) -> deployments.Deployment:
    """A new live model of the project shop; no run made it, so a person answers for it."""
    return deployments.promote(ws, "shop", register(ws, made).number, actor="ana", reason="test", kind="override")


def _network() -> onnx.ModelProto:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", DIMENSIONS])
    graph = helper.make_graph([helper.make_node("Flatten", ["image"], ["features"])], "tiny", [image], [features])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@contextmanager
def workspace_with(root: Path, settings: str = "") -> Iterator[Workspace]:
    """A workspace on SQLite whose project shop has these settings (YAML); its clock is a :class:`Clock`."""
    root.mkdir(exist_ok=True)
    (root / "keepsight.yaml").write_text(f"projects: {{shop: {{train.recipe: head, {settings}}}, other: {{}}}}\n")
    opened = Workspace.open(root, environment={}, clock=Clock())
    for project in opened.config.projects:
        opened.ensure_project(project)
    try:
        yield opened
    finally:
        opened.close()


def material(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    folder: Path,
    groups: NDArray[np.int64] | None = None,
    names: tuple[str, ...] = LABELS,
    backbone_: Backbone | None = None,
    read: Callable[[int], bytes | None] = lambda place: None,
    settings: Mapping[str, Any] | None = None,
    **others: Any,
) -> Material:
    """What a recipe works with; whatever is not given is what a run without a val split would have."""
    known = config.Config(root=folder, workspace={}, projects={"shop": dict(settings or {})}).project("shop")
    values: dict[str, Any] = {
        "validation": np.zeros(len(labels), np.bool_),
        "seed": 0,
        "budget": Budget(math.inf),
        "plan": None,
        "progress": lambda values: None,
        **others,
    }
    return Material(
        task="classification",
        backbone=backbone_ or backbone(),
        values=[{"label": names[label]} for label in labels],
        sizes=np.full((len(labels), 2), SIDE, np.int64),
        features=features,
        labels=labels,
        groups=np.arange(len(labels)) if groups is None else groups,
        names=names,
        read=read,
        settings=known,
        folder=folder,
        **values,
    )
