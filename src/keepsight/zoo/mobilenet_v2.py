"""MobileNetV2 from torchvision's state dict.

Sandler et al., 2018, arXiv:1801.04381; names as in torchvision's ``models/mobilenetv2.py``: ``features.0`` is the stem,
``features.1`` to ``features.17`` are the blocks, ``features.18`` is the last convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from keepsight.runtime.session import INPUT
from keepsight.zoo.graph import GraphBuilder

FEATURES_DIM = 1280
CLASSES = 1000
_SIZE = 224
_STEM = 32
_BN_EPSILON = 1e-5


@dataclass(frozen=True)
class _Stage:
    expansion: int
    channels: int
    repeats: int
    stride: int


_STAGES = (
    _Stage(1, 16, 1, 1),
    _Stage(6, 24, 2, 2),
    _Stage(6, 32, 3, 2),
    _Stage(6, 64, 4, 2),
    _Stage(6, 96, 3, 1),
    _Stage(6, 160, 3, 2),
    _Stage(6, 320, 1, 1),
)


def build(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The ONNX graph of MobileNetV2: ``image`` (n, 3, 224, 224), blocks ``block0`` to ``block16``.

    Raises:
        WeightsError: A tensor is missing, has another shape, or belongs to another network.
    """
    graph = GraphBuilder(tensors, name="mobilenet-v2", bn_epsilon=_BN_EPSILON)
    x = graph.convolution(
        INPUT,
        "stem",
        weight="features.0.0.weight",
        norm="features.0.1",
        channels=(3, _STEM),
        kernel=3,
        stride=2,
        padding=(1, 1),
    )
    width = _STEM
    block = 0
    for stage in _STAGES:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            x = _block(graph, x, block, expansion=stage.expansion, stride=stride, channels=(width, stage.channels))
            width = stage.channels
            block += 1
    x = graph.convolution(
        x, "head", weight="features.18.0.weight", norm="features.18.1", channels=(width, FEATURES_DIM)
    )
    graph.classifier(x, prefix="classifier.1", features=FEATURES_DIM, classes=CLASSES)
    return graph.finish(size=_SIZE, features=FEATURES_DIM, classes=CLASSES)


def _block(
    graph: GraphBuilder, source: str, index: int, *, expansion: int, stride: int, channels: tuple[int, int]
) -> str:
    """Adds one inverted residual block; its result is called ``block{index}``."""
    inward, outward = channels
    inner = inward * expansion
    prefix, name = f"features.{index + 1}.conv", f"block{index}"
    x = source
    layer = 0  # torchvision numbers the layers of a block, and a block without expansion has one less
    if expansion != 1:
        x = graph.convolution(
            x, f"{name}.expand", weight=f"{prefix}.0.0.weight", norm=f"{prefix}.0.1", channels=(inward, inner)
        )
        layer = 1
    x = graph.convolution(
        x,
        f"{name}.depthwise",
        weight=f"{prefix}.{layer}.0.weight",
        norm=f"{prefix}.{layer}.1",
        channels=(inner, inner),
        kernel=3,
        stride=stride,
        padding=(1, 1),
        depthwise=True,
    )
    residual = stride == 1 and inward == outward
    x = graph.convolution(
        x,
        f"{name}.project" if residual else name,
        weight=f"{prefix}.{layer + 1}.weight",
        norm=f"{prefix}.{layer + 2}",
        channels=(inner, outward),
        relu6=False,
    )
    return graph.add(x, source, name) if residual else x
