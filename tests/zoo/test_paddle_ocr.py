"""PP-OCR's networks: names, channels and features as the runtime wants them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from keepsight.errors import WeightsError
from keepsight.zoo import fetch, paddle_ocr, pretrained
from keepsight.zoo.entry import Entry
from tests.zoo.conftest import Weights


def small_network(*, stored: bool = False) -> bytes:
    """Two convolutions, of which the second's result is joined; weights as 8-bit numbers where ``stored``."""
    random = np.random.default_rng(0)
    first = random.integers(-9, 9, (4, 3, 3, 3)).astype(np.float32)
    nodes, weights = [], []
    if stored:
        weights.append(numpy_helper.from_array(first.astype(np.int8), "stored"))
        weights.append(numpy_helper.from_array(np.array(0.5, np.float32), "scale"))
        nodes.append(helper.make_node("Cast", ["stored"], ["cast"], to=onnx.TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", ["cast", "scale"], ["weight"]))
    else:
        nodes.append(helper.make_node("Constant", [], ["constant"], value=numpy_helper.from_array(first, "")))
        nodes.append(helper.make_node("Identity", ["constant"], ["weight"]))
    nodes += [
        helper.make_node("Conv", ["x", "weight"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["a", "a"], ["b"], axis=1),
        helper.make_node("Relu", ["b"], ["fetch_name_0"]),
    ]
    shape: list[str | int | None] = ["n", 3, "h", "w"]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("fetch_name_0", onnx.TensorProto.FLOAT, ["n", 8, "h", "w"])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    model.metadata_props.append(onnx.StringStringEntryProto(key="character", value="a\nb\nß"))
    content: bytes = model.SerializeToString()
    return content


def run(content: bytes, name: str, picture: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    results: list[np.ndarray] = session.run(None, {name: picture})
    return results


@pytest.mark.parametrize("stored", [False, True])
def test_a_recogniser_takes_rgb_and_keeps_its_characters(stored: bool) -> None:
    content = small_network(stored=stored)
    built = paddle_ocr.build_recogniser(content)
    picture = np.random.default_rng(1).random((1, 3, 8, 12), np.float32)
    expected = run(content, "x", picture[:, ::-1].copy())[0]
    np.testing.assert_allclose(run(built, "image", picture)[0], expected, atol=1e-5)
    assert paddle_ocr.characters(built) == ("a", "b", "ß")


def test_a_detector_gives_features() -> None:
    built = paddle_ocr.build_detector(small_network())
    picture = np.random.default_rng(1).random((2, 3, 8, 12), np.float32)
    features, shares = run(built, "image", picture)
    assert features.shape == (2, 8)
    assert shares.shape == (2, 8, 8, 12)
    names = [item.name for item in ort.InferenceSession(built, providers=["CPUExecutionProvider"]).get_outputs()]
    assert names == ["features", "probability"]


def test_another_file_is_refused() -> None:
    with pytest.raises(WeightsError, match="no ONNX network"):
        paddle_ocr.build_detector(b"\xff\xff\xff\xff no network")
    model = onnx.load_from_string(small_network())
    del model.metadata_props[:]
    with pytest.raises(WeightsError, match="lists no characters"):
        paddle_ocr.build_recogniser(model.SerializeToString())


@pytest.mark.parametrize("entry", paddle_ocr.ENTRIES, ids=lambda entry: entry.name)
def test_published_networks(entry: Entry, weights: Weights) -> None:
    cache = weights(entry.name)
    built = pretrained.build(entry, cache=cache)
    height = 96 if entry.name.endswith("det") else 48
    picture = np.random.default_rng(2).random((1, 3, height, 192), np.float32)
    expected = run(fetch.read_weights(entry, cache=cache), "x", picture[:, ::-1].copy())[0]
    results = run(built, "image", picture)
    np.testing.assert_allclose(results[-1], expected, atol=1e-4)
    if entry.features_dim:
        assert results[0].shape == (1, entry.features_dim)
