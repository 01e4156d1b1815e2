"""Blocks of 8-bit numbers become float32 as the standard says."""

from __future__ import annotations

import numpy as np
import pytest

from keepsight.zoo.block_quantised import dequantised

CODES = np.arange(12, dtype=np.int8).reshape(6, 2)


def test_one_scale_for_all() -> None:
    found = dequantised(CODES, np.array(0.5, np.float32), np.array(2, np.int8), axis=0, block=0)
    assert found == pytest.approx((CODES.astype(np.float32) - 2) * 0.5)


def test_a_scale_for_each_place() -> None:
    scale = np.array([1.0, 10.0], np.float32)
    assert dequantised(CODES, scale, None, axis=1, block=0) == pytest.approx(CODES * scale)


def test_a_scale_for_each_block_the_last_one_shorter() -> None:
    scale = np.array([[1, 2], [3, 4]], np.float32)
    zero = np.array([[0, 1], [2, 3]], np.int8)
    found = dequantised(CODES, scale, zero, axis=0, block=4)
    rows = np.repeat([0, 1], [4, 2])
    assert found == pytest.approx((CODES - zero[rows].astype(np.float32)) * scale[rows])
    assert found.dtype == np.float32
