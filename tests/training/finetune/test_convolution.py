from __future__ import annotations

from typing import Any

import pytest

from keepsight.training.finetune.convolution import convolve


@pytest.mark.train
@pytest.mark.usefixtures("torch_installed")
@pytest.mark.parametrize(("taps", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)])
def test_gradients_are_those_of_the_plain_convolution(taps: int, stride: int) -> None:
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    x = torch.randn(4, 6, 9, 9).bfloat16().requires_grad_()
    weight = torch.randn(6, 1, taps, taps).bfloat16().requires_grad_()
    bias = torch.randn(6).bfloat16().requires_grad_()
    given: dict[str, Any] = {"stride": (stride, stride), "padding": (taps // 2, taps // 2), "groups": 6}

    quick = convolve(x, weight, bias, **given)
    found = torch.autograd.grad(quick.float().square().sum(), (x, weight, bias))
    exact = [value.detach().float().requires_grad_() for value in (x, weight, bias)]
    plain = functional.conv2d(*exact, **given)
    expected = torch.autograd.grad(plain.square().sum(), exact)

    for first, second in zip((quick, *found), (plain, *expected), strict=True):
        assert (first.float() - second).abs().max() < 0.03 * second.abs().max()
