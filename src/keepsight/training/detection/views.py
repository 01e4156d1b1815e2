"""Pictures with their boxes as the network's input: the view that serving sees, and random ones to train on.

A random view is a window of the picture, stretched a little, mirrored or not, in other light; half of them are four
windows side by side (mosaic, Bochkovskiy et al. 2020), so that a few pictures show many neighbourhoods. Boxes move
along; one of which little is left in the window is left out. A view is decided by its random generator alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keepsight.errors import PictureError
from keepsight.runtime.decode import Picture, decode
from keepsight.runtime.preprocess import Preprocessing
from keepsight.training.augment import Augmenter

Floats = NDArray[np.float32]

# Window sides against the picture's: a wider window shows it smaller, with a rim.
_NEAREST, _WIDEST = 0.6, 1.3
_STRETCH = 1.2
_MOSAIC = 0.5
# Of a box in the window: its least visible share, and its least side in pixels of the view.
_VISIBLE, _LEAST_SIDE = 0.35, 3.0
# Cut-outs of the nearest window still have about the network's resolution.
_SURPLUS = 1.4


@dataclass(frozen=True)
class Seen:
    """One view.

    Attributes:
        image: float32 (3, size, size), normalised.
        boxes: float32 (m, 4), corners in pixels of the view.
        labels: int64 (m,).
    """

    image: Floats
    boxes: Floats
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Views:
    """What is seen of the pictures.

    Attributes:
        preprocessing: Of serving.
        augmentations: Which changes random views may have, of ``augment.NAMES``.
        boxes: Of each picture, float32 (m, 4), corners as shares of its width and height.
        labels: Of each picture, int64 (m,).
        read: The stored bytes of the picture at a place; None where it cannot be read.
        seed: With the step and the place in the batch it decides a view.
    """

    preprocessing: Preprocessing
    augmentations: tuple[str, ...]
    boxes: tuple[Floats, ...]
    labels: tuple[NDArray[np.int64], ...]
    read: Callable[[int], bytes | None]
    seed: int

    def plain(self, place: int) -> Floats | None:
        """The view that serving sees; None where the picture cannot be read."""
        data = self.read(place)
        try:
            return None if data is None else self.preprocessing.from_bytes(data)[0]
        except PictureError:
            return None

    def random(self, place: int, others: NDArray[np.int64], *, draw: tuple[int, int]) -> Seen:
        """A random view of the picture at ``place``, perhaps beside windows of ``others``.

        Args:
            place: The picture.
            others: Three more for a mosaic.
            draw: Step and place in the batch.
        """
        rng = np.random.default_rng((self.seed, *draw))
        size = self.preprocessing.size
        if "crop" not in self.augmentations or rng.random() >= _MOSAIC:
            return self._normalised(*self._window(place, rng, (size, size)))
        canvas = np.empty((size, size, 3), np.uint8)
        across, down = (int(size * rng.uniform(0.35, 0.65)) for _ in range(2))
        boxes, labels = [], []
        for number, each in enumerate([place, *others.tolist()]):
            left, top = (0, across)[number % 2], (0, down)[number // 2]
            sides = (size - across if left else across, size - down if top else down)
            image, found, named = self._window(int(each), rng, sides)
            canvas[top : top + sides[1], left : left + sides[0]] = image
            boxes.append(found + np.array([left, top, left, top], np.float32))
            labels.append(named)
        return self._normalised(canvas, np.concatenate(boxes), np.concatenate(labels))

    def _window(
        self, place: int, rng: np.random.Generator, sides: tuple[int, int]
    ) -> tuple[Picture, Floats, NDArray[np.int64]]:
        """A window of a picture, ``sides`` (width, height) large, at about the scale of serving."""
        size = self.preprocessing.size
        picture = self._decoded(place)
        if picture is None:
            return np.full((sides[1], sides[0], 3), 127, np.uint8), np.zeros((0, 4), np.float32), _NONE
        height, width = picture.shape[:2]
        # Pixels of the view for each of the picture, as in serving.
        scale_x, scale_y, _, _ = self.preprocessing.place((width, height))
        if "crop" in self.augmentations:
            zoom = math.exp(rng.uniform(-math.log(_WIDEST), -math.log(_NEAREST)))
            stretch = math.exp(rng.uniform(-math.log(_STRETCH), math.log(_STRETCH)) / 2)
            scale_x, scale_y = scale_x * zoom * stretch, scale_y * zoom / stretch
        broad, tall = sides[0] / scale_x, sides[1] / scale_y
        # Where the window is larger than the picture, the picture lies somewhere in it.
        left = rng.uniform(min(0.0, width - broad), max(0.0, width - broad))
        top = rng.uniform(min(0.0, height - tall), max(0.0, height - tall))
        image = _cut(picture, (left, top, broad, tall), sides)
        boxes = self.boxes[place] * np.array([width, height] * 2, np.float32)
        boxes = (boxes - np.array([left, top] * 2, np.float32)) * np.array([scale_x, scale_y] * 2, np.float32)
        boxes, labels = _visible(boxes, self.labels[place], sides)
        if "flip" in self.augmentations and rng.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
            boxes = np.stack([sides[0] - boxes[:, 2], boxes[:, 1], sides[0] - boxes[:, 0], boxes[:, 3]], axis=1)
        looks = Augmenter(self.augmentations, size).relit(image, rng)
        return looks, boxes, labels

    def _decoded(self, place: int) -> Picture | None:
        data = self.read(place)
        try:
            side = math.ceil(self.preprocessing.size * _SURPLUS)
            return None if data is None else decode(data, min_side=side)
        except PictureError:
            return None

    def _normalised(self, image: Picture, boxes: Floats, labels: NDArray[np.int64]) -> Seen:
        tensor = image.transpose(2, 0, 1).astype(np.float32)
        tensor -= np.asarray(self.preprocessing.mean, np.float32)[:, None, None]
        tensor /= np.asarray(self.preprocessing.std, np.float32)[:, None, None]
        return Seen(tensor, boxes.astype(np.float32), labels)


_NONE = np.zeros(0, np.int64)


def _cut(picture: Picture, window: tuple[float, float, float, float], sides: tuple[int, int]) -> Picture:
    """The window (left, top, width, height) of a picture at ``sides`` (width, height); grey where it reaches over."""
    height, width = picture.shape[:2]
    left, top, broad, tall = window
    inner = (max(left, 0.0), max(top, 0.0), min(left + broad, width), min(top + tall, height))
    scale_x, scale_y = sides[0] / broad, sides[1] / tall
    x1, y1 = round((inner[0] - left) * scale_x), round((inner[1] - top) * scale_y)
    x2 = max(x1 + 1, min(sides[0], round((inner[2] - left) * scale_x)))
    y2 = max(y1 + 1, min(sides[1], round((inner[3] - top) * scale_y)))
    made = Image.fromarray(picture).resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR, box=inner, reducing_gap=1.0)
    canvas = np.full((sides[1], sides[0], 3), 127, np.uint8)
    canvas[y1:y2, x1:x2] = np.asarray(made)[: sides[1] - y1, : sides[0] - x1]
    return canvas


def _visible(boxes: Floats, labels: NDArray[np.int64], sides: tuple[int, int]) -> tuple[Floats, NDArray[np.int64]]:
    """The boxes cut to the window, without those of which too little is left."""
    ends = np.array(sides * 2, np.float32)
    inside = np.clip(boxes, 0, ends)
    extent = inside[:, 2:] - inside[:, :2]
    share = extent.prod(axis=1) / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
    kept = (share >= _VISIBLE) & (extent.min(axis=1, initial=np.inf) >= _LEAST_SIDE)
    return inside[kept], labels[kept]
