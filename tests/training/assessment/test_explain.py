"""Activation maps show the place that speaks for a class, however the network pools."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from keepsight.errors import NotFoundError, PictureError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.training.assessment.explain import class_activation_map, overlay
from keepsight.training.head import Head, OutOfFold
from keepsight.training.onnxhead import merge
from tests.training.assessment import pooled


def png(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def corner() -> bytes:
    """A blue picture with a red square at the top left."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[..., 2] = 200
    pixels[:4, :4] = (255, 0, 0)
    return png(pixels)


@pytest.mark.parametrize("kind", [kind for kind in pooled.KINDS if kind != "tokens"])
def test_the_place_that_speaks_for_a_class_glows(kind: str, corner: bytes) -> None:
    model = pooled.bundle(kind)
    red = class_activation_map(model, corner, label="red")
    assert red is not None
    assert red.shape == (4, 4)
    assert red.dtype == np.float32
    assert red.argmax() == 0
    assert red[0, 0] == 1
    assert red[1:, 1:].max() < 0.01
    blue = class_activation_map(model, corner)
    assert blue is not None
    assert blue[0, 0] == 0
    assert blue[2, 2] == 1


def test_with_plain_pooling_the_map_is_the_sum_of_the_weights(corner: bytes) -> None:
    found = class_activation_map(pooled.bundle(), corner, label="blue")
    assert found is not None
    expected = np.full((4, 4), 2 * 200 / 255)
    expected[0, 0] = 0.0
    np.testing.assert_allclose(found, expected / expected.max(), atol=1e-3)


def test_a_head_that_takes_roots_is_explained_too(corner: bytes) -> None:
    nothing = OutOfFold(np.zeros((0, 3), np.float32), np.zeros(0, np.bool_), None, None, None, None)
    head = Head(pooled.WEIGHT, np.zeros(3, np.float32), 0.5, 1.0, 1.0, 0.0, 0.0, nothing)
    base = pooled.bundle()
    made = type(base).create(base.info, model=merge(base.model(), head))
    found = class_activation_map(made, corner, label="red")
    assert found is not None
    assert found.argmax() == 0


def test_where_nothing_is_pooled_from_a_map_nothing_is_said(corner: bytes) -> None:
    assert class_activation_map(pooled.bundle("tokens"), corner) is None


def test_what_speaks_against_a_class_stays_dark() -> None:
    blue = np.zeros((16, 16, 3), np.uint8)
    blue[..., 2] = 200
    found = class_activation_map(pooled.bundle(), png(blue), label="green")
    assert found is not None
    assert not found.any()


def test_unknown_classes_and_broken_pictures_are_named(corner: bytes) -> None:
    with pytest.raises(NotFoundError, match="purple"):
        class_activation_map(pooled.bundle(), corner, label="purple")
    with pytest.raises(PictureError):
        class_activation_map(pooled.bundle(), b"no picture")


def test_the_overlay_lights_what_was_seen_and_nothing_outside_of_it() -> None:
    wide = np.full((60, 120, 3), 220, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[:, :2] = 1
    shown = Image.open(io.BytesIO(overlay(png(wide), heat, Preprocessing(size=16), side=80)))
    assert shown.format == "JPEG"
    assert shown.size == (80, 40)
    light = np.asarray(shown.convert("L"), np.float32)
    # The middle square runs from 20 to 60; its left half glows.
    assert light[20, 25] > 180
    assert light[20, 55] < 120
    assert light[20, 5] < 120
    assert light[20, 75] < 120
