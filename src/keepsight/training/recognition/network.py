"""The network of a gallery: a pretrained one that gives unit vectors, through a metric head where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.runtime.session import FEATURES, INPUT

_PREFIX = "embedding/"


@dataclass(frozen=True)
class Projection:
    """A metric head: unit vectors (n, d) less ``mean`` (d,), times ``matrix`` (d, r), of unit length again."""

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    def apply(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The projected unit vectors, float32 (n, r)."""
        return unit(np.asarray((unit(vectors) - self.mean) @ self.matrix, np.float32))


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors (n, d) at length 1; zeros stay zeros."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.asarray(vectors / lengths, np.float32)


def with_embedding(network: bytes, *, output: str, projection: Projection | None) -> bytes:
    """The network with unit vectors besides its ``features`` (n, d), or in their place where ``output`` is "features".

    Whatever else it gave (a classifier's logits) is cut off. Equal inputs give equal bytes.

    Args:
        network: ONNX with the input ``image``.
        output: Name of the unit vectors.
        projection: The metric head; None: the features as they are.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from onnx.utils import Extractor

    model = Extractor(onnx.load_from_string(network)).extract_model([INPUT], [FEATURES])
    graph = model.graph
    source = FEATURES
    if output == FEATURES:
        source = f"{_PREFIX}raw"
        for node in graph.node:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == FEATURES:
                        names[place] = source

    def constant(name: str, value: NDArray[np.float32] | NDArray[np.int64]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), _PREFIX + name))
        return _PREFIX + name

    def add(kind: str, inputs: list[str], result: str, **attributes: Any) -> str:
        name = f"{_PREFIX}node{len(graph.node)}"
        graph.node.append(helper.make_node(kind, inputs, [result], name=name, **attributes))
        return result

    axes, least = constant("axes", np.array([1], np.int64)), constant("least", np.array([1e-12], np.float32))

    def normalised(tensor: str, result: str, step: str) -> str:
        # ReduceL2 takes its axes as an attribute or an input, depending on the opset; ReduceSum as an input since 13.
        squares = add("Mul", [tensor, tensor], f"{_PREFIX}{step}.squares")
        total = add("ReduceSum", [squares, axes], f"{_PREFIX}{step}.total", keepdims=1)
        length = add("Max", [add("Sqrt", [total], f"{_PREFIX}{step}.root"), least], f"{_PREFIX}{step}.length")
        return add("Div", [tensor, length], result)

    if projection is None:
        normalised(source, output, "unit")
    else:
        first = normalised(source, f"{_PREFIX}plain", "plain")
        centred = add("Sub", [first, constant("mean", projection.mean)], f"{_PREFIX}centred")
        turned = add("MatMul", [centred, constant("matrix", projection.matrix)], f"{_PREFIX}turned")
        normalised(turned, output, "unit")
    told = graph.output[0]
    width = told.type.tensor_type.shape.dim[1].dim_value if projection is None else projection.matrix.shape[1]
    made = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", width or None])
    made.type.tensor_type.shape.dim[0].CopyFrom(told.type.tensor_type.shape.dim[0])
    if output == FEATURES:
        del graph.output[:]
    graph.output.append(made)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
