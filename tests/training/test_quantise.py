"""The 8-bit variant of a network answers as the float one does, in a smaller file, and is the same every time."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from keepsight.errors import DataError, TrainingError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.runtime.session import open_session, run
from keepsight.training import quantise
from tests.tiny import bundle, convolutional

SIDE, CHANNELS = 16, 32


def tensors(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return list(rng.normal(0, 1, (count, 3, SIDE, SIDE)).astype(np.float32))


@pytest.mark.parametrize("named", [True, False])
def test_the_answers_stay_and_the_file_shrinks(named: bool, caplog: pytest.LogCaptureFixture) -> None:
    model = convolutional(named=named)
    made = quantise.quantise(model, tensors(10))
    assert len(made) < 0.7 * len(model)
    batch = np.stack(tensors(20, seed=1))
    names = ("features", "logits")
    exact, near = (run(open_session(each), batch, outputs=names) for each in (model, made))
    cosine = (exact["features"] * near["features"]).sum(1)
    cosine /= np.linalg.norm(exact["features"], axis=1) * np.linalg.norm(near["features"], axis=1)
    assert cosine.min() > 0.995
    assert np.abs(exact["logits"] - near["logits"]).max() < 0.1 * np.abs(exact["logits"]).max()
    assert caplog.records == []


def test_the_head_and_the_features_stay_float() -> None:
    network = onnx.load_from_string(quantise.quantise(convolutional(), tensors(4)))
    producer = {name: node for node in network.graph.node for name in node.output}
    assert producer["logits"].input[0] == "features"
    assert [producer[name].op_type for name in producer["logits"].input if name in producer] == ["Flatten"]
    # One scale for each output channel.
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
    assert any(name.endswith("_scale") and value.shape == (CHANNELS,) for name, value in weights.items())


def test_equal_inputs_give_equal_bytes() -> None:
    first, second = (quantise.quantise(convolutional(), tensors(4)) for _ in range(2))
    assert first == second
    assert quantise.quantise(convolutional(), tensors(4, seed=1)) != first


def test_what_has_nothing_to_quantise_is_told() -> None:
    with pytest.raises(TrainingError, match="no part that 8 bits would make quicker"):
        quantise.quantise(bundle().model(), [np.zeros((3, 8, 8), np.float32)])
    with pytest.raises(DataError, match="None of the training pictures can be read"):
        quantise.quantise(convolutional(), [])


def test_the_ranges_come_from_training_pictures_that_can_be_read() -> None:
    def picture(place: int) -> bytes | None:
        pixels = np.random.default_rng(place).integers(0, 255, (20, 20, 3)).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        return [out.getvalue(), None, b"no picture"][place % 3]

    asked: list[int] = []

    def read(place: int) -> bytes | None:
        asked.append(place)
        return picture(place)

    preprocessing = Preprocessing(size=SIDE, mean=(127.0,) * 3, std=(64.0,) * 3)
    made = quantise.variant_of(convolutional(), read=read, count=30, preprocessing=preprocessing, seed=0)
    assert asked == list(range(30))
    there = [data for place in range(30) if (data := picture(place)) is not None]
    assert made == quantise.quantise(convolutional(), quantise.inputs(there, preprocessing))
    chosen = quantise.choose(1000, seed=0)
    assert len(set(chosen)) == quantise.CALIBRATION_PICTURES
    assert not np.array_equal(chosen, quantise.choose(1000, seed=1))
