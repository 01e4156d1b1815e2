"""Folders of masks: ``SPLIT/images/`` and ``SPLIT/masks/`` with a black and white PNG for each picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from keepsight.data.exporters.item import File, Item

NAME = "masks"
KIND = "folders of masks"
TAKES = "masks"


def place(item: Item) -> str:
    """Where the picture goes."""
    return f"{item.split}/images/{item.file}"


def refuses(item: Item) -> str | None:
    """Why an annotation cannot be written; None where it can."""
    return None if any(shape.mask is not None for shape in item.marks.shapes or ()) else "It has no mask."


def files(items: Sequence[Item]) -> Iterator[File]:
    """Each picture and its mask."""
    for item in items:
        yield item.picture(place(item))
        yield File(f"{item.split}/masks/{item.stem}.png", _pieces(item))


def _pieces(item: Item) -> Iterator[bytes]:
    union = np.zeros(item.size[::-1], np.bool_)
    for shape in item.marks.shapes or ():
        if shape.mask is not None:
            union |= shape.mask(item.size)
    out = io.BytesIO()
    Image.fromarray(union).save(out, "PNG")
    yield out.getvalue()
