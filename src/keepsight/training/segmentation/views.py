"""Pictures with their masks as a network's input and target: as they are served, and changed at random."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keepsight.errors import PictureError
from keepsight.runtime import rle
from keepsight.runtime.decode import Picture, decode
from keepsight.runtime.preprocess import Preprocessing
from keepsight.training.augment import Augmenter

Floats = NDArray[np.float32]

# Changes that alter pixels only; the others move the mask along, or would make it wrong.
_COLOURS = ("light", "blur", "noise", "jpeg")
# Chance of a part of the picture instead of all of it, its least area, and how much its sides may differ from the
# picture's in proportion.
_PART, _LEAST_AREA, _RATIO = 0.7, 0.5, 1.25
# A part must show so much of the foreground.
_LEAST_SEEN = 0.4
# Pictures are kept in memory, reduced to what views need, up to so many bytes.
_KEPT_BYTES = 512 * 1024**2
# Parts are cut out of a picture that is larger than the network's input.
_SURPLUS = 1.4


class Views:
    """Views of the material's pictures.

    Args:
        read: The bytes of the picture at a place, or None.
        values: Its annotation.
        preprocessing: Of the network, which sees the whole picture (fit "stretch").
        augment: Names of allowed changes (``training.augment.NAMES``).
        seed: Of the random views.
    """

    def __init__(
        self,
        read: Callable[[int], bytes | None],
        values: Sequence[Mapping[str, Any]],
        *,
        preprocessing: Preprocessing,
        augment: Sequence[str],
        seed: int,
    ) -> None:
        self._read, self._values = read, values
        self._preprocessing = preprocessing
        self._colours = Augmenter(tuple(name for name in augment if name in _COLOURS), preprocessing.size)
        self._flips, self._parts = "flip" in augment, "crop" in augment
        self._seed = seed
        self._kept: OrderedDict[int, tuple[Picture, NDArray[np.uint8]] | None] = OrderedDict()
        self._bytes = 0

    def plain(self, place: int) -> tuple[Floats, Floats] | None:
        """Input (3, size, size) and target (size, size), 0 to 1, of the whole picture; None where it cannot be read."""
        found = self._loaded(place)
        if found is None:
            return None
        picture, mask = found
        size = self._preprocessing.size
        return self._preprocessing.apply(picture), _target(Image.fromarray(mask), (0, 0, *mask.shape[::-1]), size)

    def random(self, place: int, number: int) -> tuple[Floats, Floats] | None:
        """The same of a random view, decided by the seed, the place and its number."""
        found = self._loaded(place)
        if found is None:
            return None
        picture, mask = found
        rng = np.random.default_rng((self._seed, place, number))
        box = self._box(mask, rng)
        size = self._preprocessing.size
        view = np.asarray(
            Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=1.0)
        )
        target = _target(Image.fromarray(mask), box, size)
        if self._flips and rng.random() < 0.5:
            view, target = view[:, ::-1], target[:, ::-1]
        view = self._colours.view(np.ascontiguousarray(view), rng)
        return self._preprocessing.apply(view), np.ascontiguousarray(target)

    def _box(self, mask: NDArray[np.uint8], rng: np.random.Generator) -> tuple[float, float, float, float]:
        """A part of the picture that shows enough of the foreground, or all of it."""
        height, width = mask.shape
        if self._parts and rng.random() < _PART:
            share = math.sqrt(rng.uniform(_LEAST_AREA, 1.0))
            ratio = math.exp(rng.uniform(-1, 1) * math.log(_RATIO) / 2)
            broad, tall = min(width, width * share * ratio), min(height, height * share / ratio)
            left, top = rng.uniform(0, width - broad), rng.uniform(0, height - tall)
            seen = mask[round(top) : round(top + tall), round(left) : round(left + broad)]
            if seen.sum(dtype=np.int64) >= _LEAST_SEEN * mask.sum(dtype=np.int64):
                return left, top, left + broad, top + tall
        return 0.0, 0.0, float(width), float(height)

    def _loaded(self, place: int) -> tuple[Picture, NDArray[np.uint8]] | None:
        """The picture and its mask (0 or 255), both reduced; None where the picture cannot be read."""
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        found = self._reduced(place)
        self._kept[place] = found
        self._bytes += 0 if found is None else found[0].nbytes + found[1].nbytes
        while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._bytes -= 0 if old is None else old[0].nbytes + old[1].nbytes
        return found

    def _reduced(self, place: int) -> tuple[Picture, NDArray[np.uint8]] | None:
        data = self._read(place)
        side = math.ceil(self._preprocessing.size * _SURPLUS)
        try:
            picture = None if data is None else decode(data, min_side=side)
        except PictureError:
            return None
        if picture is None:
            return None
        height, width = picture.shape[:2]
        scale = min(1.0, side / min(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        mask = Image.fromarray(rle.decode(self._values[place]["mask"]).astype(np.uint8) * 255)
        if size != (width, height):
            picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0))
        return picture, np.asarray(mask.resize(size, Image.Resampling.BOX))


def _target(mask: Image.Image, box: tuple[float, float, float, float], size: int) -> Floats:
    """The share of the foreground in each pixel of a view."""
    seen = mask.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(seen, np.float32) / np.float32(255)
