"""What stands in the foreground of a picture: a mask in the picture's pixels, and a soft matte for cutting it out."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from keepsight.errors import BadInputError, BundleError
from keepsight.runtime import rle
from keepsight.runtime.cutout import Background, compose, refined
from keepsight.runtime.decode import Picture
from keepsight.runtime.manifest import BundleInfo

TENSORS: tuple[str, ...] = ("alpha",)

GOOD = 0.9
"""The overlap (IoU) with a person's mask from which on there is nothing to correct."""

# The expected overlap at which a mask is as often good as not, and how fast that changes (in logits), until held-out
# pictures of a project have told: from U2-Net-p on photos of dressed people.
EVEN, SLOPE = 0.93, 0.4
EVEN_NAME = "even"

_SHARES = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)
_WORDS = ("less than 5 %", *(f"about {tens} %" for tens in range(10, 100, 10)), "more than 95 %")
NOTHING = "nothing"
# Of 255: what is at least half foreground belongs to the mask.
_LEVEL = 128
# A hard mask's edge is softened over so many pixels, or this share of the longer side.
_SOFTEST, _SOFT = 0.7, 0.0007
# A matte is small beside the picture, and is written for every answer.
_COMPRESSION = 6


@dataclass(frozen=True)
class SegmentationOutput:
    """The foreground of one picture.

    Attributes:
        label: How much of the picture it covers, in words.
        confidence: Calibrated chance that the mask overlaps with a person's by `GOOD` or more, 0 to 1.
        covered: Share of the picture that the mask covers.
        matte: uint8 (side, side), 0 background to 255 foreground, stretched over the picture.
        mask: At the picture's size, ``{"size": [height, width], "counts": ...}``.
    """

    label: str
    confidence: float
    covered: float
    matte: NDArray[np.uint8] = field(repr=False)
    mask: Mapping[str, Any] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """``{"label", "confidence", "covered", "mask", "matte": PNG in base64, "alternatives": []}``."""
        return {
            "label": self.label,
            "confidence": self.confidence,
            "covered": self.covered,
            "mask": dict(self.mask),
            "matte": write_matte(self.matte),
            "alternatives": [],
        }


def decode(
    tensors: Mapping[str, NDArray[np.float32]],
    *,
    info: BundleInfo,
    top_k: int = 1,  # noqa: ARG001 - there is one foreground
    sizes: Sequence[tuple[int, int]],
) -> list[SegmentationOutput]:
    """One answer for each matte of ``alpha`` (n, side, side), 0 to 1, stretched over pictures of ``sizes``.

    Raises:
        BundleError: The mattes have another shape, or are not finite.
    """
    alpha = tensors["alpha"]
    if alpha.ndim != 3 or len(alpha) != len(sizes):
        raise BundleError(
            f"The network gives mattes of shape {alpha.shape} for {len(sizes)} pictures.",
            expected=f"shape ({len(sizes)}, side, side).",
            do="Check that the network and its bundle belong together.",
        )
    if not np.isfinite(alpha).all():
        raise BundleError(
            "The network gives numbers that are not finite.",
            expected="shares of the foreground, 0 to 1.",
            do="Train the model anew; if it is quantised, use the float variant.",
        )
    found = []
    for matte, size in zip(np.clip(alpha, 0.0, 1.0), sizes, strict=True):
        levels = np.rint(matte * 255).astype(np.uint8)
        mask = rle.encode(alpha_at(levels, size) >= _LEVEL)
        covered = rle.area(mask) / (size[0] * size[1])
        found.append(SegmentationOutput(share_in_words(covered), confidence(matte, info=info), covered, levels, mask))
    return found


def expected_overlap(matte: NDArray[np.floating]) -> float:
    """The overlap (IoU) of the mask with the truth that the matte itself expects, 0 to 1; 0 for an empty mask.

    The matte's values are taken as chances: so many of the pixels inside are right, so many of those outside missed.
    """
    inside = matte >= 0.5
    if not inside.any():
        return 0.0
    return float(matte[inside].sum() / (inside.sum() + matte[~inside].sum()))


def confidence(matte: NDArray[np.floating], *, info: BundleInfo) -> float:
    """The chance of a good mask: logistic in the expected overlap, with what held-out pictures told (Platt 1999)."""
    even = min(max(info.thresholds.get(EVEN_NAME, EVEN), 1e-6), 1 - 1e-6)
    slope = info.temperature if EVEN_NAME in info.thresholds else SLOPE
    return chance(expected_overlap(matte), even=even, slope=slope)


def chance(overlap: float, *, even: float, slope: float) -> float:
    """The logistic function of `overlap` on its logit scale that is one half at `even`."""
    distance = (overlap_logit(overlap) - overlap_logit(even)) / slope
    return 1 / (1 + math.exp(-min(max(distance, -60.0), 60.0)))


def overlap_logit(overlap: float) -> float:
    """The logit of an overlap, finite for 0 and 1 too."""
    held = min(max(overlap, 1e-6), 1 - 1e-6)
    return math.log(held / (1 - held))


def summaries(info: BundleInfo) -> tuple[str, ...]:  # noqa: ARG001 - the same for every bundle
    """Every value that ``SegmentationOutput.label`` may take."""
    return (NOTHING, *_WORDS)


def share_in_words(covered: float) -> str:
    """How much of a picture a mask covers, in steps of a tenth.

    >>> share_in_words(0.0), share_in_words(0.04), share_in_words(0.31), share_in_words(1.0)
    ('nothing', 'less than 5 %', 'about 30 %', 'more than 95 %')
    """
    if covered <= 0:
        return NOTHING
    return _WORDS[int(np.searchsorted(_SHARES, covered, side="right"))]


def alpha_at(matte: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A matte stretched over a picture of ``size`` (width, height), uint8 (height, width)."""
    return np.asarray(Image.fromarray(matte).resize(size, Image.Resampling.BILINEAR))


def write_matte(matte: NDArray[np.uint8]) -> str:
    """A matte as the base64 text of a PNG."""
    out = io.BytesIO()
    Image.fromarray(matte).save(out, "PNG", compress_level=_COMPRESSION)
    return base64.b64encode(out.getvalue()).decode("ascii")


def read_matte(text: str) -> NDArray[np.uint8]:
    """The matte that `write_matte` wrote.

    Raises:
        BadInputError: The text is none.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as image:
            return np.asarray(image.convert("L"))
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInputError(
            f"The matte cannot be read ({error}).",
            expected="a PNG in base64, as an answer holds it.",
            do="Take it from an answer, unchanged.",
        ) from error


def pictured(answer: Mapping[str, Any], image: Picture, *, background: Background = None) -> NDArray[np.uint8]:
    """The picture's foreground, with the pixels of ``image``: on nothing (RGBA), a colour or another picture (RGB).

    Args:
        answer: As ``SegmentationOutput.as_dict`` gave it; or an annotation, whose hard edge is softened a little.
        image: The picture itself, RGB (height, width, 3), at full size.
        background: None, a colour (red, green, blue), or a picture, which is scaled to cover and cut in the middle.

    Raises:
        AnnotationError: The mask cannot be read.
        BadInputError: The matte cannot be read.
    """
    height, width = image.shape[:2]
    matte = answer.get("matte")
    if matte is not None:
        return compose(image, refined(read_matte(matte), image), background=background)
    mask = Image.fromarray(rle.decode(answer["mask"]).astype(np.uint8) * 255).resize((width, height))
    soft = mask.filter(ImageFilter.BoxBlur(max(_SOFTEST, _SOFT * max(height, width))))
    return compose(image, np.asarray(soft), background=background)
