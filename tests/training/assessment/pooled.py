"""Small real networks that pool a map in the ways that exporters write it, and one that pools none."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.preprocess import Preprocessing

SIDE = 16
LABELS = ("red", "green", "blue")
# The scores: each class wants its colour and not the others.
WEIGHT = np.array([[2, -1, -1], [-1, 2, -1], [-1, -1, 2]], np.float32)
KINDS = ("global", "mean", "mean last", "squeezed", "normed", "tokens")


def bundle(kind: str = "global", *, crop: float = 1.0) -> Bundle:
    """A bundle whose map are the mean colours of 4 by 4 squares: what speaks for a class is known exactly."""
    info = BundleInfo(
        task="classification",
        labels=LABELS,
        preprocessing=Preprocessing(size=SIDE, mean=(0.0,) * 3, std=(255.0,) * 3, crop=crop),
        created_at="2026-01-01T00:00:00+00:00",
        extra={"frozen_backbone": False},
    )
    return Bundle.create(info, model=network(kind))


def network(kind: str) -> bytes:
    """As an exporter would write it: the ``kind`` names how the map becomes the features."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    outputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3]),
    ]
    node = helper.make_node
    nodes = [node("AveragePool", ["image"], ["map"], kernel_shape=[4, 4], strides=[4, 4])]
    weights: dict[str, NDArray[Any]] = {"weight": WEIGHT, "bias": np.zeros(3, np.float32)}
    if kind == "global":
        nodes += [node("GlobalAveragePool", ["map"], ["pooled"]), node("Flatten", ["pooled"], ["features"])]
    elif kind == "mean":
        nodes.append(node("ReduceMean", ["map"], ["features"], axes=[-1, -2], keepdims=0))
    elif kind == "mean last":
        nodes.append(node("Transpose", ["map"], ["turned"], perm=[0, 2, 3, 1]))
        nodes.append(node("ReduceMean", ["turned"], ["features"], axes=[1, 2], keepdims=0))
    elif kind == "squeezed":
        # A pooling inside, around which the map goes too, as in squeeze-and-excitation.
        nodes += [node("GlobalAveragePool", ["map"], ["inner"]), node("Sigmoid", ["inner"], ["gate"])]
        nodes += [node("Mul", ["map", "gate"], ["gated"]), node("GlobalAveragePool", ["gated"], ["pooled"])]
        nodes.append(node("Flatten", ["pooled"], ["features"]))
    elif kind == "normed":
        # Normalised behind the pooling, by another mean, and then a head that takes roots.
        nodes += [node("GlobalAveragePool", ["map"], ["pooled"]), node("Flatten", ["pooled"], ["flat"])]
        nodes += [node("ReduceMean", ["flat"], ["centre"], axes=[-1]), node("Sub", ["flat", "centre"], ["features"])]
    elif kind == "tokens":
        weights["shape"] = np.array([0, 3, -1], np.int64)
        nodes.append(node("Reshape", ["map", "shape"], ["tokens"]))
        nodes.append(node("ReduceMean", ["tokens"], ["features"], axes=[2], keepdims=0))
    else:
        raise ValueError(kind)
    nodes.append(node("Gemm", ["features", "weight", "bias"], ["logits"], transB=1))
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, kind, [image], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
