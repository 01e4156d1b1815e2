"""Reads the lines of a picture: cuts them out, runs the recogniser in batches of like widths, decodes (CTC).

The recogniser takes ``image`` float32 (n, 3, 48, width) and gives ``shares`` (n, steps, characters), where character 0
is the blank of CTC (Graves 2006) and the last one the space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from keepsight.errors import BundleError
from keepsight.runtime.session import INPUT

HEIGHT = 48
SHARES = "shares"
BLANK = 0
# Lines of one batch; more of them are not faster on a processor.
_BATCH = 6
# Narrower lines are padded to this, longer ones than the widest are squeezed.
_NARROWEST = 48
_STRIDE = 8
_WIDEST = 3200
_TALL = 1.5
_TURNED_INPUT = (3, 48, 192)
_TURNED_SURE = 0.9


@dataclass(frozen=True)
class Read:
    """The text of one line.

    Attributes:
        text: As decoded.
        confidence: Mean probability of its signs, 0 to 1; 0 for an empty text.
        weakest: Probability of the least sure sign.
    """

    text: str
    confidence: float
    weakest: float


def cut(image: Image.Image, corners: NDArray[np.float32]) -> Image.Image:
    """A line's picture, upright; what stands on its end (1.5 times as high as wide) is turned to the left."""
    top_left, top_right, _, bottom_left = corners.astype(np.float64)
    along, down = top_right - top_left, bottom_left - top_left
    width, height = max(1, int(np.linalg.norm(along))), max(1, int(np.linalg.norm(down)))
    if abs(along[1]) < 0.5 and abs(down[0]) < 0.5:
        left, top = float(top_left[0]), float(top_left[1])
        part = image.crop((int(left), int(top), int(left) + width, int(top) + height))
    else:
        across, below = along / width, down / height
        part = image.transform(
            (width, height),
            Image.Transform.AFFINE,
            (across[0], below[0], top_left[0], across[1], below[1], top_left[1]),
            Image.Resampling.BICUBIC,
        )
    return part.transpose(Image.Transpose.ROTATE_90) if height >= _TALL * width else part


def tensor(part: Image.Image) -> NDArray[np.float32]:
    """A line's picture as input (3, 48, width) of the recogniser, -1 to 1."""
    width = min(_WIDEST, max(1, math.ceil(HEIGHT * part.width / part.height)))
    scaled = part.resize((width, HEIGHT), Image.Resampling.BILINEAR)
    array: NDArray[np.float32] = np.asarray(scaled, np.float32).transpose(2, 0, 1) / np.float32(127.5) - np.float32(1)
    return array


def padded(tensors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """A batch (n, 3, 48, width) in which narrower lines end in grey; the width is one that the strides divide."""
    width = max(_NARROWEST, *(-(-array.shape[2] // _STRIDE) * _STRIDE for array in tensors))
    batch = np.zeros((len(tensors), 3, HEIGHT, width), np.float32)
    for place, array in enumerate(tensors):
        batch[place, :, :, : array.shape[2]] = array
    return batch


def read(session: ort.InferenceSession, parts: Sequence[Image.Image], *, characters: Sequence[str]) -> list[Read]:
    """The text of each line's picture, in their order.

    Raises:
        BundleError: Recogniser and characters do not belong together.
    """
    tensors = [tensor(part) for part in parts]
    order = sorted(range(len(tensors)), key=lambda place: tensors[place].shape[2])
    texts: list[Read] = [Read("", 0.0, 0.0)] * len(tensors)
    for start in range(0, len(order), _BATCH):
        places = order[start : start + _BATCH]
        shares = session.run([SHARES], {INPUT: padded([tensors[place] for place in places])})[0]
        if shares.shape[2] != len(characters) + 2:
            raise BundleError(
                f"The recogniser tells {shares.shape[2] - 2} characters apart, and characters.txt lists "
                f"{len(characters)}.",
                expected="one line for each character but the space.",
                do="Make the bundle anew with `keepsight train`.",
            )
        for place, row in zip(places, shares, strict=True):
            texts[place] = decode(row, characters=characters)
    return texts


def decode(shares: NDArray[np.float32], *, characters: Sequence[str]) -> Read:
    """The most probable path of one line (steps, characters + 2), repeats and blanks removed."""
    best = shares.argmax(axis=1)
    kept = best != BLANK
    kept[1:] &= best[1:] != best[:-1]
    text = "".join(characters[sign - 1] if sign <= len(characters) else " " for sign in best[kept])
    sure = shares[kept, best[kept]]
    if not len(sure):
        return Read("", 0.0, 0.0)
    return Read(text, float(sure.mean()), float(sure.min()))


def upright(session: ort.InferenceSession, parts: Sequence[Image.Image]) -> list[Image.Image]:
    """The lines' pictures, those turned that stand on their heads (probability above 0.9)."""
    turned = []
    channels, height, widest = _TURNED_INPUT
    for part in parts:
        width = min(widest, max(1, math.ceil(height * part.width / part.height)))
        batch = np.zeros((1, channels, height, widest), np.float32)
        scaled = part.resize((width, height), Image.Resampling.BILINEAR)
        batch[0, :, :, :width] = np.asarray(scaled, np.float32).transpose(2, 0, 1) / 127.5 - 1
        share = session.run([SHARES], {INPUT: batch})[0][0, 1]
        turned.append(part.transpose(Image.Transpose.ROTATE_180) if share > _TURNED_SURE else part)
    return turned
