"""The fine-tuned network as the graph that is served: the backbone's own nodes, new weights, a linear head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import TrainingError
from keepsight.runtime.session import FEATURES, INPUT, open_session
from keepsight.training.finetune.network import with_weights
from keepsight.training.onnxhead import LOGITS

if TYPE_CHECKING:
    import onnx

# Sums in another order differ by about 1e-5 of the largest feature.
_TOLERANCE = 1e-3


def export(
    model: onnx.ModelProto,
    weights: Mapping[str, NDArray[np.float32]],
    head: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> bytes:
    """One graph with the input ``image`` and the outputs ``features`` (n, d) and ``logits`` (n, k), uncalibrated.

    Args:
        model: The backbone from ``image`` to ``features``.
        weights: Its trained weights by name.
        head: Weight (k, d) and bias (k,).
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    made = onnx.load_from_string(with_weights(model, weights))
    graph = made.graph
    del graph.value_info[:]
    names = [f"head/{part}" for part in ("weight", "bias")]
    for name, value in zip(names, head, strict=True):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
    graph.node.append(helper.make_node("Gemm", [FEATURES, *names], [LOGITS], name="head/gemm", transB=1))
    features = next(output for output in graph.output if output.name == FEATURES)
    logits = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [None, len(head[1])])
    logits.type.tensor_type.shape.dim[0].CopyFrom(features.type.tensor_type.shape.dim[0])
    graph.output.append(logits)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString(deterministic=True))


def check(model: bytes, images: NDArray[np.float32], features: NDArray[np.float32]) -> float:
    """The largest difference between the exported graph's features and those that training computed.

    Raises:
        TrainingError: They are not the same network.
    """
    session: Any = open_session(model)
    found = session.run([FEATURES], {INPUT: images})[0]
    difference = float(np.abs(found - features).max()) if len(images) else 0.0
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(features).max())):
        raise TrainingError(
            f"The exported network differs from the trained one by {difference:.3g}.",
            expected=f"at most {_TOLERANCE} of the largest feature.",
            do="Report this with the backbone's name; train with the recipe `head` until it is solved.",
            difference=difference,
        )
    return difference
