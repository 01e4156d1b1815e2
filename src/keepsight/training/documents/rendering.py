"""Lines of rendered text: what the own documents seldom show, and changed views of what they show."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

# What the font that Pillow brings can draw.
_DRAWN = frozenset(string.ascii_letters + string.digits + string.punctuation + " ")
_KINDS = (
    lambda random: f"{random.integers(1, 10000)}.{random.integers(0, 100):02}",
    lambda random: f"{random.integers(1, 29):02}/{random.integers(1, 13):02}/{random.integers(1990, 2040)}",
    lambda random: f"{_word(random, upper=True)}-{random.integers(10**5, 10**8)}",
    lambda random: " ".join(_word(random) for _ in range(int(random.integers(1, 5)))),
    lambda random: f"{_word(random, title=True)} {random.integers(1, 200)}, {random.integers(10000, 99999)}",
    lambda random: f"{_word(random)}@{_word(random)}.com",
    lambda random: f"({random.integers(10, 99)}%) {_word(random, title=True)}: ${random.integers(1, 999)}",
)


def general(count: int, characters: Sequence[str], *, seed: int) -> list[tuple[Image.Image, str]]:
    """Pictures of lines of general kind (amounts, dates, numbers, words in any case) and their texts."""
    random = np.random.default_rng(seed)
    texts = [_KINDS[number % len(_KINDS)](random) for number in range(count)]
    return [(_drawn(text, random=random), text) for text in texts if set(text) <= {*characters, " "}]


def lines(
    texts: Sequence[str], characters: Sequence[str], *, random: np.random.Generator
) -> list[tuple[Image.Image, str]]:
    """A picture for each text, half of them of the texts given and half of general kind."""
    result = []
    for text in texts:
        wanted = text if random.random() < 0.5 and set(text) <= _DRAWN and text.strip() else ""
        if not wanted:
            wanted = _KINDS[int(random.integers(len(_KINDS)))](random)
        wanted = "".join(sign for sign in wanted[:60] if sign in characters or sign == " ").strip() or "0"
        result.append((_drawn(wanted, random=random), wanted))
    return result


def varied(image: Image.Image, *, random: np.random.Generator) -> Image.Image:
    """A line's picture as another box, light or camera would give it: shifted rim, blur, contrast."""
    high = image.height
    rim = [int(value) for value in random.integers(-max(1, high // 12), max(2, high // 8), 4)]
    left, top, right, bottom = (max(-(high // 6), value) for value in rim)
    grown = image.crop((-left, -top, image.width + right, image.height + bottom))
    if left > 0 or top > 0 or right > 0 or bottom > 0:
        # What a crop finds outside is black; paper is not.
        paper = Image.new("RGB", grown.size, tuple(int(value) for value in np.asarray(image)[:1].mean(axis=(0, 1))))
        paper.paste(image, (left, top))
        grown = paper
    if random.random() < 0.3:
        grown = grown.filter(ImageFilter.GaussianBlur(float(random.uniform(0.2, 0.025 * high + 0.3))))
    if random.random() < 0.5:
        gain, shift = random.uniform(0.7, 1.2), random.uniform(-25, 25)
        grown = grown.point([int(np.clip(value * gain + shift, 0, 255)) for value in range(256)] * 3)
    return grown


def _word(random: np.random.Generator, *, upper: bool = False, title: bool = False) -> str:
    letters = "".join(random.choice(list(string.ascii_lowercase), int(random.integers(2, 9))))
    return letters.upper() if upper else letters.title() if title else letters


def _drawn(text: str, *, random: np.random.Generator) -> Image.Image:
    size = int(random.integers(18, 40))
    font = ImageFont.load_default(size)
    box = font.getbbox(text)
    paper, ink = int(random.integers(200, 256)), int(random.integers(0, 90))
    rim = int(random.integers(2, 7))
    picture = Image.new("RGB", (int(box[2]) + 2 * rim, int(box[3] - box[1]) + 2 * rim), (paper,) * 3)
    ImageDraw.Draw(picture).text((rim, rim - box[1]), text, fill=(ink,) * 3, font=font)
    if random.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(float(random.uniform(0.2, 1.0))))
    return picture
