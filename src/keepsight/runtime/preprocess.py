"""From a decoded picture to the numbers a network takes; the digest tells whether two vectors may be compared."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keepsight.errors import BadInputError
from keepsight.runtime.decode import DEFAULT_LIMITS, Limits, Picture, decode

# Raise it whenever the same picture would give other numbers: cached vectors of the old code are then made anew.
CODE_VERSION = 1

FITS = ("crop", "stretch", "pad")
_INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's square input, then ``(p - mean) / std`` per channel.

    Attributes:
        size: Side of the square input in pixels.
        mean: Of the red, green and blue channel, on the scale 0 to 255.
        std: Likewise.
        crop: Share of the shorter side that is kept, above 0 and at most 1: the picture is resized so that its shorter
            side has ``size / crop`` pixels, and the middle square of ``size`` pixels is taken.
        interpolation: "bilinear" or "bicubic".
        fit: "crop" takes the middle square; "stretch" the whole picture, its proportions lost; "pad" the whole picture
            in its proportions, at the top left, the rest filled with the mean.
    """

    size: int
    mean: tuple[float, ...] = (127.0, 127.0, 127.0)
    std: tuple[float, ...] = (128.0, 128.0, 128.0)
    crop: float = 1.0
    interpolation: str = "bilinear"
    fit: str = "crop"

    def __post_init__(self) -> None:
        wrong = None
        if not 1 <= self.size <= 4096:
            wrong = f"size is {self.size}"
        elif len(self.mean) != 3 or len(self.std) != 3:
            wrong = f"mean has {len(self.mean)} and std {len(self.std)} numbers"
        elif not all(math.isfinite(value) for value in (*self.mean, *self.std)) or min(self.std) <= 0:
            wrong = f"mean is {self.mean} and std {self.std}"
        elif not 0 < self.crop <= 1:
            wrong = f"crop is {self.crop}"
        elif self.interpolation not in _INTERPOLATIONS:
            wrong = f'interpolation is "{self.interpolation}"'
        elif self.fit not in FITS:
            wrong = f'fit is "{self.fit}"'
        elif self.fit != "crop" and self.crop != 1:
            wrong = f'crop is {self.crop} with the fit "{self.fit}"'
        if wrong:
            raise BadInputError(
                f"The preprocessing cannot be carried out: {wrong}.",
                expected="a size of 1 to 4096, three finite means, three stds above 0, a crop above 0 up to 1 (1 "
                f"unless the fit is crop), as interpolation one of {', '.join(_INTERPOLATIONS)}, and as fit one of "
                f"{', '.join(FITS)}.",
                do="Correct it where the model was described (its bundle or the entry of the zoo).",
            )

    @property
    def min_side(self) -> int:
        """The shorter side, in pixels, below which decoding would lose what the network sees."""
        return math.ceil(self.size / self.crop)

    @property
    def digest(self) -> str:
        """Sha256 (hex) over these settings and the version of this code."""
        canonical = json.dumps({"code": CODE_VERSION, **self.as_dict()}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def apply(self, image: Picture) -> NDArray[np.float32]:
        """The input tensor of shape (3, size, size) for an RGB picture of shape (height, width, 3), uint8."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise BadInputError(
                f"The array has shape {image.shape} and type {image.dtype}.",
                expected="an RGB picture of shape (height, width, 3) and type uint8.",
                do="Decode picture files with keepsight.runtime.decode.decode.",
            )
        height, width = image.shape[:2]
        # Resizing the part alone gives the same pixels as resizing all and cutting, without the rounding of borders.
        box = (0.0, 0.0, float(width), float(height))
        if self.fit == "crop":
            side = min(height, width) * self.crop
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
        columns, rows = self._covered((width, height))
        resized = Image.fromarray(image).resize(
            (columns, rows), _INTERPOLATIONS[self.interpolation], box=box, reducing_gap=1.0
        )
        tensor = np.zeros((3, self.size, self.size), np.float32)
        inside = tensor[:, :rows, :columns]
        inside[...] = np.asarray(resized).transpose(2, 0, 1)
        inside -= np.asarray(self.mean, np.float32)[:, None, None]
        inside /= np.asarray(self.std, np.float32)[:, None, None]
        return tensor

    def place(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Where a picture lies in the input, as (scale_x, scale_y, left, top).

        A point of the picture is at ``x * scale_x + left`` of the input; ``(x_input - left) / scale_x`` leads back.

        Args:
            size: Width and height of the picture in pixels.
        """
        width, height = size
        if self.fit == "crop":
            scale = self.size / (min(width, height) * self.crop)
            return scale, scale, (self.size - width * scale) / 2, (self.size - height * scale) / 2
        columns, rows = self._covered(size)
        return columns / width, rows / height, 0.0, 0.0

    def _covered(self, size: tuple[int, int]) -> tuple[int, int]:
        """Columns and rows of the input that the picture fills."""
        if self.fit != "pad":
            return self.size, self.size
        longer = max(size)
        return max(1, round(size[0] * self.size / longer)), max(1, round(size[1] * self.size / longer))

    def from_bytes(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> tuple[NDArray[np.float32], Picture]:
        """The input tensor (3, size, size) of a picture file, and the decoded (usually reduced) picture.

        Raises:
            PictureError: The picture cannot be read.
        """
        image = decode(data, min_side=self.min_side, limits=limits)
        return self.apply(image), image

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON takes them; the fit is left out where it is the usual one, which digests rest on."""
        values = {**asdict(self), "mean": list(map(float, self.mean)), "std": list(map(float, self.std))}
        if self.fit == "crop":
            del values["fit"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """The settings that `as_dict` wrote."""
        try:
            return cls(
                size=int(values["size"]),
                mean=tuple(float(value) for value in values["mean"]),
                std=tuple(float(value) for value in values["std"]),
                crop=float(values.get("crop", 1.0)),
                interpolation=str(values.get("interpolation", "bilinear")),
                fit=str(values.get("fit", "crop")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadInputError(
                f"The preprocessing is incomplete or has a wrong type ({error!r}).",
                expected="size, mean (three numbers) and std (three numbers).",
                do="Correct it where the model was described (its bundle or the entry of the zoo).",
            ) from error
