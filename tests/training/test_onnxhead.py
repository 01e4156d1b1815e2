"""The merged graph answers what the head answers, and carries nothing of the backbone's own classifier."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from keepsight.errors import TrainingError
from keepsight.training.head import Head, OutOfFold, fit_head
from keepsight.training.onnxhead import merge


def backbone(*, opset: int = 17, output: str = "features") -> bytes:
    """Pooled channels of a 1x1 convolution, and a classifier of ten classes."""
    random = np.random.default_rng(0)

    def tensor(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])
    outputs = [
        helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", 24]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10]),
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], [output]),
        helper.make_node("Gemm", [output, "old.weight", "old.bias"], ["logits"]),
    ]
    weights = [tensor("w", 24, 3, 1, 1), tensor("b", 24), tensor("old.weight", 24, 10), tensor("old.bias", 10)]
    graph = helper.make_graph(nodes, "backbone", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(model.SerializeToString())


def head(*, power: float = 0.5) -> Head:
    random = np.random.default_rng(1)
    nothing = OutOfFold(np.zeros((0, 4), np.float32), np.zeros(0, bool), None, None, None, None)
    return Head(
        weight=random.normal(size=(4, 24)).astype(np.float32),
        bias=random.normal(size=4).astype(np.float32),
        power=power,
        temperature=0.5,
        strength=1e-3,
        shrinkage=0.3,
        prior=0.0,
        oof=nothing,
    )


def run(model: bytes, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_outputs()] == ["features", "logits"]
    features, logits = session.run(["features", "logits"], {"image": pictures})
    return features, logits


@pytest.mark.parametrize("power", [0.5, 1.0, 0.7])
@pytest.mark.parametrize("opset", [13, 17, 20])
def test_the_graph_answers_what_the_head_answers(power: float, opset: int) -> None:
    pictures = np.random.default_rng(2).normal(size=(5, 3, 8, 8)).astype(np.float32)
    pictures[0] = 0
    wanted = head(power=power)
    features, logits = run(merge(backbone(opset=opset), wanted), pictures)
    assert np.allclose(logits, wanted.logits(features), atol=1e-4)
    old = onnxruntime.InferenceSession(backbone(opset=opset), providers=["CPUExecutionProvider"])
    assert np.array_equal(features, old.run(["features"], {"image": pictures})[0])


def test_a_fitted_head_agrees_too() -> None:
    random = np.random.default_rng(3)
    labels = np.arange(60) % 4
    rows = random.random((60, 24)).astype(np.float32)
    rows[np.arange(60), labels] += 2
    fitted = fit_head(rows, labels, np.arange(60), n_classes=5, seed=0)
    features, logits = run(merge(backbone(), fitted), random.normal(size=(3, 3, 8, 8)).astype(np.float32))
    assert np.allclose(logits, fitted.logits(features), atol=1e-4)


def test_a_picture_without_any_feature_gives_finite_logits() -> None:
    model = onnx.load_from_string(backbone())
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.zeros(list(tensor.dims), np.float32), tensor.name))
    _, logits = run(merge(model.SerializeToString(), head()), np.zeros((1, 3, 8, 8), np.float32))
    assert np.allclose(logits, head().bias)


def test_the_old_classifier_is_gone_and_bytes_repeat() -> None:
    merged = merge(backbone(), head())
    names = {tensor.name for tensor in onnx.load_from_string(merged).graph.initializer}
    assert not {"old.weight", "old.bias"} & names
    assert {"w", "b"} <= names
    assert merged == merge(backbone(), head())
    assert len(onnx.load_from_string(merged).graph.output) == 2


def test_a_head_can_be_replaced() -> None:
    first = merge(backbone(), head(power=1.0))
    assert merge(first, head()) == merge(backbone(), head())


def test_backbones_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TrainingError, match="pooled"):
        merge(backbone(output="embedding"), head())
    with pytest.raises(TrainingError, match="opset 12"):
        merge(backbone(opset=12), head())
