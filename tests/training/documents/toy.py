"""A reader of toy documents: lines of coloured blocks, a colour for each character, read by networks made by hand."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.preprocess import Preprocessing
from keepsight.training.documents.reader import Reader

# Corners of the colour cube; white is the blank.
COLOURS = {
    "T": (0, 0, 0),
    "A": (255, 0, 0),
    "0": (0, 255, 0),
    "1": (0, 0, 255),
    "2": (255, 255, 0),
    ".": (255, 0, 255),
    "3": (0, 255, 255),
}
BLOCK, GAP, HIGH = 14, 10, 28


def draw(lines: Sequence[tuple[str, int, int]], *, size: tuple[int, int] = (320, 400)) -> bytes:
    """A PNG with lines ``(text, left, top)``."""
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    for text, left, top in lines:
        for place, sign in enumerate(text):
            x = left + place * (BLOCK + GAP)
            pen.rectangle((x, top, x + BLOCK - 1, top + HIGH - 1), fill=COLOURS[sign])
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def box(text: str, left: int, top: int) -> list[float]:
    """Where a line of ``draw`` stands."""
    return [left, top, left + len(text) * (BLOCK + GAP) - GAP, top + HIGH]


def reader() -> Reader:
    """The reader of such documents."""
    return Reader(
        task="ocr",
        size="small",
        detector=detector(),
        recogniser=recogniser(),
        characters=tuple(COLOURS),
        orientation=None,
        preprocessing=Preprocessing(size=64, mean=(127.5,) * 3, std=(127.5,) * 3),
        licences=("Apache-2.0",),
    )


def bundle() -> Bundle:
    """A model that reads such documents and knows no fields."""
    made = reader()
    info = BundleInfo(
        task=made.task, labels=(), preprocessing=made.preprocessing, created_at="2026-01-01T00:00:00+00:00"
    )
    return Bundle.create(info, model=made.detector, parts=made.parts())


def detector() -> bytes:
    """Text is where a pixel to the left or right is coloured."""
    nodes = [
        helper.make_node("Neg", ["image"], ["dark"]),
        helper.make_node("ReduceMax", ["dark"], ["darkest"], axes=[1], keepdims=1),
        helper.make_node("MaxPool", ["darkest"], ["wide"], kernel_shape=[1, 41], pads=[0, 20, 0, 20]),
        # Closing: what grew beyond the ends of a line goes again.
        helper.make_node("Neg", ["wide"], ["light"]),
        helper.make_node("MaxPool", ["light"], ["narrow"], kernel_shape=[1, 41], pads=[0, 20, 0, 20]),
        helper.make_node("Neg", ["narrow"], ["closed"]),
        helper.make_node("Mul", ["closed", "steep"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["probability"]),
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    return _model(
        nodes,
        {"steep": np.array(12, np.float32)},
        ["n", 3, "h", "w"],
        {"features": ["n", 3], "probability": ["n", 1, "h", "w"]},
    )


def recogniser() -> bytes:
    """In each column the nearest colour; one layer, which can be trained."""
    corners = np.array([(255, 255, 255), *COLOURS.values(), (127.5, 127.5, 127.5)], np.float32) / 127.5 - 1
    weight = (12 * corners)[:, :, None, None]
    bias = -6 * (corners**2).sum(axis=1)
    bias[-1] = -1e3  # a space is never read
    nodes = [
        helper.make_node("Neg", ["image"], ["negative"]),
        helper.make_node("MaxPool", ["negative"], ["high"], kernel_shape=[48, 1], strides=[1, 1]),
        helper.make_node("Neg", ["high"], ["column"]),
        helper.make_node("AveragePool", ["column"], ["step"], kernel_shape=[1, 4], strides=[1, 4]),
        helper.make_node("Conv", ["step", "weight", "bias"], ["scores"]),
        helper.make_node("Squeeze", ["scores", "axis"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["logits"], perm=[0, 2, 1]),
        helper.make_node("Softmax", ["logits"], ["shares"], axis=2),
    ]
    weights = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32), "axis": np.array([2], np.int64)}
    return _model(nodes, weights, ["n", 3, 48, "w"], {"shares": ["n", "steps", len(COLOURS) + 2]})


def _model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    shape: list[str | int],
    outputs: dict[str, list[str | int]],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name, sides in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
