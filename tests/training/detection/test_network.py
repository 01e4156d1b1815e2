"""What trains on boxes: a fresh detector's boxes have an area everywhere, and stay able to grow."""

from __future__ import annotations

import pytest

from keepsight.training.detection.network import FCOS, build
from keepsight.zoo import torch_networks
from tests.zoo.conftest import Weights, weights  # noqa: F401 - a fixture

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("torch_installed")]


def test_no_box_is_stuck_at_a_point(weights: Weights) -> None:  # noqa: F811 - the fixture
    import torch

    network = torch_networks.load("efficientnet-lite0", cache=weights("efficientnet-lite0"))
    detector = build(network, FCOS, classes=1, size=96, scales=(), seed=0)
    regression = detector.module.head.regression_head.bbox_reg
    with torch.no_grad():
        regression.bias.fill_(-3.0)  # as after steps that pushed all distances down
    corners, _, _ = detector.decoded(torch.zeros(1, 3, 96, 96))
    assert (corners[..., 2:] > corners[..., :2]).all()
    corners[..., 2:].sum().backward()
    assert regression.bias.grad[2:].abs().min() > 0
