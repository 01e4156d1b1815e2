"""Boxes move along with what they are about."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepsight.runtime.preprocess import Preprocessing
from keepsight.training.detection.views import Seen, Views

SIZE = 96
BOX = (0.25, 0.25, 0.5, 0.75)


def picture(seed: int) -> bytes:
    """Dark, with one white rectangle."""
    pixels = np.full((90, 160, 3), 20 + seed, np.uint8)
    x1, y1, x2, y2 = (round(side * share) for side, share in zip((160, 90, 160, 90), BOX, strict=True))
    pixels[y1:y2, x1:x2] = 240
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def views(*augmentations: str, fit: str = "stretch", read: Any = picture) -> Views:
    return Views(
        preprocessing=Preprocessing(size=SIZE, fit=fit),
        augmentations=augmentations,
        boxes=tuple(np.array([BOX], np.float32) for _ in range(4)),
        labels=tuple(np.array([place % 2]) for place in range(4)),
        read=read,
        seed=0,
    )


def inside(seen: Seen) -> float:
    """The share of light places that lie in boxes, and of places in boxes that are light: the smaller one."""
    light = seen.image[0] * 128 + 127 > 150
    boxed = np.zeros((SIZE, SIZE), np.bool_)
    for x1, y1, x2, y2 in seen.boxes.round().astype(int):
        boxed[y1:y2, x1:x2] = True
    both = (light & boxed).sum()
    return float(min(both / max(1, light.sum()), both / max(1, boxed.sum())))


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_boxes_stay_on_their_things(fit: str) -> None:
    shown = [views("crop", "flip", fit=fit).random(0, np.array([1, 2, 3]), draw=(step, 0)) for step in range(60)]

    with_boxes = [each for each in shown if len(each.boxes)]
    # What is cut off at the rim by more than two thirds has no box, so a few views show light without one.
    assert len(with_boxes) > 45
    assert np.median([inside(each) for each in with_boxes]) > 0.9
    assert max(len(each.boxes) for each in shown) > 1, "mosaics show several pictures"
    for each in with_boxes:
        assert (each.boxes >= 0).all()
        assert (each.boxes <= SIZE).all()
        assert (each.boxes[:, 2:] > each.boxes[:, :2]).all()
        assert each.image.shape == (3, SIZE, SIZE)
        assert each.labels.shape == (len(each.boxes),)


def test_without_changes_a_view_is_what_serving_sees() -> None:
    seen = views().random(1, np.array([0, 2, 3]), draw=(0, 0))
    plain = views().plain(1)

    assert plain is not None
    assert np.abs(seen.image - plain).max() < 0.05
    assert seen.boxes[0].tolist() == pytest.approx([SIZE * share for share in BOX], abs=0.01)
    assert seen.labels.tolist() == [1]


def test_a_view_is_decided_by_its_draw() -> None:
    made = [views("crop", "flip", "light").random(0, np.array([1, 2, 3]), draw=(5, number)) for number in (0, 0, 1)]

    assert np.array_equal(made[0].image, made[1].image)
    assert not np.array_equal(made[0].image, made[2].image)


def test_a_picture_that_is_gone_is_grey_and_has_no_boxes() -> None:
    seen = views("crop", read=lambda place: None).random(0, np.array([1, 2, 3]), draw=(0, 0))

    assert len(seen.boxes) == 0
    assert views(read=lambda place: b"no picture").plain(0) is None
