"""A user's own ONNX network as a backbone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from keepsight.errors import WeightsError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.zoo import own

FACTS = {"size": 8, "mean": [127, 127, 127], "std": [128, 128, 128], "licences": ["MIT"]}


def network(
    *,
    source: str = "x",
    outputs: tuple[str, ...] = ("y",),
    shape: tuple[Any, ...] = ("n", 3, 8, 8),
    pooled: bool = True,
    inner: str = "inner",
    scale: float = 2.0,
) -> onnx.ModelProto:
    """Doubles the picture and averages it: three features per picture."""
    nodes = [helper.make_node("Mul", [source, "scale"], [inner])]
    if pooled:
        nodes += [helper.make_node("ReduceMean", [inner], ["y"], axes=[2, 3], keepdims=0)]
    else:
        nodes += [helper.make_node("Identity", [inner], ["y"])]
    extra = [name for name in outputs if name != "y"]
    nodes += [helper.make_node("Neg", ["y"], [name]) for name in extra]
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.array(scale, np.float32), "scale")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(folder: Path, model: onnx.ModelProto, facts: Any = FACTS) -> Path:
    path = folder / "mine.onnx"
    path.write_bytes(model.SerializeToString())
    if facts is not None:
        (folder / "mine.json").write_text(json.dumps(facts))
    return path


def features(adapted: own.OwnNetwork) -> Any:
    session = onnxruntime.InferenceSession(adapted.onnx, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image"]
    assert [value.name for value in session.get_outputs()] == ["features"]
    assert session.get_outputs()[0].shape == ["n", adapted.features_dim]
    return session.run(["features"], {"image": np.ones((4, 3, 8, 8), np.float32)})[0]


def test_input_and_first_vector_output_are_renamed(tmp_path: Path) -> None:
    adapted = own.adapt(save(tmp_path, network()))
    assert (adapted.name, adapted.features_dim, adapted.licences) == ("mine", 3, ("MIT",))
    assert adapted.preprocessing == Preprocessing(size=8, mean=(127.0,) * 3, std=(128.0,) * 3)
    np.testing.assert_array_equal(features(adapted), np.full((4, 3), 2.0))


def test_an_output_called_features_goes_before_others(tmp_path: Path) -> None:
    adapted = own.adapt(save(tmp_path, network(source="image", outputs=("y", "features"))))
    np.testing.assert_array_equal(features(adapted), np.full((4, 3), -2.0))


def test_a_map_before_the_vector_is_passed_over(tmp_path: Path) -> None:
    model = network(outputs=("y",))
    model.graph.output.insert(0, helper.make_tensor_value_info("inner", TensorProto.FLOAT, None))
    np.testing.assert_array_equal(features(own.adapt(save(tmp_path, model))), np.full((4, 3), 2.0))


def test_symbolic_sides_take_the_size_of_the_preprocessing(tmp_path: Path) -> None:
    path = save(tmp_path, network(shape=("batch", 3, "h", "w")), facts=None)
    adapted = own.adapt(path, preprocessing=Preprocessing(size=8))
    assert features(adapted).shape == (4, 3)
    assert adapted.licences == ("LicenseRef-unknown",)


def test_equal_files_give_equal_bytes(tmp_path: Path) -> None:
    path = save(tmp_path, network())
    assert own.adapt(path).onnx == own.adapt(path).onnx


@pytest.mark.parametrize(
    ("model", "facts", "named"),
    [
        (network(), None, "there is no mine.json beside it"),
        (network(), {"size": 8}, "it lacks mean, std"),
        (network(), {**FACTS, "size": 0}, "size is 0"),
        (network(), {**FACTS, "size": "big"}, "wrong type"),
        (network(), {**FACTS, "std": [1, 0, 1]}, "std (1.0, 0.0, 1.0)"),
        (network(), {**FACTS, "colour": "BGR"}, "nothing else"),
        (network(), {**FACTS, "licences": "MIT"}, "licences"),
        (network(), [1, 2], "nothing else"),
        (network(shape=(1, 3, 8, 8)), FACTS, "batches of 1 only"),
        (network(shape=("n", 1, 8, 8)), FACTS, "[n, 3, 8, 8]"),
        (network(shape=("n", 3, 16, 16)), FACTS, "[n, 3, 8, 8]"),
        (network(shape=("n", 8, 8)), FACTS, "four dimensions"),
        (network(pooled=False), FACTS, "y [2, 3, 8, 8]"),
        (network(inner="features"), FACTS, "is called features"),
        (network(inner="image"), FACTS, "is called image"),
        (network(scale=float("nan")), FACTS, "not finite"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, model: onnx.ModelProto, facts: Any, named: str) -> None:
    with pytest.raises(WeightsError) as caught:
        own.adapt(save(tmp_path, model, facts))
    assert named in caught.value.found
    assert "mine." in caught.value.found


def test_files_that_are_no_network_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, network())
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match="0 inputs"):
        own.adapt(path)
    path.write_bytes(b"this is a text")
    with pytest.raises(WeightsError, match="not an ONNX file"):
        own.adapt(path)
    path.unlink()
    with pytest.raises(WeightsError, match="No such file"):
        own.adapt(path)
    (tmp_path / "mine.json").write_text("{")
    path.write_bytes(network().SerializeToString())
    with pytest.raises(WeightsError, match="JSON"):
        own.adapt(path)


def test_an_operator_that_onnxruntime_lacks_is_refused(tmp_path: Path) -> None:
    model = network()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(WeightsError, match="onnxruntime cannot run it"):
        own.adapt(save(tmp_path, model))


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    model = network()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(WeightsError, match="in other files"):
        own.adapt(save(tmp_path, model))


def test_a_fixed_batch_inside_the_graph_is_found_by_running(tmp_path: Path) -> None:
    model = network()
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3]), "target"))
    model.graph.node.append(helper.make_node("Reshape", ["y", "target"], ["z"]))
    model.graph.output[0].name = "z"
    with pytest.raises(WeightsError, match="cannot run it"):
        own.adapt(save(tmp_path, model))
