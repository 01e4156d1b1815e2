"""The numbers a network gets, and the digest that guards vectors against being mixed."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from keepsight.errors import BadInputError, PictureError
from keepsight.runtime.decode import decode
from keepsight.runtime.preprocess import Preprocessing

Array = NDArray[np.uint8]


def test_values_are_normalised_per_channel() -> None:
    preprocessing = Preprocessing(8, mean=(10, 20, 30), std=(2, 4, 5))
    image = np.empty((20, 30, 3), np.uint8)
    image[:] = (12, 28, 25)
    tensor = preprocessing.apply(image)
    assert tensor.shape == (3, 8, 8)
    assert tensor.dtype == np.float32
    assert tensor.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(tensor.mean(axis=(1, 2)), [1.0, 2.0, -1.0], rtol=1e-6)


def test_the_middle_square_is_taken() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 255
    tensor = Preprocessing(40, mean=(0, 0, 0), std=(255, 255, 255)).apply(image)
    np.testing.assert_array_equal(tensor, np.ones((3, 40, 40), np.float32))
    upright = Preprocessing(40, mean=(0, 0, 0), std=(255, 255, 255)).apply(image.transpose(1, 0, 2))
    np.testing.assert_array_equal(upright, np.ones((3, 40, 40), np.float32))


def test_crop_keeps_its_share_of_the_shorter_side() -> None:
    image = np.zeros((80, 80, 3), np.uint8)
    image[20:60, 20:60] = 255
    tensor = Preprocessing(20, mean=(0, 0, 0), std=(255, 255, 255), crop=0.5).apply(image)
    assert tensor[:, 1:-1, 1:-1].min() > 0.99  # the outermost pixels see a little of their neighbours, as in any resize
    assert tensor.min() > 0.5
    assert Preprocessing(224, crop=0.875).min_side == 256


def test_crop_equals_resizing_and_cutting(scene: Array) -> None:
    tensor = Preprocessing(224, mean=(0, 0, 0), std=(1, 1, 1), crop=0.875).apply(scene)
    whole = Image.fromarray(scene).resize((341, 256), Image.Resampling.BILINEAR)
    cut = np.asarray(whole.crop((58, 16, 58 + 224, 16 + 224))).transpose(2, 0, 1)
    assert np.abs(tensor - cut).mean() < 2


def test_small_and_extreme_pictures_work() -> None:
    for shape in ((1, 1), (1, 5000), (8, 8)):
        assert np.isfinite(Preprocessing(32).apply(np.full((*shape, 3), 9, np.uint8))).all()


def test_from_bytes_is_decode_and_apply(scene: Array, make_jpeg: Callable[..., bytes]) -> None:
    preprocessing = Preprocessing(96)
    data = make_jpeg(scene)
    tensor, small = preprocessing.from_bytes(data)
    np.testing.assert_array_equal(small, decode(data, min_side=96))
    np.testing.assert_array_equal(tensor, preprocessing.apply(small))
    with pytest.raises(PictureError):
        preprocessing.from_bytes(b"no picture")


@pytest.mark.parametrize("size", [64, 96, 224])
def test_reduced_jpeg_stays_close_to_full_decoding(size: int, scene: Array, make_jpeg: Callable[..., bytes]) -> None:
    preprocessing = Preprocessing(size, mean=(0, 0, 0), std=(1, 1, 1))
    data = make_jpeg(scene)
    full = preprocessing.apply(np.asarray(Image.open(io.BytesIO(data))))
    assert np.abs(preprocessing.from_bytes(data)[0] - full).mean() < 2.5


def test_png_and_jpeg_of_one_picture_agree(scene: Array, make_jpeg: Callable[..., bytes]) -> None:
    out = io.BytesIO()
    Image.fromarray(scene).save(out, "PNG")
    preprocessing = Preprocessing(96, mean=(0, 0, 0), std=(1, 1, 1))
    png, jpeg = preprocessing.from_bytes(out.getvalue())[0], preprocessing.from_bytes(make_jpeg(scene))[0]
    assert np.abs(png - jpeg).mean() < 2.5


def test_digest_is_stable_and_tells_settings_apart() -> None:
    # A change of this figure means that all cached vectors of all users are made anew: only with CODE_VERSION.
    assert Preprocessing(224).digest == "b99edcf39b810ecd5cf5ec9528a679828fe932f786cc887e10b3fd1c7c93347e"
    others = [
        Preprocessing(240),
        Preprocessing(224, crop=0.9),
        Preprocessing(224, std=(128, 128, 127)),
        Preprocessing(224, interpolation="bicubic"),
    ]
    assert len({Preprocessing(224).digest, *(other.digest for other in others)}) == 5
    assert Preprocessing(224, mean=(127, 127, 127)).digest == Preprocessing(224).digest


def test_round_trip() -> None:
    preprocessing = Preprocessing(260, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), crop=0.9)
    assert Preprocessing.from_dict(preprocessing.as_dict()) == preprocessing
    assert Preprocessing.from_dict({"size": 224, "mean": [127] * 3, "std": [128] * 3}) == Preprocessing(224)


@pytest.mark.parametrize(
    "values",
    [
        {"size": 0},
        {"size": 224, "mean": (1.0,)},
        {"size": 224, "std": (1.0, 0.0, 1.0)},
        {"size": 224, "crop": 0.0},
        {"size": 224, "crop": 1.1},
        {"size": 224, "mean": (float("nan"), 0.0, 0.0)},
        {"size": 224, "interpolation": "nearest"},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(BadInputError, match="cannot be carried out"):
        Preprocessing(**values)  # type: ignore[arg-type]  # wrong on purpose


def test_incomplete_settings_are_refused() -> None:
    with pytest.raises(BadInputError, match="std"):
        Preprocessing.from_dict({"size": 224, "mean": [1, 2, 3]})


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_that_are_no_pictures_are_refused(array: Array) -> None:
    with pytest.raises(BadInputError, match="shape"):
        Preprocessing(8).apply(array)
