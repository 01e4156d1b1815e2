"""What the graph builder refuses, and the paddings of TensorFlow."""

from __future__ import annotations

import doctest
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from keepsight.errors import WeightsError
from keepsight.zoo import graph

Tensors = OrderedDict[str, NDArray[Any]]


def small_tensors() -> Tensors:
    random = np.random.default_rng(3)
    tensors: Tensors = OrderedDict()
    tensors["conv.weight"] = random.normal(size=(4, 3, 3, 3)).astype(np.float32)
    for part in ("weight", "bias", "running_mean", "running_var"):
        tensors[f"bn.{part}"] = random.uniform(0.5, 1.5, 4).astype(np.float32)
    tensors["bn.num_batches_tracked"] = np.array(7)
    tensors["fc.weight"] = random.normal(size=(2, 4)).astype(np.float32)
    tensors["fc.bias"] = random.normal(size=2).astype(np.float32)
    return tensors


def small_network(tensors: Tensors, *, relu6: bool = True) -> bytes:
    builder = graph.GraphBuilder(tensors, name="small", bn_epsilon=1e-3)
    x = builder.convolution(
        "image",
        "stem",
        weight="conv.weight",
        norm="bn",
        channels=(3, 4),
        kernel=3,
        stride=2,
        padding=graph.same_padding(8, kernel=3, stride=2),
        relu6=relu6,
    )
    builder.classifier(builder.add(x, x, "twice"), prefix="fc", features=4, classes=2)
    return builder.finish(size=8, features=4, classes=2)


def by_hand(tensors: Tensors, image: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The same network, written out: pad after, convolve, normalise, clip, double, pool, classify."""
    padded = np.pad(image, ((0, 0), (0, 0), (0, 1), (0, 1))).astype(np.float64)
    out = np.zeros((len(image), 4, 4, 4))
    for row in range(4):
        for column in range(4):
            window = padded[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            out[:, :, row, column] = np.tensordot(window, tensors["conv.weight"], axes=([1, 2, 3], [1, 2, 3]))
    gain, shift, mean, variance = (
        tensors[f"bn.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
    )
    out = np.clip((out - mean) / np.sqrt(variance + 1e-3) * gain + shift, 0, 6) * 2
    features = out.mean(axis=(2, 3))
    return features, features @ tensors["fc.weight"].T + tensors["fc.bias"]


def test_the_graph_computes_what_the_layers_say() -> None:
    tensors = small_tensors()
    image = np.random.default_rng(4).normal(size=(3, 3, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(small_network(tensors), providers=["CPUExecutionProvider"])
    features, logits = session.run(["features", "logits"], {"image": image})
    expected_features, expected_logits = by_hand(tensors, image)
    np.testing.assert_allclose(features, expected_features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-4, atol=1e-5)


def test_equal_tensors_give_equal_bytes() -> None:
    assert small_network(small_tensors()) == small_network(small_tensors())
    assert small_network(small_tensors()) != small_network(small_tensors(), relu6=False)


def test_the_model_states_its_contract() -> None:
    model = onnx.load_model_from_string(small_network(small_tensors()))
    assert model.ir_version == 8
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {"image": ["n", 3, 8, 8], "features": ["n", 4], "logits": ["n", 2]}


def _without(tensors: Tensors) -> None:
    del tensors["bn.bias"]


def _wrong_shape(tensors: Tensors) -> None:
    tensors["conv.weight"] = tensors["conv.weight"][:, :, :1]


def _wrong_type(tensors: Tensors) -> None:
    tensors["fc.bias"] = tensors["fc.bias"].astype(np.int64)


def _extra(tensors: Tensors) -> None:
    tensors["another.weight"] = np.zeros(1, np.float32)


def _not_finite(tensors: Tensors) -> None:
    tensors["fc.weight"][0, 0] = np.nan


def _negative_variance(tensors: Tensors) -> None:
    tensors["bn.running_var"][2] = -1


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_without, "bn.bias is missing"),
        (_wrong_shape, "conv.weight is float32 (4, 3, 1, 3), not float32 (4, 3, 3, 3)"),
        (_wrong_type, "fc.bias is int64"),
        (_extra, "another.weight"),
        (_not_finite, "fc.weight holds values that are not finite"),
        (_negative_variance, "variance in bn is negative"),
    ],
)
def test_tensors_of_another_network_are_refused_by_name(spoil: Callable[[Tensors], None], named: str) -> None:
    tensors = small_tensors()
    spoil(tensors)
    with pytest.raises(WeightsError) as caught:
        small_network(tensors)
    assert named in caught.value.found


@pytest.mark.parametrize("size", range(5, 40))
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_gives_the_size_divided_by_the_stride(size: int, kernel: int, stride: int) -> None:
    before, after = graph.same_padding(size, kernel=kernel, stride=stride)
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
    assert after - before in {0, 1}


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(graph).failed == 0
