"""What happens to pictures in real shops: too dark, too bright, blurred, noisy, compressed, tilted, covered, too small.

Each function takes an RGB picture, uint8 (height, width, 3), and gives one of the same size; ``strength`` runs from 0
(unchanged) to 1 (as bad as pictures in daily use get). Fine-tuning trains on random ones, the robustness card shows the
accuracy under each at full strength.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.uint8]
Corruption = Callable[[Picture, float, np.random.Generator], Picture]


def darker(picture: Picture, strength: float, _rng: np.random.Generator) -> Picture:
    """Down to 35 % of the light."""
    return _scaled(picture, 1 - 0.65 * strength)


def brighter(picture: Picture, strength: float, _rng: np.random.Generator) -> Picture:
    """Up to 1.9 times the light; what was bright is clipped."""
    return _scaled(picture, 1 + 0.9 * strength)


def blurred(picture: Picture, strength: float, _rng: np.random.Generator) -> Picture:
    """A Gaussian blur of up to 1/75 of the shorter side."""
    radius = strength * min(picture.shape[:2]) / 75
    return _array(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def noisy(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Gaussian noise of up to 30 grey levels."""
    noise = rng.normal(0.0, 30.0 * strength, picture.shape)
    return np.asarray(np.clip(picture + noise, 0, 255), np.uint8)


def compressed(picture: Picture, strength: float, _rng: np.random.Generator) -> Picture:
    """JPEG, down to quality 10."""
    if strength <= 0:
        return picture
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=round(90 - 80 * strength))
    return _array(Image.open(out).convert("RGB"))


def rotated(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Tilted by up to 20 degrees, to a side that chance decides, the corners filled by the nearest rim."""
    angle = 20 * strength * (1 if rng.random() < 0.5 else -1)
    height, width = picture.shape[:2]
    pad = math.ceil(0.2 * max(height, width))
    wide = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    turned = Image.fromarray(wide).rotate(angle, Image.Resampling.BILINEAR)
    return _array(turned.crop((pad, pad, pad + width, pad + height)))


def covered(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """A grey rectangle over up to a fifth of the picture, anywhere."""
    height, width = picture.shape[:2]
    share = math.sqrt(0.2 * strength)
    tall, broad = round(height * share), round(width * share)
    top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - broad + 1))
    changed = picture.copy()
    changed[top : top + tall, left : left + broad] = 127
    return changed


def half_size(picture: Picture, strength: float, _rng: np.random.Generator) -> Picture:
    """Down to half the pixels on each side, and back: detail is gone."""
    height, width = picture.shape[:2]
    factor = 1 - 0.5 * strength
    small = Image.fromarray(picture).resize(
        (max(1, round(width * factor)), max(1, round(height * factor))), Image.Resampling.BILINEAR
    )
    return _array(small.resize((width, height), Image.Resampling.BILINEAR))


MOVING = frozenset({"rotated"})
"""Those after which things are at another place of the picture."""

CORRUPTIONS: Mapping[str, Corruption] = {
    "darker": darker,
    "brighter": brighter,
    "blurred": blurred,
    "noisy": noisy,
    "compressed": compressed,
    "rotated": rotated,
    "covered": covered,
    "half_size": half_size,
}


def _scaled(picture: Picture, factor: float) -> Picture:
    return np.asarray(np.clip(picture.astype(np.float32) * factor, 0, 255), np.uint8)


def _array(image: Image.Image) -> Picture:
    return np.array(image, np.uint8)
