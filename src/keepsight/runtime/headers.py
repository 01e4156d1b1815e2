"""What the first bytes of a picture say: its format, and for JPEG its size and EXIF orientation.

The JPEG walk is our own because it runs for every served picture: it costs about 10 microseconds, follows the same
markers as libjpeg, and emits no warnings (Python's warning filters cannot be changed safely from several threads).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from keepsight.errors import PictureError

KNOWN_FORMATS = ("jpeg", "png", "webp", "gif", "tiff", "bmp")
FORMATS_TEXT = "a JPEG, PNG, WebP, GIF, TIFF or BMP picture."

_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"BM", "bmp"),
)

# Other files that people send by mistake: (where, bytes, what it is).
_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\x00\x00\x01\x00", "an icon file"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x1aE\xdf\xa3", "a video"),
)
_FTYP_BRANDS: dict[bytes, str] = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "a HEIC picture"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture"),
    b"crx ": "a Canon raw picture",
}
_CONVERT = "Convert it to JPEG and send that (most phones and picture programs can export JPEG)."
_CHECK = "Check how the file was made; open it in a picture program and save it as JPEG or PNG."


def sniff(data: bytes) -> str:
    """The format of a picture file by its first bytes, one of `KNOWN_FORMATS`; the file's name plays no part.

    Raises:
        PictureError: Empty, or another kind of file, which is named where it is known.
    """
    for prefix, name in _PREFIXES:
        if data.startswith(prefix):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if not data:
        raise PictureError("The picture is empty (0 bytes).", expected=FORMATS_TEXT, do="Send the file again.")
    kind = _foreign(data)
    if kind is None:
        raise PictureError(
            f"The bytes are no known picture format (they begin with {data[:8].hex(' ')}).",
            expected=FORMATS_TEXT,
            do=_CHECK,
        )
    advice = _CONVERT if kind.endswith("picture") else _CHECK
    raise PictureError(f"The file is {kind}, which is not supported.", expected=FORMATS_TEXT, do=advice, kind=kind)


def _foreign(data: bytes) -> str | None:
    for at, magic, kind in _FOREIGN:
        if data[at : at + len(magic)] == magic:
            return kind
    if data[4:8] == b"ftyp":
        return _FTYP_BRANDS.get(bytes(data[8:12]), "a video")
    head = bytes(data[:512])
    try:
        text = head.decode("utf-8", errors="strict" if len(data) <= len(head) else "ignore")
    except UnicodeDecodeError:
        return None
    if any(not (char.isprintable() or char in "\r\n\t\f\ufeff") for char in text):
        return None
    start = text.lstrip("\ufeff \r\n\t").lower()
    if "<svg" in start:
        return "an SVG drawing"
    if start.startswith(("<!doctype", "<html")):
        return "a web page"
    return "a text file"


@dataclass(frozen=True)
class JpegHeader:
    """Size and layout of a JPEG as stored, before its orientation is applied."""

    width: int
    height: int
    components: int
    orientation: int


# Start-of-frame markers; C4 (Huffman tables), C8 (reserved) and CC (arithmetic tables) lie in their range.
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))


def jpeg_header(data: bytes) -> JpegHeader:
    """The size, number of components and EXIF orientation of a JPEG, from its markers alone.

    Raises:
        PictureError: The data end or break off before the size is known.
    """
    at, end, orientation = 2, len(data), 1
    while at + 4 <= end:
        if data[at] != 0xFF:  # libjpeg skips stray bytes between segments, so we do too
            at += 1
            continue
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _STANDALONE or marker == 0x00:
            at += 2
            continue
        if marker in (0xD9, 0xDA):
            break
        length = (data[at + 2] << 8) | data[at + 3]
        if length < 2:
            break
        if marker in _SOF:
            if at + 10 > end:
                break
            _, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            if not width or not height:
                break
            return JpegHeader(width, height, components, orientation)
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\x00\x00":
            orientation = exif_orientation(data[at + 10 : at + 2 + length])
        at += 2 + length
    raise PictureError(
        f"The JPEG breaks off in its header ({end:,} bytes); its size cannot be read.",
        expected="a complete JPEG file.",
        do="Copy or upload the file again; the last transfer was probably cut short.",
    )


def exif_orientation(block: bytes) -> int:
    """The orientation tag (274) of an EXIF block, 1 to 8; 1 where there is none or the block is damaged.

    A damaged EXIF block says nothing about the pixels, so it does not make the picture unreadable.
    """
    if block[:6] == b"Exif\x00\x00":
        block = block[6:]
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    if order is None or len(block) < 8:
        return 1
    (first,) = struct.unpack_from(order + "I", block, 4)
    if first + 2 > len(block):
        return 1
    (count,) = struct.unpack_from(order + "H", block, first)
    for index in range(count):
        entry = first + 2 + 12 * index
        if entry + 10 > len(block):
            return 1
        tag, kind = struct.unpack_from(order + "HH", block, entry)
        if tag == 274:
            # Type 3 is a 16-bit number as the standard says; some cameras write type 4 (32 bits).
            (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), block, entry + 8)
            return int(value) if 1 <= value <= 8 else 1
    return 1
