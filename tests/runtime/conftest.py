"""A tiny network whose answers are plain to see: its features are the mean red, green and blue of the picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BackboneInfo, BundleInfo
from keepsight.runtime.preprocess import Preprocessing

LABELS = ("red", "green", "blue")
SIZE = 16

MakeModel = Callable[..., bytes]
MakeInfo = Callable[..., BundleInfo]
MakeBundle = Callable[..., Bundle]
MakeJpeg = Callable[..., bytes]


def build_model(
    *,
    size: int | str = SIZE,
    outputs: Sequence[str] = ("features", "logits"),
    name: str = "image",
    scale: float = 4.0,
) -> bytes:
    """ONNX: features = mean of each channel, logits = scale * features."""
    shape: list[int | str] = ["n", 3, size, size]
    nodes = [
        helper.make_node("GlobalAveragePool", [name], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", 3]) for output in outputs],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32) * np.float32(scale), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def build_info(**changes: Any) -> BundleInfo:
    """The manifest of the tiny network."""
    values: dict[str, Any] = {
        "task": "classification",
        "labels": LABELS,
        "preprocessing": Preprocessing(SIZE),
        "temperature": 0.5,
        "thresholds": {"auto": 0.9},
        "dataset_version": "v3",
        "dataset_digest": "ab" * 32,
        "backbone": BackboneInfo("tiny", "cd" * 32, "Apache-2.0"),
        "metrics": {"accuracy": {"value": 0.93, "low": 0.91, "high": 0.95}},
        "licences": ("Apache-2.0",),
        "created_at": "2026-11-23T08:00:00+00:00",
        "run_id": "run-7",
        "extra": {"note": "Größe ≥ 1"},
    }
    return BundleInfo(**{**values, **changes})


def build_references() -> dict[str, dict[str, NDArray[Any]]]:
    """Reference features of four held-out pictures."""
    return {
        "float": {"features": np.arange(12, dtype=np.float32).reshape(4, 3), "sample": np.arange(4, dtype=np.int64)}
    }


def build_bundle(**changes: Any) -> Bundle:
    """The tiny network as a bundle with two variants and a reference."""
    return Bundle.create(
        build_info(**changes), model=build_model(), int8_model=build_model(scale=3.0), references=build_references()
    )


def build_jpeg(image: NDArray[np.uint8] | Image.Image, **options: Any) -> bytes:
    """A JPEG file of a picture."""
    out = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(out, "JPEG", **{"quality": 95, **options})
    return out.getvalue()


@pytest.fixture
def make_model() -> MakeModel:
    """Builds variants of the tiny network."""
    return build_model


@pytest.fixture
def make_info() -> MakeInfo:
    """Builds variants of its manifest."""
    return build_info


@pytest.fixture
def make_bundle() -> MakeBundle:
    """Builds variants of its bundle."""
    return build_bundle


@pytest.fixture
def bundle() -> Bundle:
    """The bundle of the tiny network."""
    return build_bundle()


@pytest.fixture
def make_jpeg() -> MakeJpeg:
    """Encodes pictures as JPEG."""
    return build_jpeg


@pytest.fixture(scope="session")
def scene() -> NDArray[np.uint8]:
    """A photo-like picture, 480 x 640: smooth shapes, sharp edges and some noise."""
    random = np.random.default_rng(7)
    rows, columns = np.mgrid[0:480, 0:640]
    base = np.stack([110 + 70 * np.sin(columns / 50), 120 + 60 * np.cos(rows / 35), 90 + (columns + rows) / 14], axis=2)
    base[120:300, 200:420] = (210, 60, 40)
    base[310:420, 60:180] = (30, 160, 220)
    noisy = base + random.normal(0, 4, base.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
