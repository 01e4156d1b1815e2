"""Masks survive their run-length form, which is the one that COCO's own tools write and read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keepsight.errors import AnnotationError
from keepsight.runtime import rle

# Of pycocotools 2.0.11, `encode(np.asfortranarray(mask))`.
KNOWN: list[tuple[list[list[int]], str]] = [
    ([[0, 0, 0], [0, 0, 0]], "6"),
    ([[1, 1], [1, 1]], "04"),
    ([[0, 1, 1, 0], [1, 1, 0, 0]], "143"),
    ([[1, 0, 1, 0, 1], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0]], "0110120NO10"),
]


def masks() -> list[NDArray[np.uint8]]:
    """Noise, large areas, single rows and columns, masks that begin and end with ones."""
    random = np.random.default_rng(0)
    made = [
        (random.random((int(height), int(width))) < share).astype(np.uint8)
        for height, width, share in zip(
            random.integers(1, 80, 40), random.integers(1, 80, 40), random.random(40), strict=True
        )
    ]
    made += [np.ones((1, 1), np.uint8), np.zeros((1, 7), np.uint8), np.ones((9, 1), np.uint8)]
    large = np.zeros((900, 1200), np.uint8)
    large[100:500, 200:1100] = 1
    large[300:350, 600:620] = 0
    return [*made, large]


@pytest.mark.parametrize(("mask", "text"), KNOWN)
def test_known_strings(mask: list[list[int]], text: str) -> None:
    value = rle.encode(mask)
    assert value == {"size": [len(mask), len(mask[0])], "counts": text}
    assert rle.decode(value).tolist() == [[bool(pixel) for pixel in row] for row in mask]


def test_every_mask_comes_back() -> None:
    for mask in masks():
        value = rle.encode(mask)
        back = rle.decode(value)
        assert back.dtype == np.bool_ and back.flags.c_contiguous
        assert np.array_equal(back, mask.astype(np.bool_))
        assert rle.area(value) == int(mask.sum())
        rows, columns = np.nonzero(mask)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None
        assert rle.bounds(value) == box
        assert rle.encode(mask.astype(np.bool_)) == rle.encode(mask.astype(np.float32) * 0.5) == value


# pycocotools' compiled part does not know numpy 2's `copy` keyword yet.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_agrees_both_ways() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    for mask in masks():
        theirs = coco.encode(np.asfortranarray(mask))
        assert rle.encode(mask)["counts"] == theirs["counts"].decode()
        assert np.array_equal(rle.decode(theirs), mask)
        assert np.array_equal(coco.decode(rle.encode(mask)), mask)


def test_plain_runs_are_taken_and_become_the_compressed_form() -> None:
    value = {"size": [2, 4], "counts": [1, 4, 0, 0, 3]}
    assert rle.decode(value).tolist() == [[False, True, True, False], [True, True, False, False]]
    assert rle.canonical(value) == rle.canonical(rle.canonical(value)) == {"size": [2, 4], "counts": "143"}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({}, "has the size None"),
        ({"size": [2, 2]}, "are a NoneType"),
        ({"size": [2, 0], "counts": "0"}, "has the size [2, 0]"),
        ({"size": "22", "counts": "4"}, "has the size 22"),
        ({"size": [2, 2], "counts": ""}, "is empty"),
        ({"size": [2, 2], "counts": "T"}, "is cut off"),
        ({"size": [2, 2], "counts": "4~"}, "a character that does not belong"),
        ({"size": [2, 2], "counts": "4é"}, "a character that does not belong"),
        ({"size": [2, 2], "counts": "PPPPPPPPPPPP0"}, "too large"),
        ({"size": [2, 2], "counts": "5"}, "fill 5 pixels; its size 2 x 2 has 4"),
        ({"size": [2, 2], "counts": [5, -1]}, "negative length"),
        ({"size": [2, 2], "counts": [2**70]}, "are a list"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "at most"),
    ],
)
def test_what_is_no_mask_says_so(value: dict[str, Any], found: str) -> None:
    for read in (rle.decode, rle.area, rle.bounds, rle.canonical):
        with pytest.raises(AnnotationError) as raised:
            read(value)
        assert found in str(raised.value)


def test_only_pictures_become_masks() -> None:
    for shape in ((0, 4), (3,), (2, 2, 3)):
        with pytest.raises(ValueError, match="height and a width"):
            rle.encode(np.zeros(shape))
