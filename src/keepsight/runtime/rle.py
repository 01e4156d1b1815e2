"""Masks as COCO's compressed run-length strings: ``{"size": [height, width], "counts": "..."}``, with numpy alone.

The mask is read column by column; ``counts`` holds the lengths of its runs, beginning with the zeros. From the fourth
on each length is given as the difference to the one two before, and each number as characters of five bits (the COCO
API's ``rleToString``, Lin et al. 2014). pycocotools reads what is written here and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.errors import AnnotationError
from keepsight.runtime.decode import DEFAULT_LIMITS

# Five bits a character: a run of up to 2^32 pixels, or the difference of two such runs, has seven characters.
_LONGEST_NUMBER = 7
_FIRST = 48
_BITS = 0x1F
_SIGN = 0x10
_MORE = 0x20


def encode(mask: ArrayLike) -> dict[str, Any]:
    """The run-length form of a mask (height, width) of any number type; what is not 0 belongs to it.

    Raises:
        ValueError: The mask does not have two dimensions, or no pixel.
    """
    array = np.asarray(mask)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"a mask has a height and a width of at least 1, not the shape {array.shape}")
    return {"size": [array.shape[0], array.shape[1]], "counts": _to_string(_runs(array != 0))}


def decode(value: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The mask (height, width) of a run-length form; `counts` may also be COCO's plain list of run lengths.

    Raises:
        AnnotationError: It is no run-length form, or its runs do not fill its size.
    """
    (height, width), counts = runs(value)
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def area(value: Mapping[str, Any]) -> int:
    """How many pixels belong to the mask, without decoding it.

    Raises:
        AnnotationError: See `decode`.
    """
    return int(runs(value)[1][1::2].sum())


def bounds(value: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    """The smallest box (x1, y1, x2, y2) around the mask, the right and lower edge exclusive; None for an empty mask.

    Raises:
        AnnotationError: See `decode`.
    """
    (height, _), counts = runs(value)
    ends = np.cumsum(counts)
    first, last = ends[0::2][: len(ends[1::2])], ends[1::2] - 1
    there = last >= first
    if not there.any():
        return None
    first, last = first[there], last[there]
    # A run that goes on in the next column touches the upper and the lower edge.
    wraps = (first // height != last // height).any()
    top, bottom = (0, height - 1) if wraps else (int((first % height).min()), int((last % height).max()))
    return int(first[0] // height), top, int(last[-1] // height) + 1, bottom + 1


def canonical(value: Mapping[str, Any]) -> dict[str, Any]:
    """The one form of a mask: compressed, without runs of length 0 after the first; equal masks give equal strings.

    Raises:
        AnnotationError: See `decode`.
    """
    (height, width), counts = runs(value)
    if (counts[1:] == 0).any():
        return encode(decode(value))
    return {"size": [height, width], "counts": _to_string(counts)}


def runs(value: Mapping[str, Any]) -> tuple[tuple[int, int], NDArray[np.int64]]:
    """The size (height, width) and the lengths of the runs, zeros first.

    Raises:
        AnnotationError: See `decode`.
    """
    size, counts = value.get("size"), value.get("counts")
    height, width = _size(size)
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    if isinstance(counts, str):
        lengths = _from_string(counts)
    elif isinstance(counts, Sequence) and all(isinstance(item, int) and abs(item) < 2**40 for item in counts):
        lengths = np.array(counts, np.int64)
    else:
        raise _wrong(f"The counts of the mask are a {type(counts).__name__}.")
    if (lengths < 0).any():
        raise _wrong("A run of the mask has a negative length.")
    total = int(lengths.sum())
    if total != height * width:
        raise _wrong(f"The runs of the mask fill {total} pixels; its size {height} x {width} has {height * width}.")
    return (height, width), lengths


def _size(size: Any) -> tuple[int, int]:
    whole = isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2
    if not whole or not all(isinstance(side, int) and side >= 1 for side in size):
        raise _wrong(f"The mask has the size {str(size)[:60]}.")
    height, width = size
    if height * width > DEFAULT_LIMITS.max_pixels:
        raise _wrong(f"The mask has {height} x {width} pixels; at most {DEFAULT_LIMITS.max_pixels:,} are taken.")
    return height, width


def _wrong(found: str) -> AnnotationError:
    return AnnotationError(
        found,
        expected='a mask as {"size": [height, width], "counts": COCO\'s run-length string}, its runs filling its size.',
        do="Encode the mask anew.",
    )


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lengths of the runs of a mask read by columns, zeros first (a first length of 0 where it begins with ones)."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate([[0] if flat[0] else [], edges, [flat.size]]).astype(np.int64)
    return np.diff(ends, prepend=0)


def _to_string(lengths: NDArray[np.int64]) -> str:
    numbers = lengths.copy()
    numbers[3:] -= lengths[1:-2]
    digits = np.zeros((len(numbers), _LONGEST_NUMBER), np.uint8)
    used = np.zeros((len(numbers), _LONGEST_NUMBER), np.bool_)
    going = np.ones(len(numbers), np.bool_)
    for place in range(_LONGEST_NUMBER):
        digit = numbers & _BITS
        numbers >>= 5
        used[:, place] = going
        # Finished once the rest is nothing but the sign of the last digit.
        going = going & (numbers != np.where(digit & _SIGN, -1, 0))
        digits[:, place] = digit + np.where(going, _MORE, 0) + _FIRST
        if not going.any():
            break
    return digits[used].tobytes().decode("ascii")


def _from_string(text: str) -> NDArray[np.int64]:
    signs = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - _FIRST
    if ((signs < 0) | (signs > _MORE + _BITS)).any():
        raise _wrong("The run-length string has a character that does not belong to it.")
    last = np.flatnonzero(~(signs & _MORE).astype(np.bool_))
    if len(signs) == 0 or len(last) == 0 or last[-1] != len(signs) - 1:
        raise _wrong("The run-length string is cut off." if len(signs) else "The run-length string is empty.")
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _LONGEST_NUMBER:
        raise _wrong("The run-length string has a number that is too large.")
    place = np.arange(len(signs)) - np.repeat(first, lengths)
    numbers = np.add.reduceat((signs & _BITS) << (5 * place), first)
    numbers -= np.where(signs[last] & _SIGN, np.int64(1) << (5 * lengths), 0)
    # Each difference refers to the length two before: sums along the zeros and along the ones, the first length apart.
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
