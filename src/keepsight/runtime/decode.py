"""Picture bytes to RGB arrays: the one decode path of training, evaluation and serving.

JPEG goes through simplejpeg (libjpeg-turbo), decoded at reduced scale where the caller needs less than half the size;
the other formats go through Pillow, in bands, so that a large picture is never held twice. EXIF orientation is applied,
transparency lies on white, 16-bit greyscale is scaled (not clipped), of an animation the first frame counts.
Colour profiles are ignored, as the networks' training data were read without them.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from keepsight.errors import PictureError, PictureTooLargeError
from keepsight.runtime.headers import JpegHeader, exif_orientation, jpeg_header, sniff

Picture = NDArray[np.uint8]

# The plug-ins are called directly: `Image.open` would try formats we do not take and apply Pillow's global limits.
_PLUGINS: dict[str, type[ImageFile]] = {
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
}
# These plug-ins check Pillow's own limit inside; staying under it keeps its warnings out of the logs.
_PILLOW_LIMIT_SHARE = {"gif": 1, "tiff": 1, "webp": 2}

# What Pillow's decoders are known to raise on damaged bytes. Warning: where the caller turned warnings into errors.
_DAMAGE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError,
    TypeError, ValueError, Warning, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

_JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
# What libjpeg-turbo says where the strict decoder stops although the picture is whole (sloppy camera software), and
# where it lacks the chroma layout. Pillow reads these, and finds truncation by itself.
_PILLOW_READS = re.compile(r"extraneous bytes|JFIF revision|Adobe color transform|subsampling|Unsupported color conv")

_BAND_PIXELS = 4_000_000
_TRUNCATED = re.compile(
    r"premature|truncat|end of (file|data)|not processed|broken data|unrecognized data stream", re.I
)


@dataclass(frozen=True)
class Limits:
    """How large a picture may be (protection against decompression bombs)."""

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 200_000_000


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class PictureInfo:
    """What the header of a picture says.

    Attributes:
        format: "jpeg", "png", "webp", "gif", "tiff" or "bmp".
        width: Pixels from left to right as a person sees it, EXIF orientation applied.
        height: Pixels from top to bottom, likewise.
        orientation: The EXIF orientation as stored, 1 (upright) to 8.
        mode: Pillow's name of the stored pixel layout ("RGB", "L", "CMYK", "P", "I;16", ...).
    """

    format: str
    width: int
    height: int
    orientation: int
    mode: str


def probe(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> PictureInfo:
    """Format, size and orientation of a picture from its header alone; no pixel is decoded.

    Raises:
        PictureError: No readable picture.
        PictureTooLargeError: More bytes or pixels than `limits` allow.
    """
    return _open(data, limits=limits)[0]


def decode(data: bytes, *, min_side: int | None = None, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """The picture as an upright RGB array of shape (height, width, 3), uint8.

    Args:
        data: The file's bytes.
        min_side: The shorter side may be reduced (box averaging or DCT scaling) to any size that is at least this many
            pixels. None decodes at full size; a picture smaller than this keeps its size.
        limits: The largest picture taken.

    Raises:
        PictureError: The bytes are no picture, damaged or incomplete.
        PictureTooLargeError: More bytes or pixels than `limits` allow.
    """
    return read(data, min_side=min_side, limits=limits)[0]


def read(data: bytes, *, min_side: int | None = None, limits: Limits = DEFAULT_LIMITS) -> tuple[Picture, PictureInfo]:
    """The same as `decode`, together with what `probe` says, for the price of one."""
    info, source = _open(data, limits=limits)
    if isinstance(source, JpegHeader):
        image = _decode_jpeg(data, min_side=min_side)
    else:
        image = _decode_pillow(source, min_side=min_side)
    if info.format != "tiff":  # Pillow has turned TIFF pictures while loading them
        image = _upright(image, info.orientation)
    return image, info


def _open(data: bytes, *, limits: Limits) -> tuple[PictureInfo, JpegHeader | ImageFile]:
    """Header facts within the limits, and the opened (not yet decoded) picture."""
    if len(data) > limits.max_bytes:
        raise PictureTooLargeError(
            f"The picture file has {len(data):,} bytes.",
            expected=f"at most {limits.max_bytes:,} bytes.",
            do="Send a smaller version of the picture, or raise the limit in the settings.",
            size_bytes=len(data),
            max_bytes=limits.max_bytes,
        )
    name = sniff(data)
    source: JpegHeader | ImageFile
    if name == "jpeg":
        source = jpeg_header(data)
        width, height, orientation = source.width, source.height, source.orientation
        mode = _JPEG_MODES.get(source.components, f"{source.components} components")
    else:
        source, orientation = _open_pillow(data, name=name)
        width, height = source.size
        mode = source.mode
    most = _most_pixels(name, limits=limits)
    if width * height > most:
        raise PictureTooLargeError(
            f"The {name.upper()} picture has {width:,} x {height:,} = {width * height:,} pixels.",
            expected=f"at most {most:,} pixels.",
            do="Scale the picture down before sending it, or raise the limit in the settings.",
            width=width,
            height=height,
            max_pixels=most,
        )
    if orientation >= 5 and name != "tiff":
        width, height = height, width
    return PictureInfo(name, width, height, orientation, mode), source


def _most_pixels(name: str, *, limits: Limits) -> int:
    if name in _PILLOW_LIMIT_SHARE and Image.MAX_IMAGE_PIXELS is not None:
        return min(limits.max_pixels, Image.MAX_IMAGE_PIXELS * _PILLOW_LIMIT_SHARE[name])
    return limits.max_pixels


def _damaged(name: str, error: BaseException) -> PictureError:
    reason = str(error) or type(error).__name__
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return PictureTooLargeError(
            f"The {name.upper()} picture has a part with too many pixels ({reason}).",
            expected="a picture within the limits, in all its frames and tiles.",
            do="Scale the picture down, or save it as JPEG or PNG.",
        )
    if _TRUNCATED.search(reason):
        return PictureError(
            f"The {name.upper()} picture is incomplete: its data end too early ({reason}).",
            expected="a complete picture file.",
            do="Copy or upload the file again; the last transfer was probably cut short.",
            reason=reason,
        )
    return PictureError(
        f"The {name.upper()} picture is damaged and cannot be decoded ({reason}).",
        expected="an intact picture file.",
        do="Open it in a picture program and save it again, or leave it out.",
        reason=reason,
    )


def _too_much_memory(name: str) -> PictureTooLargeError:
    return PictureTooLargeError(
        f"Decoding the {name.upper()} picture needs more memory than this machine has left.",
        expected="a picture that fits into memory.",
        do="Scale the picture down before sending it.",
    )


def _decode_jpeg(data: bytes, *, min_side: int | None) -> Picture:
    # A factor between 1 and 2 (5/8, 6/8, 7/8) takes libjpeg-turbo longer than decoding at full size: it has no SIMD
    # code for them. So: half or less, or all of it.
    side = min_side or 0
    factor = 2 if side else 1
    try:
        image: Picture = simplejpeg.decode_jpeg(
            data, colorspace="RGB", min_height=side, min_width=side, min_factor=factor, strict=True
        )
    except MemoryError as error:
        raise _too_much_memory("jpeg") from error
    except (ValueError, OverflowError) as error:
        if not _PILLOW_READS.search(str(error)):
            raise _damaged("jpeg", error) from error
        source, _ = _open_pillow(data, name="jpeg")
        return _decode_pillow(source, min_side=min_side)
    return image


def _open_pillow(data: bytes, *, name: str) -> tuple[ImageFile, int]:
    """The opened picture and its EXIF orientation."""
    try:
        source = _PLUGINS[name](io.BytesIO(data))
        orientation = _stored_orientation(source)
    except MemoryError as error:
        raise _too_much_memory(name) from error
    except _DAMAGE as error:
        raise _damaged(name, error) from error
    return source, orientation


def _stored_orientation(source: ImageFile) -> int:
    if isinstance(source, TiffImagePlugin.TiffImageFile):
        value = source.tag_v2.get(274, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1
    block = source.info.get("exif")
    return exif_orientation(block) if isinstance(block, bytes) else 1


def _decode_pillow(source: ImageFile, *, min_side: int | None) -> Picture:
    """RGB pixels in stored orientation (TIFF: upright), reduced by a whole factor where `min_side` allows it.

    The work goes in bands of about four million pixels: conversion to RGB needs several copies, and only of a band.
    """
    name = (source.format or "picture").lower()
    try:
        source.load()
        width, height = source.size
        factor = max(1, min(width, height) // min_side) if min_side else 1
        out = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
        step = max(1, _BAND_PIXELS // (width * factor)) * factor
        for top in range(0, height, step):
            band = _to_rgb(source.crop((0, top, width, min(top + step, height))))
            if factor > 1:
                band = band.reduce(factor)
            out[top // factor : top // factor + band.height] = np.asarray(band)
    except MemoryError as error:
        raise _too_much_memory(name) from error
    except _DAMAGE as error:
        raise _damaged(name, error) from error
    return out


def _to_rgb(band: Image.Image) -> Image.Image:
    """A part of a picture in any of Pillow's layouts as 8-bit RGB, transparency over white."""
    if band.mode.startswith("I;16"):
        wide: NDArray[np.uint16] = np.asarray(band).astype(np.uint16, copy=False)
        transparent = band.info.get("transparency")
        grey = ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)
        if isinstance(transparent, int):
            grey[wide == transparent] = 255
        return Image.fromarray(grey).convert("RGB")
    if band.mode in ("I", "F"):
        raise PictureError(
            f"The picture stores its pixels as {'32-bit whole' if band.mode == 'I' else 'floating-point'} numbers.",
            expected="8 or 16 bits per channel.",
            do="Save it as an 8-bit or 16-bit picture; what counts as white is not known otherwise.",
            mode=band.mode,
        )
    if band.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in band.info:
        # Through RGBA in any case: a palette's transparency has no direct way to RGB. La has none but to LA.
        if band.mode == "La":
            band = band.convert("LA")
        seen = band.convert("RGBA")
        white = Image.new("RGB", seen.size, (255, 255, 255))
        white.paste(seen, mask=seen.getchannel("A"))
        return white
    return band.convert("RGB")


def _upright(image: Picture, orientation: int) -> Picture:
    """The picture turned and mirrored as its EXIF orientation asks."""
    if orientation == 1:
        return image
    turned: NDArray[Any] = image.transpose(1, 0, 2) if orientation >= 5 else image
    # Orientations by what remains to be done after the transposition of 5 to 8: mirror rows, mirror columns.
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)
