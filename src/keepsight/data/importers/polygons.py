"""Outlines filled to masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.data.importers.marks import ROUNDING_PX, Box, Mask, Size
from keepsight.errors import AnnotationError

Points = NDArray[np.float64]
"""Corners (n, 2), x and y in pixels."""


def points(numbers: Any) -> Points:
    """The corners of an outline given as x1, y1, x2, y2, ... or as pairs.

    Raises:
        AnnotationError: They are no outline.
    """
    try:
        corners = np.asarray(numbers, np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        corners = np.zeros((0, 2))
    if len(corners) < 3 or not np.isfinite(corners).all():
        raise AnnotationError(
            f"The outline is {str(numbers)[:60]}.",
            expected="at least three corners, as x1, y1, x2, y2, x3, y3 in pixels.",
            do="Draw the outline again.",
        )
    return corners


def around(outlines: Sequence[Points]) -> Box:
    """The box around outlines."""
    corners = np.concatenate(outlines)
    (x1, y1), (x2, y2) = corners.min(axis=0), corners.max(axis=0)
    return float(x1), float(y1), float(x2), float(y2)


def filled(outlines: Sequence[Points], *, size: Size) -> Mask:
    """The mask (height, width) of what lies in any of the outlines: pixels whose middle does, by the even-odd rule.

    Raises:
        AnnotationError: An outline reaches out of the picture by more than ``ROUNDING_PX``.
    """
    width, height = size
    x1, y1, x2, y2 = around(outlines)
    if max(-x1, -y1, x2 - width, y2 - height) > ROUNDING_PX:
        raise AnnotationError(
            f"The outline reaches from {x1:g}, {y1:g} to {x2:g}, {y2:g}, out of its picture of {width} x {height}.",
            expected="an outline within the picture.",
            do="Draw the outline again.",
        )
    mask = np.zeros((height, width), np.bool_)
    for outline in outlines:
        mask |= _filled(outline, width=width, height=height)
    return mask


def _filled(outline: Points, *, width: int, height: int) -> Mask:
    """One outline: each edge flips, in each row it crosses, all pixels to the right of the crossing."""
    flips = np.zeros((height, width + 1), np.uint8)
    ends = np.roll(outline, -1, axis=0)
    for (xa, ya), (xb, yb) in zip(outline, ends, strict=True):
        low, high = min(ya, yb), max(ya, yb)
        rows = np.arange(max(0, int(np.ceil(low - 0.5))), min(height, int(np.ceil(high - 0.5))))
        if len(rows):
            crossings = xa + (rows + 0.5 - ya) * (xb - xa) / (yb - ya)
            columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)
            flips[rows, columns] ^= 1
    return np.bitwise_xor.accumulate(flips, axis=1)[:, :width].astype(np.bool_)
