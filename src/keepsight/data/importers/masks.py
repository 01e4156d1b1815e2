"""Folders of masks: ``images/`` and ``masks/`` beside each other, a mask named like its picture."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keepsight.data.adding import Rejected
from keepsight.data.importers import layout, pairs
from keepsight.data.importers.marks import Marks, Mask, Shape, Size, sized
from keepsight.data.importers.source import PICTURE_SUFFIXES, Entry, Source
from keepsight.errors import AnnotationError
from keepsight.runtime.decode import DEFAULT_LIMITS

NAME = "masks"
KIND = "folders of masks"
GIVES = frozenset({"mask"})
EXPECTED = "folders of masks (images/ and masks/)"

_PAIRS = pairs.Kind(
    folders=("masks", "mask", "matte", "mattes", "alpha"),
    suffixes=PICTURE_SUFFIXES,
    endings=("", "_mask", "-mask"),
    beside=False,
)
_FORMATS = ("PNG", "BMP", "TIFF", "JPEG", "WEBP", "GIF")
# A mask of grey levels is cut in the middle; one that knows two values only is taken by what is not 0.
_MIDDLE = 128


def looks(path: Path) -> bool:
    """Whether a folder, or its split folders, have both folders."""
    return path.is_dir() and bool(layout.units(path, _holds)[0])


def scan(path: Path) -> Source:
    """The pictures of a folder with their masks.

    Raises:
        StorageError: The folder cannot be read.
    """
    found, skipped = layout.units(path, _holds)
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    for unit in found:
        some, bad, other = pairs.listed(unit.folder, _PAIRS, root=path, split=unit.split, read=_read)
        entries += some
        rejected += bad
        skipped += other
    return Source(KIND, tuple(entries), tuple(rejected), tuple(skipped), pairs.without(entries))


def _holds(folder: Path) -> bool:
    return pairs.holds(folder, _PAIRS)


def _read(path: Path, size: Size) -> Marks:
    mask = sized(_mask(path), size)
    return Marks(shapes=(Shape("", path.name, mask=lambda _: mask),))


def _mask(path: Path) -> Mask:
    """What belongs to the mask: what is opaque where it has an alpha channel that differs, else what is not dark.

    Of a palette picture everything but the first colour belongs to it.
    """
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is lower than ours, which is checked below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=_FORMATS)
        with picture:
            if picture.width * picture.height > DEFAULT_LIMITS.max_pixels:
                raise ValueError(f"it has {picture.width} x {picture.height} pixels")
            if picture.mode in ("LA", "PA", "RGBA"):
                alpha = np.asarray(picture.getchannel("A"))
                if alpha.min() != alpha.max():
                    return _mask_of(alpha >= _MIDDLE)
            if picture.mode == "1":
                return _mask_of(np.asarray(picture))
            if picture.mode == "P":
                return _mask_of(np.asarray(picture) != 0)
            if picture.mode.startswith(("I", "F")):
                deep = np.asarray(picture)
                return _mask_of(deep > (0 if deep.max() <= 1 else deep.max() / 2))
            grey = np.asarray(picture.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise AnnotationError(
            f"The mask {path.name} cannot be read ({error}).", expected="a PNG picture.", do="Save the mask again."
        ) from None
    return _mask_of(grey > 0 if len(np.unique(grey)) <= 2 else grey >= _MIDDLE)


def _mask_of(found: NDArray[Any]) -> Mask:
    return found.astype(np.bool_)
