"""A frozen backbone and a linear head as one ONNX graph, the form in which they are served."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import TrainingError

FEATURES = "features"
LOGITS = "logits"
_PREFIX = "head/"


class LinearHead(Protocol):
    """Weight (k, d) and bias (k,) that act on power- and L2-normalised features, and the power."""

    @property
    def weight(self) -> NDArray[np.float32]:
        """(k, d)."""

    @property
    def bias(self) -> NDArray[np.float32]:
        """(k,)."""

    @property
    def power(self) -> float:
        """Exponent of the signed power normalisation."""


def merge(backbone_onnx: bytes, head: LinearHead) -> bytes:
    """One graph: the backbone's inputs; outputs ``features`` as the backbone pools them, and the head's ``logits``.

    The backbone's own classifier goes, with all weights that only it used. The logits are uncalibrated; the runtime
    divides them by the temperature. Equal inputs give equal bytes.

    Args:
        backbone_onnx: ONNX model (opset 13 or later) with an output ``features`` (n, d).
        head: Fitted on those features.

    Raises:
        TrainingError: no output ``features``, or an opset too old.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(backbone_onnx)
    graph = model.graph
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    features = next((output for output in graph.output if output.name == FEATURES), None)
    if features is None or opset < 13:
        raise TrainingError(
            f"The backbone has the outputs {', '.join(output.name for output in graph.output)} and opset {opset}.",
            expected=f'an output "{FEATURES}" and opset 13 or later.',
            do="Export the backbone again with its pooled features as an output.",
        )
    _keep_only(graph, {FEATURES})
    nodes, weights = _head_nodes(head)
    taken = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    clash = taken & ({name for node in nodes for name in node.output} | {tensor.name for tensor in weights})
    if clash:
        raise TrainingError(
            f"The backbone already uses the names {', '.join(sorted(clash))}.",
            expected=f'a backbone without names that start with "{_PREFIX}" and without "{LOGITS}" inside.',
            do="Rename the tensors of the backbone.",
        )
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    del graph.output[:]
    batch = features.type.tensor_type.shape.dim[0]
    logits = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [None, head.weight.shape[0]])
    logits.type.tensor_type.shape.dim[0].CopyFrom(batch)
    graph.output.extend([features, logits])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _head_nodes(head: LinearHead) -> tuple[list[Any], list[Any]]:
    """Nodes and weights from ``features`` to ``logits``; what is linear is one Gemm."""
    from onnx import helper, numpy_helper

    nodes: list[Any] = []
    weights: list[Any] = []

    def constant(name: str, value: Any) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), _PREFIX + name))
        return _PREFIX + name

    def node(kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], name=_PREFIX + kind.lower(), **attributes))
        return name

    x = FEATURES
    if head.power != 1:
        size = node("Abs", [x], _PREFIX + "size")
        if head.power == 0.5:
            raised = node("Sqrt", [size], _PREFIX + "raised")
        else:
            raised = node("Pow", [size, constant("power", np.float32(head.power))], _PREFIX + "raised")
        sign = node("Sign", [x], _PREFIX + "sign")
        x = node("Mul", [sign, raised], _PREFIX + "powered")
    # ReduceL2 takes its axes as an attribute or an input, depending on the opset; ReduceSum as an input since 13.
    squares = node("Mul", [x, x], _PREFIX + "squares")
    nodes[-1].name = _PREFIX + "square"
    total = node("ReduceSum", [squares, constant("axes", np.array([1], dtype=np.int64))], _PREFIX + "total", keepdims=1)
    root = node("Sqrt", [total], _PREFIX + "root")
    nodes[-1].name = _PREFIX + "norm_root"
    norm = node("Max", [root, constant("least", np.float32(1e-12))], _PREFIX + "norm")
    unit = node("Div", [x, norm], _PREFIX + "unit")
    weight = constant("weight", head.weight.astype(np.float32))
    bias = constant("bias", head.bias.astype(np.float32))
    node("Gemm", [unit, weight, bias], LOGITS, transB=1)
    return nodes, weights


def _keep_only(graph: Any, wanted: set[str]) -> None:
    """Drops nodes, weights and shape notes that ``wanted`` does not need; the order of the rest stays."""
    needed = set(wanted)
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
            for inner in _inner_inputs(node):
                needed.add(inner)
    kept.reverse()
    produced = {name for node in kept for name in node.output}
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    notes = [info for info in graph.value_info if info.name in produced]
    for field, values in ((graph.node, kept), (graph.initializer, weights), (graph.value_info, notes)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(copies)


def _inner_inputs(node: Any) -> set[str]:
    """Names that the sub-graphs (branches, loop bodies) of a node take from outside, or might."""
    names: set[str] = set()
    for attribute in node.attribute:
        for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
            for inner in graph.node:
                names |= set(inner.input) | _inner_inputs(inner)
            names |= {output.name for output in graph.output}
    return names
