"""Masks: what counts as one, and the figures of masks against masks."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepsight.errors import AnnotationError
from keepsight.runtime import rle
from keepsight.runtime.outputs.segmentation import write_matte
from keepsight.tasks import segmentation
from keepsight.tasks.segmentation import figures
from keepsight.tasks.segmentation.reading import from_polygons, mask_in
from tests.matting import disc, value

MASK = disc((40, 30), radius=0.4)


def png(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def prediction(mask: Any, *, matte: Any = None) -> dict[str, Any]:
    made = {**value(mask), "label": "", "confidence": 0.5}
    return made if matte is None else {**made, "matte": write_matte(matte)}


@pytest.mark.parametrize("before", ["", "data:image/png;base64,", " DATA:image/PNG;base64,"])
def test_a_mask_may_be_a_png_as_text(before: str) -> None:
    text = before + png(Image.fromarray(MASK.astype(np.uint8) * 255))
    assert segmentation.parse(text) == segmentation.parse({"mask": text}) == value(MASK)


def test_what_a_png_marks() -> None:
    grey = MASK.astype(np.uint8)
    clear = np.dstack([np.full((*MASK.shape, 3), 90, np.uint8), grey * 200])
    palette = Image.fromarray(grey * 3, "P")
    palette.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8, 7, 7, 7])
    for image in (
        Image.fromarray(grey * 255),
        Image.fromarray(grey),
        Image.fromarray(grey * 128 + 100),
        Image.fromarray(clear, "RGBA"),
        Image.fromarray(MASK),
        palette,
        Image.fromarray(grey.astype(np.uint16) * 60000),
    ):
        assert (mask_in(image) == MASK).all(), image.mode


def test_polygons_cover_whole_pixels() -> None:
    found = from_polygons([[10, 5, 20, 5, 20, 15, 10, 15]], size=[30, 40])
    assert found[5:15, 10:20].all()
    assert found.sum() <= 11 * 11
    two = {"size": [30, 40], "polygons": [[0, 0, 10, 0, 10, 10, 0, 10], [[20, 20], [30, 20], [30, 30]]]}
    area = rle.area(segmentation.parse(two)["mask"])
    assert 100 <= area <= 121 + 66


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (None, "missing"),
        (7, "int"),
        ({"boxes": []}, "boxes"),
        ("no png", "no readable PNG"),
        (base64.b64encode(b"GIF89a").decode(), "no readable PNG"),
        ({"size": [4, 4], "counts": "04"}, "fill"),
        ({"size": [0, 4], "counts": ""}, "size"),
        ({"size": [4, 4], "polygons": []}, "no polygon"),
        ({"size": [4, 4], "polygons": [[1, 1, 2, 2]]}, "2 points"),
        ({"size": [4, 4], "polygons": [[1, 1, 2, 2, 9, 9]]}, "outside the picture"),
        ({"polygons": [[1, 1, 2, 2, 3, 3]]}, "size of the picture"),
        ({"size": [4, 4], "polygons": ["abc"]}, "polygon 1"),
    ],
)
def test_what_is_no_mask_is_refused_with_its_reason(raw: Any, told: str) -> None:
    with pytest.raises(AnnotationError, match=told):
        segmentation.parse(raw)


def test_an_empty_mask_is_a_prediction_but_no_annotation() -> None:
    nothing = rle.encode(np.zeros((3, 4), np.bool_))
    assert segmentation.summary(segmentation.parse(nothing)) == "nothing"
    with pytest.raises(AnnotationError, match="empty"):
        segmentation.canonical({"mask": nothing})


def test_a_mask_of_another_size_does_not_fit() -> None:
    segmentation.fits(value(MASK), (40, 30))
    with pytest.raises(AnnotationError, match="40 x 30 pixels, its picture 80 x 60") as caught:
        segmentation.fits(value(MASK), (80, 60))
    assert "full size" in caught.value.do
    with pytest.raises(AnnotationError) as turned:
        segmentation.fits(value(MASK), (30, 40))
    assert "EXIF" in turned.value.do
    other = value(disc((30, 40)))
    assert segmentation.score(prediction(MASK), other) == 0
    assert segmentation.right(prediction(MASK), other) is False


def test_right_begins_at_an_overlap_of_nine_tenths() -> None:
    whole, most = np.zeros((10, 10), np.bool_), np.zeros((10, 10), np.bool_)
    whole.flat[:100], most.flat[:90] = True, True
    assert segmentation.score(prediction(most), value(whole)) == pytest.approx(0.9)
    assert segmentation.right(prediction(most), value(whole)) is True
    most.flat[89] = False
    assert segmentation.right(prediction(most), value(whole)) is False


def test_the_outline_may_be_off_by_the_tolerance() -> None:
    size = (400, 300)  # a diagonal of 500 pixels: 4 pixels may be off
    true = np.zeros((size[1], size[0]), np.bool_)
    true[100:200, 100:300] = True
    assert figures.boundary_f(true, true) == 1
    near, far = np.roll(true, 4, axis=1), np.roll(true, 12, axis=1)
    assert figures.boundary_f(near, true) == 1
    assert 0.5 < figures.boundary_f(far, true) < 0.8
    nothing = np.zeros_like(true)
    assert figures.boundary_f(nothing, true) == 0
    assert figures.boundary_f(nothing, nothing) == 1


def test_large_masks_are_compared_at_1024_pixels() -> None:
    true = disc((3000, 2000), radius=0.4)
    assert figures.boundary_f(true, true) == 1
    # 0.8 % of the diagonal are 29 of these pixels, rounded up at the smaller size to 30.
    assert figures.boundary_f(np.roll(true, 20, axis=1), true) > 0.99


def test_figures_of_pictures_with_their_intervals() -> None:
    truths = [value(disc((40, 30), radius=radius)) for radius in (0.2, 0.3, 0.4, 0.45)]
    said = [{**truth, "label": "", "confidence": 0.5} for truth in truths]
    said[3] = prediction(disc((40, 30), radius=0.2))
    found = segmentation.evaluate([*said, None], [*truths, truths[0]], names=(), seed=1)
    expected = (3 + figures.overlap(said[3]["mask"], truths[3]["mask"])) / 5
    assert found.iou.value == pytest.approx(expected)
    assert found.iou.low <= expected <= found.iou.high <= 1
    assert found.right.value == pytest.approx(3 / 5)
    assert found.unread == 1
    assert found.worst[:2] == (4, 3)
    assert found.as_dict()["right_from_iou"] == 0.9
    same = segmentation.evaluate(said[:3], truths[:3], names=(), seed=1, groups=["one"] * 3)
    assert (same.iou.value, same.iou.low, same.iou.high) == (1, 0, 1)


def test_the_error_of_a_soft_matte_is_measured_where_there_is_one() -> None:
    half = np.full((8, 8), 128, np.uint8)
    found = segmentation.evaluate([prediction(MASK, matte=half)], [value(MASK)], names=(), seed=0)
    assert found.mae.value == pytest.approx(0.5, abs=0.01)
    assert segmentation.evaluate([prediction(MASK)], [value(MASK)], names=(), seed=0).mae.value == 0


def test_foregrounds_are_small_middling_or_large() -> None:
    found = [segmentation.stratum(value(disc((40, 30), radius=radius))) for radius in (0.1, 0.35, 0.7)]
    assert found == ["small", "middling", "large"]
