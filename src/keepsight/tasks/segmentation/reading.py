"""Masks from outside: run-length forms, polygons, and PNG pictures as text."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, PngImagePlugin

from keepsight.errors import AnnotationError
from keepsight.runtime import rle
from keepsight.runtime.decode import DEFAULT_LIMITS

_DATA_URL = re.compile(r"\s*data:image/png;base64,", re.IGNORECASE)
_MOST_POINTS = 100_000
_BAD_PNG = (ArithmeticError, EOFError, LookupError, OSError, RuntimeError, SyntaxError, TypeError, ValueError)


def mask_of(raw: Any) -> dict[str, Any]:
    """The run-length form of a mask given as run-length form, polygons or PNG text.

    Raises:
        AnnotationError: It is none of them.
    """
    if isinstance(raw, str):
        return rle.encode(from_png(raw))
    if isinstance(raw, Mapping) and "polygons" in raw:
        return rle.encode(from_polygons(raw["polygons"], size=raw.get("size")))
    if isinstance(raw, Mapping) and "counts" in raw:
        return {"size": raw.get("size"), "counts": raw["counts"]}
    shown = f"an object with {', '.join(map(str, list(raw)[:5])) or 'nothing'}" if isinstance(raw, Mapping) else None
    raise AnnotationError(
        f"The mask is {shown or ('missing' if raw is None else 'of type ' + type(raw).__name__)}.",
        expected='{"size": [height, width], "counts"}, {"size", "polygons": [[x, y, ...], ...]} or a PNG in base64.',
        do="Give the mask in one of these forms.",
    )


def from_png(text: str) -> NDArray[np.bool_]:
    """The mask in a PNG given as base64 text.

    Where the PNG has transparency, what is at least half opaque belongs to the mask. Else its values tell: of a
    palette all but 0; of a grey picture those of 128 and more, or all but 0 where none is so bright.

    Raises:
        AnnotationError: The text is no readable PNG.
    """
    try:
        data = base64.b64decode(_DATA_URL.sub("", text, count=1), validate=True)
        image = PngImagePlugin.PngImageFile(io.BytesIO(data))
        if image.width * image.height > DEFAULT_LIMITS.max_pixels:
            raise ValueError(f"it has {image.width} x {image.height} pixels")
        image.load()
        return mask_in(image)
    except (*_BAD_PNG, binascii.Error, Image.DecompressionBombError) as error:
        raise AnnotationError(
            f"The mask is a text that is no readable PNG ({str(error)[:100]}).",
            expected="the base64 text of a PNG, as in data:image/png;base64,...",
            do="Save the mask as PNG and encode the file's bytes in base64.",
        ) from error


def mask_in(image: Image.Image) -> NDArray[np.bool_]:
    """What an opened picture of a mask marks, by the rule of `from_png`."""
    if "A" in image.getbands():
        opaque: NDArray[np.bool_] = np.asarray(image.getchannel("A")) >= 128
        return opaque
    plain = image.mode in ("P", "1", "L") or image.mode.startswith("I")
    values: NDArray[Any] = np.asarray(image if plain else image.convert("L"))
    middle = 1 if image.mode in ("P", "1") else 2**15 if image.mode.startswith("I") else 128
    marked: NDArray[np.bool_] = values >= (middle if values.max() >= middle else 1)
    return marked


def from_polygons(polygons: Any, *, size: Any) -> NDArray[np.bool_]:
    """The pixels inside any of some polygons, their outlines included.

    Args:
        polygons: Lists ``[x, y, x, y, ...]`` or ``[[x, y], ...]`` in pixels of the picture, three points or more each.
        size: [height, width] of the picture.

    Raises:
        AnnotationError: They are not, or a point lies outside the picture.
    """
    if not _is_size(size):
        raise _bad_polygons(f"the size of the picture is {str(size)[:40]}")
    height, width = size
    if not isinstance(polygons, Sequence) or isinstance(polygons, str) or not polygons:
        raise _bad_polygons("there is no polygon")
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    for number, polygon in enumerate(polygons, start=1):
        draw.polygon(_points(polygon, number=number, size=(width, height)), fill=1, outline=1)
    return np.asarray(canvas)


def _points(polygon: Any, *, number: int, size: tuple[int, int]) -> list[tuple[float, float]]:
    try:
        flat = np.asarray(polygon, np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise _bad_polygons(f"polygon {number} is not a list of x and y") from None
    if not 3 <= len(flat) <= _MOST_POINTS or not np.isfinite(flat).all():
        raise _bad_polygons(f"polygon {number} has {len(flat)} points, or one that is no number")
    outside = (flat < -1) | (flat > np.array(size) + 1)
    if outside.any():
        x, y = flat[outside.any(axis=1)][0]
        raise _bad_polygons(
            f"polygon {number} has the point ({x:g}, {y:g}) outside the picture ({size[0]} x {size[1]})"
        )
    # A pixel's middle counts: the pixel at (0, 0) reaches from 0 to 1.
    return [(float(x) - 0.5, float(y) - 0.5) for x, y in flat]


def _is_size(size: Any) -> bool:
    whole = isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2
    return (
        whole
        and all(isinstance(side, int) and side >= 1 for side in size)
        and size[0] * size[1] <= DEFAULT_LIMITS.max_pixels
    )


def _bad_polygons(reason: str) -> AnnotationError:
    return AnnotationError(
        f"The polygons of the mask cannot be read: {reason}.",
        expected='{"size": [height, width], "polygons": [[x, y, x, y, x, y, ...], ...]} in pixels of the picture.',
        do="Correct the polygons, or give the mask as a PNG.",
    )
