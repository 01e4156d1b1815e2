from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from keepsight.training.corruptions import Picture
from keepsight.training.finetune.suitability import unsuitable

NAMES = ("light", "flip", "rotation")


def pictures(count: int) -> tuple[list[Picture], NDArray[np.int64]]:
    """A bright spot on the left (0) or on the right (1)."""
    made = []
    for number in range(count):
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[12:20, 20:28] = 255
        made.append(pixels if number % 2 else np.ascontiguousarray(pixels[:, ::-1]))
    return made, np.arange(count) % 2


def side(given: list[Picture]) -> NDArray[np.int64]:
    return np.array([picture[:, 16:].sum() > picture[:, :16].sum() for picture in given], np.int64)


def test_mirror_images_that_show_another_class_are_left_out() -> None:
    made, labels = pictures(20)

    assert unsuitable(NAMES, made, labels, side, seed=0) == ("flip",)


def test_one_class_that_becomes_another_is_enough() -> None:
    made, labels = pictures(200)
    # Of twenty classes only the first is known by its side.
    labels = np.where(np.arange(200) % 20 == 0, 0, np.arange(200) % 20 + 1)

    def answer(given: list[Picture]) -> NDArray[np.int64]:
        return np.where((labels == 0) & (side(given) == 1), 7, labels)

    assert unsuitable(NAMES, made, labels, answer, seed=0) == ("flip",)


def test_pictures_that_look_alike_in_a_mirror_keep_it() -> None:
    made, labels = pictures(20)

    assert unsuitable(NAMES, made, labels, lambda given: labels, seed=0) == ()
    assert unsuitable(("light",), made, labels, side, seed=0) == ()
