"""A small convolutional backbone with random weights, and pictures that it can learn to tell apart."""

from __future__ import annotations

import functools
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from keepsight.runtime.preprocess import Preprocessing
from keepsight.runtime.session import open_session
from keepsight.training.recipes import Material
from keepsight.zoo.backbone import Backbone
from tests import tiny

SIDE = 32
CHANNELS = 16


@functools.cache
def backbone() -> Backbone:
    """Four convolutions, one of them depthwise with 5 x 5 taps and uneven padding, and a residual connection."""
    rng = np.random.default_rng(0)
    weights: list[Any] = []
    nodes: list[Any] = []

    def constant(name: str, value: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    low, high = constant("low", 0.0), constant("high", 6.0)

    def conv(source: str, name: str, shape: tuple[int, ...], **attributes: Any) -> str:
        fan = int(np.prod(shape[1:]))
        kernels = constant(f"{name}.weight", rng.standard_normal(shape) * np.sqrt(2 / fan))
        bias = constant(f"{name}.bias", rng.standard_normal(shape[0]) * 0.1)
        nodes.append(helper.make_node("Conv", [source, kernels, bias], [f"{name}.linear"], **attributes))
        nodes.append(helper.make_node("Clip", [f"{name}.linear", low, high], [name]))
        return name

    x = conv("image", "stem", (8, 3, 3, 3), strides=[2, 2], pads=[0, 0, 1, 1])
    x = conv(x, "deep", (8, 1, 5, 5), group=8, strides=[2, 2], pads=[1, 1, 2, 2])
    x = conv(x, "wide", (CHANNELS, 8, 1, 1))
    y = conv(x, "inner", (CHANNELS, CHANNELS, 3, 3), pads=[1, 1, 1, 1])
    nodes.append(helper.make_node("Add", [x, y], ["sum"]))
    nodes.append(helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", CHANNELS])
    graph = helper.make_graph(nodes, "small", [image], [features], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content = bytes(model.SerializeToString())
    return Backbone(
        name="small",
        onnx=content,
        digest=hashlib.sha256(content).hexdigest(),
        preprocessing=Preprocessing(size=SIDE, mean=(127.0,) * 3, std=(64.0,) * 3),
        features_dim=CHANNELS,
        licences=("Apache-2.0",),
    )


def picture(number: int) -> bytes:
    """Stripes that lie (even numbers) or stand (odd ones), with noise."""
    rng = np.random.default_rng(number)
    stripes = 60 * np.sin(np.arange(48) * rng.uniform(0.7, 0.9) + rng.uniform(0, 6))
    pattern = stripes[None, :] if number % 2 else stripes[:, None]
    pixels = np.clip(127 + pattern + rng.normal(0, 15, (48, 48)), 0, 255)
    out = io.BytesIO()
    Image.fromarray(np.repeat(pixels[..., None], 3, axis=2).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def inputs(count: int) -> NDArray[np.float32]:
    """The first pictures as the network's input."""
    return np.stack([backbone().preprocessing.from_bytes(picture(number))[0] for number in range(count)])


def material(folder: Path, *, count: int = 40, **others: Any) -> Material:
    """What the recipe works with: two classes of stripes."""
    session: Any = open_session(backbone().onnx)
    features = session.run(["features"], {"image": inputs(count)})[0]
    given = {"backbone_": backbone(), "read": picture, **others}
    return tiny.material(features, np.arange(count) % 2, folder=folder, **given)
