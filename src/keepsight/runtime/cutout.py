"""Cuts a foreground out of a picture at full size: the edge follows the picture, and takes no colour from behind.

A network sees a picture reduced to a few hundred pixels, so its matte is soft over many pixels of a photo. The guided
filter (He, Sun and Tang 2013; computed on a reduced picture as in He and Sun 2015) draws it along the photo's own
edges. A pixel at the edge is a mixture of foreground and background, and on another background the old one would
shine through: foreground colours are estimated from both sides (blur fusion, Forte 2021).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keepsight.runtime.decode import Picture

Colour = tuple[int, int, int]
Background = Colour | Picture | None

# The longer side at which both filters are computed; their results are stretched over the full picture.
_WORK_SIDE = 1024
# The filter looks as far as this many pixels of the matte.
_REACH = 1.5
# Below this variance of brightness (on 0 to 1) a place is flat, and the matte stays as it is there.
_FLAT = 1e-3
# Values of the matte nearer to 0 or 255 than this are certain, and stay.
_SURE = 8
# Colours of either side are averaged over this share of the work side.
_COLOUR_REACH = 0.02
_PURE = 4


def refined(matte: NDArray[np.uint8], image: Picture) -> NDArray[np.uint8]:
    """A matte (side, side) stretched over an RGB picture, its edge along the picture's own: uint8 (height, width)."""
    height, width = image.shape[:2]
    scale = min(1.0, _WORK_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = Image.fromarray(image).convert("L")
    guide = _floats(grey.resize(size, Image.Resampling.BOX))
    small = Image.fromarray(matte)
    rough = _floats(small.resize(size, Image.Resampling.BILINEAR))
    radius = max(1, math.ceil(_REACH * max(size) / max(matte.shape)))
    gain, offset = _guided(guide, rough, radius=radius)
    full = (width, height)
    drawn = np.asarray(_image(gain).resize(full, Image.Resampling.BILINEAR)) * _floats(grey)
    drawn += np.asarray(_image(offset).resize(full, Image.Resampling.BILINEAR))
    plain = np.asarray(small.resize(full, Image.Resampling.BILINEAR))
    levels = np.rint(np.clip(drawn, 0.0, 1.0) * 255).astype(np.uint8)
    sure = (plain <= _SURE) | (plain >= 255 - _SURE)
    return np.where(sure, np.where(plain >= 128, 255, 0).astype(np.uint8), levels)


def compose(image: Picture, alpha: NDArray[np.uint8], *, background: Background = None) -> NDArray[np.uint8]:
    """The foreground of a picture on a background: RGB (height, width, 3), or RGBA where there is none.

    Args:
        image: RGB (height, width, 3).
        alpha: Its matte, uint8 (height, width).
        background: A colour, a picture of any size (scaled to cover, cut in the middle), or None.
    """
    height, width = alpha.shape
    colours = foreground(image, alpha)
    if background is None:
        return np.concatenate([colours, alpha[..., None]], axis=2)
    if isinstance(background, tuple):
        behind = np.empty_like(image)
        behind[...] = background
    else:
        behind = covering(background, (width, height)).copy()
    front = alpha == 255
    behind[front] = colours[front]
    edge = (alpha > 0) & ~front
    share = alpha[edge].astype(np.float32)[:, None] / 255
    mixed = share * colours[edge] + (1 - share) * behind[edge]
    behind[edge] = np.rint(mixed).astype(np.uint8)
    return behind


def foreground(image: Picture, alpha: NDArray[np.uint8]) -> Picture:
    """The picture with the background's share taken out of the colours at the edge; black where nothing is seen."""
    height, width = alpha.shape
    found = np.where(alpha[..., None] > 0, image, 0).astype(np.uint8)
    edge = (alpha > 0) & (alpha < 255)
    if not edge.any():
        return found
    scale = min(1.0, _WORK_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    seen = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX), np.float32)
    share = _floats(Image.fromarray(alpha).resize(size, Image.Resampling.BOX))[..., None]
    radius = max(2, round(_COLOUR_REACH * max(size)))
    # Pixels that are mixtures themselves hardly count.
    front = _averaged(seen, share**_PURE, radius=radius)
    back = _averaged(seen, (1 - share) ** _PURE, radius=radius)
    full = (width, height)
    front_full, back_full = (
        np.asarray(Image.fromarray(np.rint(side).astype(np.uint8)).resize(full, Image.Resampling.BILINEAR))[edge]
        for side in (front, back)
    )
    part = alpha[edge].astype(np.float32)[:, None] / 255
    missing = image[edge] - part * front_full - (1 - part) * back_full
    found[edge] = np.rint(np.clip(front_full + part * missing, 0, 255)).astype(np.uint8)
    return found


def covering(picture: Picture, size: tuple[int, int]) -> Picture:
    """The middle of a picture, scaled so that it covers ``size`` (width, height)."""
    height, width = picture.shape[:2]
    scale = max(size[0] / width, size[1] / height)
    broad, tall = size[0] / scale, size[1] / scale
    left, top = (width - broad) / 2, (height - tall) / 2
    made = Image.fromarray(picture).resize(
        size, Image.Resampling.BILINEAR, box=(left, top, left + broad, top + tall), reducing_gap=2.0
    )
    return np.asarray(made)


def _guided(
    guide: NDArray[np.float32], source: NDArray[np.float32], *, radius: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gain and offset by which ``source`` is a local line of ``guide`` (equations 5, 6 and 8 of He et al. 2013)."""
    mean_guide, mean_source = _box(guide, radius), _box(source, radius)
    variance = _box(guide * guide, radius) - mean_guide * mean_guide
    together = _box(guide * source, radius) - mean_guide * mean_source
    gain = np.asarray(together / (variance + _FLAT), np.float32)
    return _box(gain, radius), _box(mean_source - gain * mean_guide, radius)


def _averaged(colours: NDArray[np.float32], share: NDArray[np.float32], *, radius: int) -> NDArray[np.float32]:
    """The mean colour around each pixel of what has a share; where nothing near has one, the pixel's own."""
    weight = _box(share, radius)
    mean = _box(colours * share, radius) / np.maximum(weight, 1e-4)
    return np.where(weight > 1e-3, mean, colours)


def _box(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The mean over a square of side ``2 radius + 1`` around each pixel, cut at the borders."""
    for axis in (0, 1):
        length = values.shape[axis]
        sums = np.cumsum(values, axis=axis, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis=axis)), sums], axis=axis)
        places = np.arange(length)
        low, high = np.maximum(places - radius, 0), np.minimum(places + radius + 1, length)
        shape = [1] * values.ndim
        shape[axis] = length
        total = sums.take(high, axis=axis) - sums.take(low, axis=axis)
        values = (total / (high - low).reshape(shape)).astype(np.float32)
    return values


def _floats(image: Image.Image) -> NDArray[np.float32]:
    """A greyscale image as values 0 to 1."""
    return np.asarray(image, np.float32) / np.float32(255)


def _image(values: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(values)
