"""Label Studio's run-length form of brush strokes: a bit stream of the RGBA values of a picture, row by row.

It begins with the number of values (32 bits), the bits of a value less 1 (5 bits) and four lengths of counters less 1
(4 bits each). Then runs follow: 1 bit whether one value repeats, 2 bits which counter, the count less 1, the values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from keepsight.data.importers.marks import Mask
from keepsight.errors import AnnotationError

_CHANNELS = 4
_VALUE_BITS = 8
_COUNTERS = (3, 4, 8, 16)


def decode(numbers: Sequence[int], *, width: int, height: int) -> Mask:
    """The mask (height, width) of what the brush touched, from bytes 0..255.

    Raises:
        AnnotationError: They are no such form, or of another size.
    """
    try:
        stream = _Bits(np.unpackbits(np.asarray(numbers, np.uint8)))
        count = stream.number(32)
        if count != width * height * _CHANNELS:
            raise ValueError(
                f"it holds {count} values, and {width} x {height} pixels have {width * height * _CHANNELS}"
            )
        bits = stream.number(5) + 1
        counters = [stream.number(4) + 1 for _ in range(4)]
        values = np.zeros(count, np.uint8)
        place = 0
        while place < count:
            repeats = stream.number(1)
            length = stream.number(counters[stream.number(2)]) + 1
            if place + length > count:
                raise ValueError("a run is too long")
            values[place : place + length] = stream.number(bits) if repeats else stream.numbers(length, bits)
            place += length
    except (ValueError, TypeError, OverflowError) as error:
        raise AnnotationError(
            f"The brush strokes cannot be read ({error}).", expected="Label Studio's rle.", do="Export them again."
        ) from None
    opaque: Mask = values.reshape(height, width, _CHANNELS)[..., 3] != 0
    return opaque


def encode(mask: Mask) -> list[int]:
    """The bytes 0..255 of a mask (height, width)."""
    flat = np.repeat(mask.ravel(), _CHANNELS)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [flat.size]]))
    parts = [format(flat.size, "032b"), format(_VALUE_BITS - 1, "05b")]
    parts += [format(bits - 1, "04b") for bits in _COUNTERS]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = "1" * _VALUE_BITS if flat[start] else "0" * _VALUE_BITS
        rest = length
        while rest:
            which = next((at for at, bits in enumerate(_COUNTERS) if rest <= 1 << bits), len(_COUNTERS) - 1)
            piece = min(rest, 1 << _COUNTERS[which])
            parts.append(f"1{which:02b}{piece - 1:0{_COUNTERS[which]}b}{value}")
            rest -= piece
    text = "".join(parts)
    bits = np.frombuffer(text.encode("ascii"), np.uint8) - ord("0")
    packed: list[int] = np.packbits(bits).tolist()
    return packed


class _Bits:
    """Reads numbers from bits, the highest bit first."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self._bits = bits
        self._place = 0

    def number(self, width: int) -> int:
        return int("".join(map(str, self._take(width).tolist())), 2)

    def numbers(self, count: int, width: int) -> NDArray[np.int64]:
        weights = 1 << np.arange(width - 1, -1, -1)
        found: NDArray[np.int64] = self._take(count * width).reshape(count, width) @ weights
        return found

    def _take(self, count: int) -> NDArray[np.uint8]:
        found = self._bits[self._place : self._place + count]
        if len(found) < count:
            raise ValueError("it ends too early")
        self._place += count
        return found
