"""Convolutions whose gradients are quick on processors in bfloat16.

What a depthwise convolution costs backwards depends on the library's kernels: with 3 x 3 taps and unit stride it is
cheap, with 5 x 5 taps the gradient of the weights takes eighty times as long, and so does that of the input where a
stride comes in. The same sums are put together here from the cheap cases.
"""

from __future__ import annotations

import functools
from typing import Any

_BLOCK = 3


def convolve(x: Any, weight: Any, bias: Any, *, stride: tuple[int, int], padding: tuple[int, int], groups: int) -> Any:
    """``torch.nn.functional.conv2d`` without dilation, with quicker gradients for depthwise kernels on a processor."""
    from torch.nn import functional

    depthwise = groups > 1 and groups == x.shape[1] == weight.shape[0]
    slow = max(weight.shape[2:]) > _BLOCK or max(stride) > 1
    if not (depthwise and slow and x.device.type == "cpu" and str(x.dtype) == "torch.bfloat16"):
        return functional.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups)
    made = _depthwise()(x, weight, stride, padding)
    return made if bias is None else made + bias[:, None, None]


@functools.cache
def _depthwise() -> Any:
    import torch
    from torch.nn import functional

    def gradients(
        gradient: Any, x: Any, weight: Any, *, stride: tuple[int, int], padding: tuple[int, int], mask: list[bool]
    ) -> Any:
        return torch.ops.aten.convolution_backward(
            gradient, x, weight, None, list(stride), list(padding), [1, 1], False, [0, 0], x.shape[1], mask
        )

    def of_input(gradient: Any, x: Any, weight: Any, stride: tuple[int, int], padding: tuple[int, int]) -> Any:
        if max(stride) == 1:
            return gradients(gradient, x, weight, stride=stride, padding=padding, mask=[True, False, False])[0]
        wide = gradients(
            gradient.float(), x.float(), weight.float(), stride=stride, padding=padding, mask=[True, False, False]
        )[0]
        return wide.to(x.dtype)

    def of_weight(gradient: Any, x: Any, weight: Any, stride: tuple[int, int], padding: tuple[int, int]) -> Any:
        tall, broad = weight.shape[2:]
        rows, columns = gradient.shape[2:]
        padded = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
        made = torch.empty(weight.shape, dtype=torch.float32)
        for top in _starts(tall):
            for left in _starts(broad):
                high, wide = min(_BLOCK, tall), min(_BLOCK, broad)
                # What the taps of this block see.
                seen = padded[
                    :,
                    :,
                    top : top + (rows - 1) * stride[0] + high,
                    left : left + (columns - 1) * stride[1] + wide,
                ].contiguous(memory_format=torch.channels_last)
                taps = weight[:, :, top : top + high, left : left + wide].contiguous()
                found = gradients(gradient, seen, taps, stride=stride, padding=(0, 0), mask=[False, True, False])[1]
                made[:, :, top : top + high, left : left + wide] = found
        return made.to(weight.dtype)

    function: Any = torch.autograd.Function

    class Depthwise(function):  # type: ignore[misc] # its type is not known to mypy
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, stride: tuple[int, int], padding: tuple[int, int]) -> Any:
            ctx.save_for_backward(x, weight)
            ctx.stride, ctx.padding = stride, padding
            return functional.conv2d(x, weight, None, stride=stride, padding=padding, groups=x.shape[1])

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            x, weight = ctx.saved_tensors
            gradient = gradient.contiguous(memory_format=torch.channels_last)
            return (
                of_input(gradient, x, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[0] else None,
                of_weight(gradient, x, weight, ctx.stride, ctx.padding),
                None,
                None,
            )

    return Depthwise.apply


def _starts(taps: int) -> list[int]:
    """Where blocks of three taps begin so that they cover all; the last ones may overlap.

    >>> _starts(5), _starts(7), _starts(3)
    ([0, 2], [0, 3, 4], [0])
    """
    return sorted({min(start, max(0, taps - _BLOCK)) for start in range(0, taps, _BLOCK)})
