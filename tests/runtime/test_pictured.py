"""An answer as a picture: only where a task makes one, from its answers and from annotations alike."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from keepsight.errors import BadInputError, PictureError, PictureTooLargeError
from keepsight.runtime import pictured
from keepsight.runtime.predictor import Predictor
from tests.matting import bundle, disc, photo, value

MASK = disc((120, 80))


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    return image


def test_an_answer_and_an_annotation_are_cut_out_at_full_size() -> None:
    data = photo(MASK)
    answer = Predictor(bundle()).predict(data).output.as_dict()
    for said in (answer, value(MASK)):
        made = opened(pictured.picture("segmentation", said, data))
        assert (made.mode, made.size) == ("RGBA", (120, 80))
        alpha = np.asarray(made)[..., 3]
        assert alpha[40, 60] == 255
        assert alpha[2, 2] == 0
        white = np.asarray(opened(pictured.picture("segmentation", said, data, background=(255, 255, 255))))
        assert white[2, 2].tolist() == [255, 255, 255]


def test_a_task_without_pictures_says_so() -> None:
    assert pictured.offered("segmentation") is True
    assert pictured.offered("classification") is False
    with pytest.raises(BadInputError, match="classification are no pictures") as caught:
        pictured.picture("classification", {"label": "a"}, photo(MASK))
    assert "segmentation" in caught.value.expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("transparent", None),
        ("WHITE", (255, 255, 255)),
        ("#0f0", (0, 255, 0)),
        ("rgb(999,0,0)", (255, 0, 0)),
    ],
)
def test_colours(text: str, expected: tuple[int, int, int] | None) -> None:
    assert pictured.colour(text) == expected


def test_what_is_no_colour_is_told() -> None:
    with pytest.raises(BadInputError, match="no colour"):
        pictured.colour("whiteish")


def test_large_and_broken_pictures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PictureError):
        pictured.picture("segmentation", value(MASK), b"no picture")
    monkeypatch.setattr(pictured, "MOST_PIXELS", 100)
    with pytest.raises(PictureTooLargeError, match="120 x 80"):
        pictured.picture("segmentation", value(MASK), photo(MASK))
