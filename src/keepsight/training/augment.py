"""Changed views of a picture to train on: other light, blur, noise, compression, tilt, cut-outs, cover, mirror images.

A view is decided by its random generator alone, so that the same seed, picture and number give the same view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from keepsight.training import corruptions
from keepsight.training.corruptions import Picture

NAMES = ("light", "blur", "noise", "jpeg", "rotation", "crop", "occlusion", "flip")
# Changes after which a picture may show something else (a turned 6 is a 9), so that data must say whether they may be.
DOUBTFUL = ("flip", "rotation")

_SMALLEST_AREA = 0.35
_RATIO = 4 / 3
_LIGHT = 0.5
_GAIN = 0.3
_TINT = 0.08
# Chance of each rarer change, and how strong it gets at most.
_RARE = {"blur": (0.15, 0.7), "noise": (0.1, 0.6), "jpeg": (0.12, 0.9), "rotation": (0.3, 0.8), "occlusion": (0.2, 1.0)}
# Those that neither move nor cover anything.
_IN_PLACE = ("blur", "noise", "jpeg")
_DONE_BY = {
    "blur": corruptions.blurred,
    "noise": corruptions.noisy,
    "jpeg": corruptions.compressed,
    "rotation": corruptions.rotated,
    "occlusion": corruptions.covered,
}


@dataclass(frozen=True)
class Augmenter:
    """Makes random views.

    Attributes:
        names: Which changes may happen, of :data:`NAMES`.
        size: Side of the square view in pixels.
        crop: Share of the shorter side that the plain view keeps, as in serving.
    """

    names: tuple[str, ...]
    size: int
    crop: float = 1.0

    def view(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """A random view of an RGB picture, uint8 (size, size, 3)."""
        made = self._cut(picture, rng)
        if "flip" in self.names and rng.random() < 0.5:
            made = mirrored(made)
        return self._changed(made, rng, tuple(_RARE))

    def relit(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """The picture in other light, blurred, noisy or compressed; everything in it stays where it is."""
        return self._changed(picture, rng, _IN_PLACE)

    def _changed(self, made: Picture, rng: np.random.Generator, rare: tuple[str, ...]) -> Picture:
        for name in rare:
            chance, most = _RARE[name]
            if name in self.names and rng.random() < chance:
                made = _DONE_BY[name](made, most * rng.random(), rng)
        if "light" in self.names:
            made = _relit(made, rng)
        return np.ascontiguousarray(made)

    def _cut(self, picture: Picture, rng: np.random.Generator) -> Picture:
        height, width = picture.shape[:2]
        if "crop" in self.names:
            area = height * width * rng.uniform(_SMALLEST_AREA, 1.0)
            ratio = math.exp(rng.uniform(-math.log(_RATIO), math.log(_RATIO)))
            broad, tall = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
            left, top = rng.uniform(0, width - broad), rng.uniform(0, height - tall)
        else:
            broad = tall = min(height, width) * self.crop
            left, top = (width - broad) / 2, (height - tall) / 2
        return _resized(picture, (left, top, left + broad, top + tall), self.size)


def mirrored(picture: Picture) -> Picture:
    """Left and right exchanged."""
    return np.ascontiguousarray(picture[:, ::-1])


def changed(picture: Picture, name: str, rng: np.random.Generator) -> Picture:
    """The picture after one doubtful change, as strong as training would make it."""
    if name == "flip":
        return mirrored(picture)
    return _DONE_BY[name](picture, _RARE[name][1], rng)


def _relit(picture: Picture, rng: np.random.Generator) -> Picture:
    """Other brightness, contrast and tint: one scale and shift per channel."""
    gain = rng.uniform(1 - _GAIN, 1 + _GAIN) * rng.uniform(1 - _TINT, 1 + _TINT, 3)
    shift = rng.uniform(-_LIGHT, _LIGHT) * 60
    if rng.random() < 0.3:
        one_sided = corruptions.darker if rng.random() < 0.5 else corruptions.brighter
        picture = one_sided(picture, 0.5 * rng.random(), rng)
    levels = np.arange(256, dtype=np.float32)[:, None]
    table = np.clip((levels - 127) * gain + 127 + shift, 0, 255).astype(np.uint8)
    return np.stack([table[picture[..., channel], channel] for channel in range(3)], axis=-1)


def _resized(picture: Picture, box: tuple[float, float, float, float], size: int) -> Picture:
    made = Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=1.0)
    return np.array(made, np.uint8)
