"""The COCO detector: TensorFlow's file is read without TensorFlow, and the network finds what it should."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from keepsight.errors import WeightsError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.predictor import Predictor
from keepsight.zoo import catalogue, pretrained, ssd_mobilenet, tensorflow_graph
from tests.zoo.conftest import Weights


def field(number: int, content: bytes | int) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    parts = [field(1, name.encode()), field(2, op.encode()), *(field(3, each.encode()) for each in inputs)]
    parts += [field(5, field(1, key.encode()) + field(2, value)) for key, value in attributes.items()]
    return field(1, b"".join(parts))


def tensor(kind: int, shape: tuple[int, ...], *values: bytes) -> bytes:
    sizes = b"".join(field(2, field(1, side)) for side in shape)
    return field(8, field(1, kind) + field(2, sizes) + b"".join(values))


def test_nodes_and_constants_are_read() -> None:
    data = (
        node("whole", "Const", value=tensor(1, (2, 2), field(4, np.arange(4, dtype="<f4").tobytes())))
        + node("filled", "Const", value=tensor(1, (3,), varint(5 << 3 | 5) + struct.pack("<f", 2.5)))
        + node("packed", "Const", value=tensor(3, (2,), field(7, varint(7) + varint((1 << 64) - 1))))
        + node("text", "Const", value=tensor(7, (), field(8, b"hello")))
        + node(
            "conv",
            "Conv2D",
            "image:0",
            "whole",
            "^after",
            strides=field(1, field(3, varint(1) + varint(2) + varint(2) + varint(1))),
            padding=field(2, b"SAME"),
        )
    )

    nodes = tensorflow_graph.read(data)

    assert np.array_equal(nodes["whole"].value, [[0, 1], [2, 3]])  # type: ignore[arg-type]
    assert np.array_equal(nodes["filled"].value, [2.5, 2.5, 2.5])  # type: ignore[arg-type]
    assert np.array_equal(nodes["packed"].value, [7, -1])  # type: ignore[arg-type]
    assert nodes["text"].value is None
    conv = nodes["conv"]
    assert (conv.op, conv.inputs, conv.strides, conv.padding) == ("Conv2D", ("image", "whole"), (2, 2), "SAME")


@pytest.mark.parametrize("data", [b"\xff" * 40, b"\x0a\x50short", b"\x0a\x02\x0b\x0c", b"\x80" * 12])
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(WeightsError, match="no TensorFlow graph"):
        tensorflow_graph.read(data)


def test_another_network_is_refused() -> None:
    with pytest.raises(WeightsError, match="not those of SSD-MobileNetV2"):
        ssd_mobilenet.build(node("a", "Placeholder"))


def test_anchors_are_those_of_the_original() -> None:
    found = ssd_mobilenet.anchors()

    assert found.shape == (1917, 4)
    assert len(ssd_mobilenet.LABELS) == len(set(ssd_mobilenet.LABELS)) == 80
    # Three to a place on the finest map, six on the others; the last place has the whole picture.
    assert found[0].tolist() == pytest.approx([0.5 / 19, 0.5 / 19, 0.1, 0.1])
    assert found[1].tolist() == pytest.approx([0.5 / 19, 0.5 / 19, 0.2 * 2**0.5, 0.2 / 2**0.5])
    assert found[-6].tolist() == pytest.approx([0.5, 0.5, 0.95, 0.95])


@pytest.mark.pictures
def test_the_network_finds_a_person(weights: Weights, test_data: Path) -> None:
    entry = catalogue.entry("ssd-mobilenet-v2-coco", task="detection")
    found = pretrained.load(entry.name, task="detection", cache=weights(entry.name))
    made = BundleInfo("detection", entry.labels, entry.preprocessing, "2026-01-01T00:00:00+00:00")
    predictor = Predictor(Bundle.create(made, model=found.content))

    picture = sorted((test_data / "clothing-coparsing-masks" / "test" / "images").glob("*.jpg"))[0]
    answer = predictor.predict(picture.read_bytes())

    said = answer.output.as_dict()["boxes"][0]
    assert said["label"] == "person"
    assert said["confidence"] > 0.8
    x1, y1, x2, y2 = said["box"]
    assert y2 - y1 > 0.8 * answer.info.height
    assert 0 <= x1 < x2 <= answer.info.width
    assert answer.features.shape == (entry.features_dim,)
