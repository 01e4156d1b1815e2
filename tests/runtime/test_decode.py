"""Every kind of picture a customer may send comes out upright, in RGB, on white; everything else is a clear error."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from keepsight.errors import KeepsightError, PictureError, PictureTooLargeError
from keepsight.runtime.decode import DEFAULT_LIMITS, Limits, decode, probe, read

Array = NDArray[np.uint8]
Jpeg = Callable[..., bytes]


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def mean_difference(one: Array, other: Array) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())


@cache
def corners() -> Array:
    """24 x 40 pixels in four colours: red, green / blue, yellow; so that every turning shows."""
    image = np.empty((24, 40, 3), np.uint8)
    image[:12, :20], image[:12, 20:] = (220, 30, 30), (30, 200, 30)
    image[12:, :20], image[12:, 20:] = (30, 30, 220), (220, 220, 30)
    return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda image: image),
        (2, lambda image: image[:, ::-1]),
        (3, lambda image: image[::-1, ::-1]),
        (4, lambda image: image[::-1]),
        (5, lambda image: image.transpose(1, 0, 2)),
        (6, lambda image: np.rot90(image, -1)),
        (7, lambda image: image.transpose(1, 0, 2)[::-1, ::-1]),
        (8, np.rot90),
    ],
)
def test_exif_orientation_is_applied(kind: str, orientation: int, turn: Callable[[Array], Array]) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    special: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}
    data = encode(Image.fromarray(corners()), kind, exif=exif, **special.get(kind, {}))
    image, info = read(data)
    expected = turn(corners())
    assert mean_difference(image, expected) < 4
    assert (info.height, info.width) == expected.shape[:2]
    assert info.orientation == orientation
    assert image.flags["C_CONTIGUOUS"]


def test_probe_reads_the_header_alone(scene: Array, make_jpeg: Jpeg) -> None:
    data = make_jpeg(scene)
    info = probe(data[: len(data) // 3])
    assert (info.format, info.width, info.height, info.orientation, info.mode) == ("jpeg", 640, 480, 1, "RGB")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_formats(kind: str, scene: Array) -> None:
    data = encode(Image.fromarray(scene), kind, **({"lossless": True} if kind == "WEBP" else {}))
    image, info = read(data)
    assert info.format == kind.lower()
    assert mean_difference(image, scene) < (12 if kind == "GIF" else 0.01)


class TestJpeg:
    def test_full_size_equals_pillow(self, scene: Array, make_jpeg: Jpeg) -> None:
        data = make_jpeg(scene)
        assert mean_difference(decode(data), np.asarray(Image.open(io.BytesIO(data)))) < 0.5

    @pytest.mark.parametrize(
        ("min_side", "shape"), [(224, (240, 320)), (240, (240, 320)), (241, (480, 640)), (60, (60, 80))]
    )
    def test_reduced_scale_keeps_the_shorter_side(
        self, min_side: int, shape: tuple[int, int], scene: Array, make_jpeg: Jpeg
    ) -> None:
        assert decode(make_jpeg(scene), min_side=min_side).shape == (*shape, 3)

    def test_smaller_picture_keeps_its_size(self, make_jpeg: Jpeg) -> None:
        assert decode(make_jpeg(corners()), min_side=224).shape == (24, 40, 3)

    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"keep_rgb": True}, {"subsampling": "4:1:1"}])
    def test_kinds(self, options: dict[str, Any], scene: Array, make_jpeg: Jpeg) -> None:
        assert mean_difference(decode(make_jpeg(scene, **options)), scene) < 8

    def test_greyscale(self, scene: Array, make_jpeg: Jpeg) -> None:
        grey = Image.fromarray(scene).convert("L")
        image, info = read(make_jpeg(grey))
        assert info.mode == "L"
        assert mean_difference(image, np.asarray(grey.convert("RGB"))) < 3

    def test_cmyk_of_print_programs(self, scene: Array, make_jpeg: Jpeg) -> None:
        image, info = read(make_jpeg(Image.fromarray(scene).convert("CMYK"), subsampling=0))
        assert info.mode == "CMYK"
        assert mean_difference(image, scene) < 6

    def test_ycck(self) -> None:
        inks = 255 - np.asarray(Image.fromarray(corners()).convert("CMYK"))
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(inks), quality=95, colorspace="CMYK", colorsubsampling="444")
        assert simplejpeg.decode_jpeg_header(data)[2] == "YCCK"
        assert mean_difference(decode(data), corners()) < 6

    @pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
    @pytest.mark.parametrize("progressive", [False, True])
    @pytest.mark.parametrize("min_side", [None, 100])
    def test_truncation_is_an_error_not_grey(
        self, keep: float, progressive: bool, min_side: int | None, scene: Array, make_jpeg: Jpeg
    ) -> None:
        data = make_jpeg(scene, progressive=progressive)
        with pytest.raises(PictureError, match="incomplete") as caught:
            decode(data[: int(len(data) * keep)], min_side=min_side)
        assert "again" in caught.value.do

    def test_stray_bytes_of_sloppy_cameras_are_read(self, scene: Array, make_jpeg: Jpeg) -> None:
        data = make_jpeg(scene)
        sloppy = data[:-2] + b"\x01\x02\x03\x04\x05\x06\x07\x08" * 3 + data[-2:]
        with pytest.raises(ValueError, match="extraneous"):
            simplejpeg.decode_jpeg(sloppy)
        assert mean_difference(decode(sloppy, min_side=240), decode(data, min_side=240)) < 2

    def test_bytes_after_the_end_do_no_harm(self, scene: Array, make_jpeg: Jpeg) -> None:
        data = make_jpeg(scene)
        np.testing.assert_array_equal(decode(data + b"appended by a phone" * 9), decode(data))


class TestLayouts:
    def test_16_bit_greyscale_is_scaled_not_clipped(self) -> None:
        ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
        for kind in ("PNG", "TIFF"):
            image, info = read(encode(Image.fromarray(ramp), kind))
            assert info.mode.startswith("I;16")
            np.testing.assert_array_equal(image[..., 0], np.rint(ramp / 257).astype(np.uint8))
            np.testing.assert_array_equal(image[..., 0], image[..., 2])

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_transparency_lies_on_white(self, mode: str, kind: str) -> None:
        picture = Image.fromarray(corners()).convert(mode)
        alpha = np.full((24, 40), 255, np.uint8)
        alpha[:12] = 0
        picture.putalpha(Image.fromarray(alpha))
        image = decode(encode(picture, kind))
        assert (image[:12] == 255).all()
        opaque = np.asarray(Image.fromarray(corners()).convert("L" if mode == "LA" else "RGB").convert("RGB"))
        np.testing.assert_array_equal(image[12:], opaque[12:])

    def test_half_transparent_black_is_grey(self) -> None:
        image = decode(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "PNG"))
        assert abs(int(image[0, 0, 0]) - 127) <= 1

    def test_palette_with_transparency(self) -> None:
        picture = Image.fromarray(corners()).quantize(4)
        hidden = picture.getpixel((0, 0))
        image = decode(encode(picture, "PNG", transparency=hidden))
        assert (image[:12, :20] == 255).all()
        assert mean_difference(image[12:], corners()[12:]) < 1

    def test_palette_with_alpha_values(self) -> None:
        picture = Image.fromarray(corners()).convert("RGBA")
        picture.putalpha(128)
        data = encode(picture.quantize(8), "PNG")
        assert probe(data).mode == "P"
        assert mean_difference(decode(data), ((corners().astype(int) + 255) // 2).astype(np.uint8)) < 3

    def test_transparent_colour_of_rgb_and_grey(self) -> None:
        data = encode(Image.fromarray(corners()), "PNG", transparency=(220, 30, 30))
        assert (decode(data)[0, 0] == 255).all()
        grey = Image.new("L", (8, 8), 7)
        assert (decode(encode(grey, "PNG", transparency=7)) == 255).all()

    def test_one_bit(self) -> None:
        pattern = np.indices((16, 16)).sum(axis=0) % 2 == 1
        image = decode(encode(Image.fromarray(pattern), "TIFF"))
        np.testing.assert_array_equal(image[..., 1], pattern * 255)

    def test_cmyk_tiff(self) -> None:
        assert mean_difference(decode(encode(Image.fromarray(corners()).convert("CMYK"), "TIFF")), corners()) < 3

    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
    def test_first_frame_of_an_animation(self, kind: str) -> None:
        frames = [Image.new("RGB", (20, 16), colour) for colour in ("red", "blue")]
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
        image = decode(data)
        assert image.shape == (16, 20, 3)
        assert image[8, 8, 0] > 240
        assert image[8, 8, 2] < 15

    def test_floating_point_pixels_are_refused_in_words(self) -> None:
        data = encode(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
        with pytest.raises(PictureError, match="floating-point"):
            decode(data)

    def test_large_png_is_reduced_by_averaging(self) -> None:
        image = np.zeros((1203, 1001, 3), np.uint8)
        image[:, ::2] = 200  # one-pixel stripes: leaving out pixels instead of averaging would give 0 or 200
        reduced = decode(encode(Image.fromarray(image), "PNG"), min_side=200)
        assert reduced.shape == (241, 201, 3)
        assert reduced[:, :-1].min() > 75
        assert reduced[:, :-1].max() < 125

    def test_bands_join_without_seams(self, monkeypatch: pytest.MonkeyPatch, scene: Array) -> None:
        data = encode(Image.fromarray(scene), "PNG")
        whole, reduced = decode(data), decode(data, min_side=100)
        monkeypatch.setattr("keepsight.runtime.decode._BAND_PIXELS", 20_000)
        np.testing.assert_array_equal(decode(data), whole)
        np.testing.assert_array_equal(decode(data, min_side=100), reduced)


def tall_png(width: int, height: int) -> bytes:
    """A black PNG whose file is far smaller than its pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width)) for _ in range(min(height, 300))) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class TestLimits:
    @pytest.mark.parametrize("call", [probe, decode])
    def test_30000_pixels_square_png(self, call: Callable[[bytes], object]) -> None:
        with pytest.raises(PictureTooLargeError, match="30,000 x 30,000") as caught:
            call(tall_png(30_000, 30_000))
        assert caught.value.status == 413
        assert caught.value.details["max_pixels"] == 200_000_000

    def test_jpeg_that_claims_65500_pixels(self) -> None:
        data = bytearray(encode(Image.fromarray(corners()), "JPEG"))
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
        with pytest.raises(PictureTooLargeError):
            decode(bytes(data))

    @pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "BMP", "PNG", "JPEG"])
    def test_own_limits_hold_for_every_format(self, kind: str) -> None:
        data = encode(Image.fromarray(corners()), kind)
        assert probe(data, limits=Limits(max_pixels=960)).width == 40
        with pytest.raises(PictureTooLargeError):
            decode(data, limits=Limits(max_pixels=959))

    def test_too_many_bytes(self) -> None:
        with pytest.raises(PictureTooLargeError, match="bytes"):
            probe(b"\xff\xd8\xff" + bytes(2000), limits=Limits(max_bytes=1000))

    def test_between_pillows_limit_and_ours_no_warning_is_emitted(self) -> None:
        # 100 million pixels: Pillow's own open() would warn; the rows are missing, so decoding fails as incomplete.
        data = tall_png(10_000, 10_000)
        assert probe(data).width == 10_000

    def test_defaults(self) -> None:
        assert DEFAULT_LIMITS.max_bytes == 64 * 1024**2


@cache
def samples() -> list[bytes]:
    """One small file of each format, for damaging."""
    picture = Image.fromarray(corners())
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {}), ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {}),
    ]  # fmt: skip
    exif = Image.Exif()
    exif[274] = 6
    files = [encode(picture, kind, **options) for kind, options in kinds]
    files += [encode(picture, "JPEG", exif=exif), encode(picture.convert("CMYK"), "JPEG")]
    files += [encode(picture.quantize(8), "PNG"), encode(picture.convert("1"), "PNG")]
    return files


def decode_or_refuse(data: bytes) -> None:
    """Decoding gives a picture or one of our errors, whatever the bytes."""
    for min_side in (None, 8):
        try:
            image = decode(data, min_side=min_side, limits=Limits(max_pixels=4_000_000))
        except KeepsightError as error:
            assert error.found
            assert error.do
        else:
            assert image.dtype == np.uint8
            assert image.ndim == 3


@given(st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    decode_or_refuse(data)


@given(st.sampled_from(samples()), st.binary(max_size=200))
def test_random_bytes_after_a_genuine_start(sample: bytes, tail: bytes) -> None:
    decode_or_refuse(sample[:24] + tail)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(samples()), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), min_size=1, max_size=12))
def test_flipped_bits(sample: bytes, flips: list[tuple[float, int]]) -> None:
    damaged = bytearray(sample)
    for place, bit in flips:
        damaged[min(len(damaged) - 1, int(place * len(damaged)))] ^= 1 << bit
    decode_or_refuse(bytes(damaged))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(samples()), st.floats(0, 1))
def test_cut_off(sample: bytes, share: float) -> None:
    decode_or_refuse(sample[: int(share * len(sample))])


@pytest.mark.pictures
def test_real_photos_agree_with_pillow(test_data: Any) -> None:
    photos = sorted((test_data / "license-plates").rglob("*.jpg"))[:12]
    assert photos
    for path in photos:
        data = path.read_bytes()
        with Image.open(path) as opened:
            pillow = np.asarray(opened.convert("RGB"))
        assert mean_difference(decode(data), pillow) < 1
        small = decode(data, min_side=112)
        assert min(small.shape[:2]) >= min(112, *pillow.shape[:2])
        small_pillow = Image.fromarray(pillow).resize((small.shape[1], small.shape[0]), Image.Resampling.BOX)
        assert mean_difference(small, np.asarray(small_pillow)) < 2
