"""Builds the ONNX graph of a convolutional backbone from its named tensors.

The graph has one input, ``image`` (n, 3, size, size) float32, and two outputs: ``features`` (n, d), the pooled
activations, and ``logits`` (n, classes) of the classifier that the weights were trained with. Batch normalisation is
folded into the convolutions before it (computed in float64), paddings stand in the convolutions and ReLU6 is a Clip
right behind, the form that onnxruntime fuses. The outputs of stem, residual blocks and last convolution are named
``stem``, ``block0``, ``block1``, ... and ``head``, so that the graph can be cut there. Equal tensors give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import WeightsError
from keepsight.runtime.session import FEATURES, INPUT

if TYPE_CHECKING:
    import onnx

GRAPH_VERSION = 1  # part of the cache's file names: count up when the graph built from the same tensors changes
OPSET = 17
IR_VERSION = 8
LOGITS = "logits"


def same_padding(size: int, *, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros (before, after) that make a convolution's output ``ceil(size / stride)`` wide, as TensorFlow's "SAME" does.

    >>> same_padding(224, kernel=3, stride=2)
    (0, 1)
    >>> same_padding(14, kernel=5, stride=1)
    (2, 2)
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class GraphBuilder:
    """Takes tensors by name and expected shape, adds nodes in order, and checks at the end that each was used.

    Args:
        tensors: The state dict: name to float32 array.
        name: The backbone's name, for messages and as the graph's name.
        bn_epsilon: What the network's batch normalisation adds to the variance.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], *, name: str, bn_epsilon: float) -> None:
        self._tensors = tensors
        self._name = name
        self._bn_epsilon = bn_epsilon
        self._used: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, NDArray[np.float32]] = {}

    def convolution(
        self,
        source: str,
        output: str,
        *,
        weight: str,
        norm: str,
        channels: tuple[int, int],
        kernel: int = 1,
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
        depthwise: bool = False,
        relu6: bool = True,
    ) -> str:
        """Adds convolution, folded batch normalisation and ReLU6; returns the name of the result, ``output``.

        Args:
            source: Name of the input tensor.
            output: Name of the result.
            weight: Name of the convolution's weight in the state dict.
            norm: Name of the batch normalisation there, without ``.weight`` and so on.
            channels: Channels in and out.
            kernel: Side of the square kernel.
            stride: Step in both directions.
            padding: Zeros before and after, the same in both directions.
            depthwise: One filter per channel.
            relu6: Clip the result to 0..6.
        """
        inward, outward = channels
        kernels = self._take(weight, (outward, 1 if depthwise else inward, kernel, kernel)).astype(np.float64)
        gain, shift, mean, variance = (
            self._take(f"{norm}.{part}", (outward,)).astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        if float(variance.min()) < 0:
            self._refuse(f"a variance in {norm} is negative")
        scale = gain / np.sqrt(variance + self._bn_epsilon)
        linear = f"{output}.linear" if relu6 else output
        before, after = padding
        self._node(
            "Conv",
            [
                source,
                self._constant(f"{output}.weight", kernels * scale[:, None, None, None]),
                self._constant(f"{output}.bias", shift - mean * scale),
            ],
            linear,
            dilations=[1, 1],
            group=outward if depthwise else 1,
            kernel_shape=[kernel, kernel],
            pads=[before, before, after, after],
            strides=[stride, stride],
        )
        if relu6:
            bounds = [self._constant("relu6.low", np.array(0.0)), self._constant("relu6.high", np.array(6.0))]
            self._node("Clip", [linear, *bounds], output)
        return output

    def add(self, first: str, second: str, output: str) -> str:
        """Adds the sum of two tensors of equal shape; returns its name, ``output``."""
        self._node("Add", [first, second], output)
        return output

    def classifier(self, source: str, *, prefix: str, features: int, classes: int) -> None:
        """Adds pooling over the picture (giving ``features``) and the fully connected layer (giving ``logits``)."""
        self._node("GlobalAveragePool", [source], "pooled")
        self._node("Flatten", ["pooled"], FEATURES, axis=1)
        weight = self._constant("classifier.weight", self._take(f"{prefix}.weight", (classes, features)))
        bias = self._constant("classifier.bias", self._take(f"{prefix}.bias", (classes,)))
        self._node("Gemm", [FEATURES, weight, bias], LOGITS, transB=1)

    def finish(self, *, size: int, features: int, classes: int) -> bytes:
        """The serialised model for pictures of ``size`` pixels.

        Raises:
            WeightsError: The state dict holds tensors that this network does not have.
        """
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        left = [key for key in self._tensors if key not in self._used and not key.endswith(".num_batches_tracked")]
        if left:
            self._refuse(f"{len(left)} tensors belong to another network, such as {left[0]}")
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", 3, size, size])],
            [
                helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["n", features]),
                helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["n", classes]),
            ],
            [numpy_helper.from_array(value, name) for name, value in self._initializers.items()],
        )
        model = helper.make_model(
            graph,
            producer_name="keepsight",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _take(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        tensor = self._tensors.get(name)
        if tensor is None:
            self._refuse(f"the tensor {name} is missing")
        if tensor.shape != shape or tensor.dtype != np.float32:
            self._refuse(f"the tensor {name} is {tensor.dtype} {tensor.shape}, not float32 {shape}")
        if not np.isfinite(tensor).all():
            self._refuse(f"the tensor {name} holds values that are not finite")
        self._used.add(name)
        return tensor

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self._initializers[name] = np.ascontiguousarray(value, dtype=np.float32).reshape(value.shape)
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    def _refuse(self, reason: str) -> NoReturn:
        raise WeightsError(
            f"These weights are not those of {self._name}: {reason}.",
            expected=f"the state dict of {self._name}, with the names and shapes of its original.",
            do="Use the weights file that belongs to this backbone.",
            backbone=self._name,
            reason=reason,
        )
