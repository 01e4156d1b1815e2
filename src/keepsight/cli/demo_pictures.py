"""The demo's pictures: real handwritten digits that come with scikit-learn, or a folder of class folders."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from keepsight.errors import DataError

DIGIT_SIDE_PX = 160
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True)
class DemoPicture:
    """A picture file with its true label; ``read`` gives the bytes."""

    name: str
    label: str
    read: Callable[[], bytes]


def digits() -> list[DemoPicture]:
    """1,797 real handwritten digits of 8 x 8 pixels (E. Alpaydin, C. Kaynak, UCI 1998), enlarged to PNG files."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pictures = []
    for number, (array, target) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        small = Image.fromarray((255 - array * (255 / 16)).astype(np.uint8))
        large = small.resize((DIGIT_SIDE_PX, DIGIT_SIDE_PX), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        large.save(file, "PNG")
        data = file.getvalue()
        pictures.append(DemoPicture(f"digit-{number:04d}.png", NAMES[int(target)], lambda data=data: data))  # type: ignore[misc]  # the default binds this round's bytes
    return pictures


def folder(path: Path) -> list[DemoPicture]:
    """All pictures of a folder of class folders.

    Raises:
        DataError: It holds fewer than two class folders with 20 pictures each.
    """
    pictures = [
        DemoPicture(file.name, file.parent.name, file.read_bytes)
        for file in sorted(path.glob("*/*"))
        if file.suffix.lower() in SUFFIXES
    ]
    counts = {label: sum(picture.label == label for picture in pictures) for label in {p.label for p in pictures}}
    enough = [label for label, count in counts.items() if count >= 20]
    if len(enough) < 2:
        raise DataError(
            f"{path} holds {len(enough)} class folders with 20 pictures or more.",
            expected="a folder with one folder per class, at least two, with 20 pictures each.",
            do="Name another folder, or leave --pictures out to use the built-in digits.",
        )
    return [picture for picture in pictures if picture.label in enough]


def divide(pictures: Sequence[DemoPicture], *, shares: Sequence[float], seed: int) -> list[list[DemoPicture]]:
    """The pictures in random order, cut into parts of these shares."""
    mixed = sorted(pictures, key=lambda picture: picture.name)
    random.Random(seed).shuffle(mixed)  # noqa: S311 -- an order for a demo, no secret
    parts, start, total = [], 0.0, 0.0
    for share in shares:
        total += share
        parts.append(mixed[round(start * len(mixed)) : round(total * len(mixed))])
        start = total
    return parts


def through_worse_camera(data: bytes) -> bytes:
    """The same picture from a camera that is darker, out of focus and of lower contrast, as JPEG."""
    from PIL import Image, ImageEnhance, ImageFilter

    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGB")
    image = image.filter(ImageFilter.GaussianBlur(min(image.size) / 28))
    image = ImageEnhance.Contrast(image).enhance(0.6)
    image = ImageEnhance.Brightness(image).enhance(0.5)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()
