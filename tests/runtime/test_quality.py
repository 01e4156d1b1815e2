"""The quality figures follow what a person sees, and the default limits leave normal pictures alone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from keepsight.errors import BadInputError
from keepsight.runtime.decode import PictureInfo, read
from keepsight.runtime.quality import REASON_TEXTS, Quality, QualityLimits, measure, reasons

Array = NDArray[np.uint8]


def judge(image: Array, *, limits: QualityLimits | None = None) -> tuple[Quality, tuple[str, ...]]:
    height, width = image.shape[:2]
    quality = measure(image, info=PictureInfo("png", width, height, 1, "RGB"))
    return quality, reasons(quality, limits=limits or QualityLimits())


def blurred(image: Array, radius: float) -> Array:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def test_blur_falls_with_every_step_of_blurring(scene: Array) -> None:
    figures = [judge(blurred(scene, radius))[0].blur for radius in (0, 2, 4, 8)]
    assert figures == sorted(figures, reverse=True)
    assert figures[0] > 5 * figures[-1]


def test_dimming_is_darkness_not_blur(scene: Array) -> None:
    light, dim = judge(scene)[0], judge((scene * 0.3).astype(np.uint8))[0]
    assert dim.blur > 0.9 * light.blur
    assert dim.brightness == pytest.approx(0.3 * light.brightness, rel=0.05)
    assert dim.contrast == pytest.approx(0.3 * light.contrast, rel=0.05)


def test_resolution_hardly_matters(scene: Array) -> None:
    smooth = blurred(scene, 1)
    large, small = judge(smooth)[0], judge(np.asarray(Image.fromarray(smooth).resize((320, 240))))[0]
    assert small.blur == pytest.approx(large.blur, rel=0.25)
    assert small.brightness == pytest.approx(large.brightness, rel=0.01)


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (np.random.default_rng(0).integers(0, 9, (100, 100, 3)).astype(np.uint8), "too_dark"),
        (np.full((100, 100, 3), 255, np.uint8), "too_bright"),
        (np.full((100, 100, 3), 90, np.uint8), "low_contrast"),
        (np.full((100, 100, 3), 90, np.uint8), "too_blurred"),
        (np.random.default_rng(0).integers(0, 255, (5, 100, 3)).astype(np.uint8), "too_small"),
    ],
)
def test_reasons(image: Array, code: str) -> None:
    found = judge(image)[1]
    assert code in found
    assert set(found) <= set(REASON_TEXTS)


def test_a_normal_picture_has_no_reason(scene: Array) -> None:
    assert judge(scene)[1] == ()
    assert judge(blurred(scene, 3))[1] == ()


def test_pictures_of_few_pixels_can_be_measured() -> None:
    for shape in ((1, 1), (2, 9), (3, 3), (1, 4000)):
        quality, _ = judge(np.full((*shape, 3), 50, np.uint8))
        assert quality.blur == 0


def test_limits_from_own_pictures(scene: Array) -> None:
    own = [judge((scene * (0.8 + index / 1000)).astype(np.uint8))[0] for index in range(200)]
    limits = QualityLimits.from_pictures(own)
    assert judge((scene * 0.9).astype(np.uint8), limits=limits)[1] == ()
    assert judge((scene * 0.5).astype(np.uint8), limits=limits)[1] == ("too_dark", "low_contrast")
    assert judge(blurred((scene * 0.9).astype(np.uint8), 3), limits=limits)[1] == ("too_blurred",)
    assert judge((scene * 1.05).clip(0, 255).astype(np.uint8), limits=limits)[1] == ("too_bright",)
    flagged = sum(bool(reasons(quality, limits=limits)) for quality in own)
    assert flagged <= 0.04 * len(own)


def test_limits_without_pictures_are_the_defaults() -> None:
    assert QualityLimits.from_pictures([]) == QualityLimits()


def test_limits_round_trip() -> None:
    limits = QualityLimits(min_blur=0.1, max_brightness=200.5, min_side=40)
    assert QualityLimits.from_dict(limits.as_dict()) == limits
    assert QualityLimits.from_dict({}) == QualityLimits()
    with pytest.raises(BadInputError, match="min_noise"):
        QualityLimits.from_dict({"min_noise": 3})
    with pytest.raises(BadInputError, match="quality limits are wrong"):
        QualityLimits.from_dict({"min_blur": "much"})


@pytest.mark.parametrize("method", [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_handwritten_digits_enlarged_from_8_pixels_pass(method: Image.Resampling) -> None:
    from sklearn.datasets import load_digits

    flagged = [found for digit in load_digits().images[:100] if (found := judge(enlarged(digit, method=method))[1])]
    assert flagged == []


def enlarged(digit: NDArray[np.float64], *, method: Image.Resampling) -> Array:
    small = Image.fromarray((digit * 255 / 16).astype(np.uint8)).convert("RGB")
    return np.asarray(small.resize((224, 224), method))


@pytest.mark.pictures
def test_grocery_photos_are_hardly_ever_flagged(test_data: Path) -> None:
    photos = sorted((test_data / "grocery-store" / "test").rglob("*.jpg"))[::12]
    assert len(photos) > 50
    found = []
    for path in photos:
        image, info = read(path.read_bytes(), min_side=224)
        found.append(reasons(measure(image, info=info), limits=QualityLimits()))
    assert sum(map(bool, found)) <= len(found) // 100


def test_figures_of_a_reduced_jpeg_match_the_full_picture(scene: Array) -> None:
    out = io.BytesIO()
    Image.fromarray(scene).save(out, "JPEG", quality=95)
    full, reduced = (
        measure(image, info=info) for image, info in (read(out.getvalue()), read(out.getvalue(), min_side=224))
    )
    assert reduced.brightness == pytest.approx(full.brightness, abs=1)
    assert reduced.contrast == pytest.approx(full.contrast, abs=1)
    assert (reduced.width, reduced.height) == (640, 480)
