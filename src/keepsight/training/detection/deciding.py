"""Chooses architecture, input size and steps from the boxes of the training pictures and the time there is.

Test pictures are never looked at, and nothing here knows a data set: what counts is how large the boxes are, how alike
the pictures' proportions, and how long a step takes on this machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keepsight.training.detection.network import FCOS, SSDLITE

Floats = NDArray[np.float32]

SIZES = (256, 320, 384, 448, 512, 640)
# The smaller boxes of each class (this quantile) get at least so many pixels of side where a size of the list gives
# them, and no input is smaller than needed for that, unless time is short.
_SMALL = 0.2
_PIXELS = 20.0
_FEWEST_BOXES = 5
_USUAL = 320
# From this share of the picture's side on, default boxes on coarse maps find what there is to find.
_LARGE = 0.25
# Fewer passes than this over the pictures are too few; a smaller input is worth more then.
LEAST_PASSES, MOST_PASSES = 20, 120
# What remains of the budget for exporting, judging and the gate.
_RESERVE, _RESERVE_S = 0.12, 20.0
SHORTEST_S = 40.0
# After fewer a detector finds nothing.
LEAST_STEPS = 40
_ALIKE = 1.15
_UNEVEN = 0.9


@dataclass(frozen=True)
class Choice:
    """An architecture at an input size."""

    architecture: str
    size: int
    why: str


def fit(sizes: NDArray[np.int64]) -> str:
    """ "stretch" where nine of ten pictures have about the same proportions, which then wastes nothing; else "pad"."""
    ratios = np.log(sizes[:, 0] / sizes[:, 1])
    near = np.abs(ratios - np.median(ratios)) <= math.log(_ALIKE)
    return "stretch" if near.mean() >= _UNEVEN else "pad"


def sides(boxes: Sequence[Floats], sizes: NDArray[np.int64], *, fit: str) -> Floats:
    """The side of each box (root of its area) as a share of the input's side."""
    found = []
    for corners, (width, height) in zip(boxes, sizes, strict=True):
        extent = corners[:, 2:] - corners[:, :2]
        if fit == "pad":
            extent = extent * np.array([width, height], np.float32) / max(width, height)
        found.append(np.sqrt(np.maximum(extent.prod(axis=1), 0)))
    return np.concatenate([np.zeros(0, np.float32), *found]).astype(np.float32)


def candidates(box_sides: Floats, classes: NDArray[np.int64], *, architecture: str | None) -> list[Choice]:
    """What to try, the best first; each further one is cheaper.

    Args:
        box_sides: From :func:`sides`.
        classes: Of the boxes. Few small things must not be overlooked among many large ones.
        architecture: The wanted one, or None to choose.
    """
    by_class = [box_sides[classes == number] for number in np.unique(classes)]
    enough = [each for each in by_class if len(each) >= _FEWEST_BOXES] or [box_sides]
    small = min(float(np.quantile(each, _SMALL)) for each in enough)
    wanted = next((size for size in SIZES if small * size >= _PIXELS), SIZES[-1])
    told = f"the smaller boxes of the smallest class have a side of {small:.1%} of the picture's"
    chosen = architecture or (SSDLITE if small >= _LARGE else FCOS)
    largest = max(wanted, _USUAL)
    return [
        Choice(chosen, size, f"{told}: {chosen} at {largest} px" + ("" if size == largest else f"; time for {size} px"))
        for size in sorted((size for size in SIZES if size <= largest), reverse=True)
    ]


def scales(box_sides: Floats) -> tuple[float, ...]:
    """Sides of SSDlite's default boxes for its five maps and one more, between the smallest and largest boxes."""
    low, high = (float(np.quantile(box_sides, share)) for share in (0.1, 0.95))
    low = min(max(low, 0.04), 0.5)
    high = max(min(high, 0.95), low * 1.5)
    return (*(round(low * (high / low) ** (step / 4), 4) for step in range(5)), 1.0)


def left_for_training(left_s: float) -> float:
    """What of the time that is left may be trained."""
    return max(0.0, left_s * (1 - _RESERVE) - _RESERVE_S)


def budget_for(training_s: float) -> float:
    """The time left that gives so much for training."""
    return (training_s + _RESERVE_S) / (1 - _RESERVE)


def affordable(
    choices: Sequence[Choice],
    *,
    pictures: int,
    batch: int,
    seconds: float,
    step_s: Callable[[Choice], float],
) -> tuple[Choice, int]:
    """The first choice with time for enough passes over the pictures, else the cheapest, and its steps.

    Args:
        choices: The best first.
        pictures: To train on.
        batch: Pictures of a step.
        seconds: For the training.
        step_s: How long a step takes.
    """
    a_pass = pictures / batch
    most = max(1, round(MOST_PASSES * a_pass), 600)
    for choice in choices:
        taken = step_s(choice)
        steps = max(1, int(seconds / taken)) if math.isfinite(seconds) else most
        if steps >= LEAST_PASSES * a_pass or choice is choices[-1]:
            break
    return choice, max(1, min(steps, most))
