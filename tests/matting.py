"""A small real network that gives mattes, pictures with their masks, and bundles made of them."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from keepsight.runtime import rle
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.preprocess import Preprocessing
from keepsight.zoo.entry import Entry
from keepsight.zoo.pretrained import Pretrained

SIDE = 32
PREPROCESSING = Preprocessing(size=SIDE, mean=(0.0,) * 3, std=(255.0,) * 3, fit="stretch")


def network(*, sharpness: float = 20.0) -> bytes:
    """What is brighter than half is foreground; as the zoo's networks: ``alpha``, ``alpha_logits``, ``features``."""
    rng = np.random.default_rng(0)
    first = rng.normal(0, 0.05, (6, 3, 3, 3))
    first[0, :, 1, 1] = 1 / 3
    last = rng.normal(0, 0.01, (1, 12, 1, 1))
    last[0, 0] = sharpness
    weights = {"w1": first, "w2": last, "b2": np.array([-sharpness / 2])}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["small", "", "twice"], ["large"], mode="linear"),
        helper.make_node("Concat", ["r1", "large"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "w2", "b2"], ["alpha_logits"]),
        helper.make_node("Sigmoid", ["alpha_logits"], ["seen"]),
        helper.make_node("Squeeze", ["seen", "channel"], ["alpha"]),
        helper.make_node("GlobalAveragePool", ["small"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 6]),
            helper.make_tensor_value_info("alpha", TensorProto.FLOAT, ["n", SIDE, SIDE]),
            helper.make_tensor_value_info("alpha_logits", TensorProto.FLOAT, ["n", 1, SIDE, SIDE]),
        ],
        [
            *(numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()),
            numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"),
            numpy_helper.from_array(np.array([1], np.int64), "channel"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def bundle(*, thresholds: dict[str, float] | None = None) -> Bundle:
    """A bundle of that network."""
    info = BundleInfo(
        task="segmentation",
        labels=(),
        preprocessing=PREPROCESSING,
        created_at="2026-01-01T00:00:00+00:00",
        thresholds={"auto": 0.5, **(thresholds or {})},
    )
    return Bundle.create(info, model=network())


def pretrained(**options: Any) -> Pretrained:
    """That network as the zoo hands out one."""
    content = network(**options)
    entry = Entry(
        name="small",
        task="segmentation",
        summary="",
        origin="",
        weights_licence="Apache-2.0",
        package_licence="MIT",
        package="small",
        version="1",
        member="small.onnx",
        sha256="0" * 64,
        size_bytes=1,
        preprocessing=PREPROCESSING,
        features_dim=6,
        builder=bytes,
    )
    return Pretrained(entry, content, hashlib.sha256(content).hexdigest())


def disc(size: tuple[int, int] = (64, 48), *, at: tuple[float, float] = (0.5, 0.5), radius: float = 0.3) -> Any:
    """The mask of a disc, bool (height, width); place and radius as shares of width and height, and of the height."""
    width, height = size
    y, x = np.mgrid[:height, :width] + 0.5
    found: NDArray[np.bool_] = np.hypot(x - at[0] * width, y - at[1] * height) < radius * height
    return found


def value(mask: Any) -> dict[str, Any]:
    """The annotation of a mask."""
    return {"mask": rle.encode(mask)}


def photo(mask: Any, *, seed: int = 0, front: int = 220, back: int = 40, kind: str = "PNG") -> bytes:
    """A picture that is light where the mask is, with some noise."""
    noise = np.random.default_rng(seed).normal(0, 6, (*mask.shape, 3))
    pixels = np.where(mask[..., None], front, back) + noise
    out = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, kind)
    return out.getvalue()
