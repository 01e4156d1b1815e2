"""Is a picture good enough to be judged? Sharpness, brightness, contrast and size, in a fraction of a millisecond.

The figures are measured on the reduced picture that the network's input is made from, so they describe what the
network gets to see. Limits are lenient by default; training replaces them by what is unusual among its own pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keepsight.errors import BadInputError
from keepsight.runtime.decode import Picture, PictureInfo

# The luma picture is brought to this shorter side before measuring, so that the figures do not depend on resolution.
# Half of the usual 224 pixels: the reduction by 2 is then a plain average, which is twice as fast as 128 pixels.
MEASURED_SIDE = 112

# Variance of the 4-neighbour Laplacian (weights 1, 1, 1, 1, -4) of noise that is uniform over one grey level (1/12).
ROUNDING_NOISE = 20 / 12

REASON_TEXTS: dict[str, str] = {
    "too_dark": "The picture is too dark.",
    "too_bright": "The picture is too bright.",
    "too_blurred": "The picture is blurred.",
    "low_contrast": "The picture shows hardly any contrast.",
    "too_small": "The picture is too small.",
}


@dataclass(frozen=True)
class Quality:
    """What can be said about a picture without knowing what it shows.

    Attributes:
        blur: Sharpness: variance of the Laplacian divided by the variance of the luma (Pech-Pacheco et al. 2000, made
            independent of exposure: a dimmed picture keeps its figure). Low is blurred: 0.2 to 2 for sharp
            photos of a shop's shelves, 0.06 after a Gaussian blur of 2 pixels at 224 pixels, below 0.001 for a
            picture of 8 x 8 pixels enlarged smoothly.
        brightness: Mean luma, 0 to 255.
        contrast: Standard deviation of the luma, 0 to 127.5.
        width: Of the original picture in pixels.
        height: Likewise.
    """

    blur: float
    brightness: float
    contrast: float
    width: int
    height: int

    def as_dict(self) -> dict[str, float | int]:
        """The figures as JSON takes them."""
        return asdict(self)


@dataclass(frozen=True)
class QualityLimits:
    """Outside these limits a picture goes to a person; the defaults stop only what nobody could judge.

    Attributes:
        min_blur: See `Quality.blur`.
        min_brightness: Mean luma.
        max_brightness: Mean luma.
        min_contrast: Standard deviation of the luma.
        min_side: Shorter side of the original in pixels.
    """

    min_blur: float = 0.00002
    min_brightness: float = 8.0
    max_brightness: float = 253.0
    min_contrast: float = 3.0
    min_side: int = 8

    @classmethod
    def from_pictures(cls, qualities: Sequence[Quality], *, share: float = 0.01) -> QualityLimits:
        """Limits that the most extreme `share` of these pictures breaks on each side, never laxer than the default.

        Meant for a model's own training pictures: "unusually dark for this model". With fewer than ``1 / share``
        pictures the limits are close to their extremes.
        """
        usual = cls()
        if not qualities:
            return usual
        table = np.array(
            [(item.blur, item.brightness, item.contrast, min(item.width, item.height)) for item in qualities]
        )
        low = np.quantile(table, share, axis=0)
        high = np.quantile(table[:, 1], 1 - share)
        return cls(
            min_blur=max(usual.min_blur, float(low[0])),
            min_brightness=max(usual.min_brightness, float(low[1])),
            max_brightness=min(usual.max_brightness, float(high)),
            min_contrast=max(usual.min_contrast, float(low[2])),
            # Half of what is usual: a somewhat smaller picture loses nothing that the network would have seen.
            min_side=max(usual.min_side, int(low[3] / 2)),
        )

    def as_dict(self) -> dict[str, float | int]:
        """The limits as JSON takes them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> QualityLimits:
        """The limits that `as_dict` wrote; those not named keep their default."""
        unknown = sorted(set(values) - set(asdict(cls())))
        try:
            if unknown:
                raise ValueError(f"unknown: {', '.join(unknown)}")
            floats = {name: float(value) for name, value in values.items() if name != "min_side"}
            return cls(**floats, min_side=int(values.get("min_side", cls.min_side)))
        except (TypeError, ValueError) as error:
            raise BadInputError(
                f"The quality limits are wrong ({error}).",
                expected=f"numbers named {', '.join(asdict(cls()))}.",
                do="Correct or remove the named limit.",
            ) from error


def measure(image: Picture, *, info: PictureInfo) -> Quality:
    """The quality of a picture: `image` as decoded for the network (height, width, 3), size from its header `info`."""
    luma = Image.fromarray(image).convert("L")
    short = min(luma.size)
    if short > MEASURED_SIDE:
        scale = MEASURED_SIDE / short
        # A very long strip is measured on a picture of bounded length; its sharpness along the strip matters little.
        size = tuple(min(8 * MEASURED_SIDE, round(side * scale)) for side in luma.size)
        luma = luma.resize((size[0], size[1]), Image.Resampling.BILINEAR, reducing_gap=1.0)
    grey = np.asarray(luma).astype(np.float32)
    mean = float(grey.mean())
    variance = float(np.square(grey - mean).mean())
    return Quality(
        # Rounding to whole grey levels alone gives ROUNDING_NOISE; it must not count as sharpness, in a dim and smooth
        # picture least of all. One level is added to the divisor for pictures without any contrast.
        blur=max(0.0, _laplacian_variance(grey) - ROUNDING_NOISE) / (variance + 1.0),
        brightness=mean,
        contrast=variance**0.5,
        width=info.width,
        height=info.height,
    )


def _laplacian_variance(grey: NDArray[np.float32]) -> float:
    """Variance of the 4-neighbour Laplacian over the inner pixels; 0 for pictures of fewer than 3 rows or columns."""
    if min(grey.shape) < 3:
        return 0.0
    edges = grey[1:-1, 1:-1] * -4
    edges += grey[:-2, 1:-1]
    edges += grey[2:, 1:-1]
    edges += grey[1:-1, :-2]
    edges += grey[1:-1, 2:]
    edges -= edges.mean()
    return float(np.square(edges, out=edges).mean())


def reasons(quality: Quality, *, limits: QualityLimits) -> tuple[str, ...]:
    """Why the picture should go to a person, as codes of `REASON_TEXTS`; empty where its quality is fine."""
    broken = {
        "too_dark": quality.brightness < limits.min_brightness,
        "too_bright": quality.brightness > limits.max_brightness,
        "too_blurred": quality.blur < limits.min_blur,
        "low_contrast": quality.contrast < limits.min_contrast,
        "too_small": min(quality.width, quality.height) < limits.min_side,
    }
    return tuple(code for code, is_broken in broken.items() if is_broken)
