"""What the first bytes of a file say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsight.errors import PictureError
from keepsight.runtime.headers import exif_orientation, jpeg_header, sniff


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "empty"),
        (b"A shopping list: milk, bread\n" * 40, "a text file"),
        ("Einkaufsliste: Käse ".encode() * 60, "a text file"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "a HEIC picture"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00", "a HEIC picture"),
        (b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00", "an AVIF picture"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00", "a video"),
        (b'<?xml version="1.0"?>\n<svg width="3">', "an SVG drawing"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"PK\x03\x04abc", "a ZIP archive"),
        (b"\x00\x01\x02\x03\xfe\xff" * 9, "no known picture format"),
    ],
)
def test_other_files_are_named(data: bytes, named: str) -> None:
    with pytest.raises(PictureError) as caught:
        sniff(data)
    assert named in caught.value.found
    assert "JPEG" in caught.value.expected
    assert caught.value.do


def test_heic_tells_to_convert() -> None:
    with pytest.raises(PictureError, match="Convert it to JPEG"):
        sniff(b"\x00\x00\x00\x18ftypheic")


def test_breaking_off_in_the_header_is_said() -> None:
    with pytest.raises(PictureError, match="breaks off in its header"):
        jpeg_header(b"\xff\xd8\xff\xe0\x00\x10JFIF")


@given(st.binary(max_size=200))
def test_any_exif_block_gives_an_orientation(block: bytes) -> None:
    assert 1 <= exif_orientation(b"Exif\x00\x00" + block) <= 8
    assert 1 <= exif_orientation(b"II*\x00" + block) <= 8


@given(st.binary(max_size=300))
def test_any_bytes_after_the_jpeg_mark_give_a_header_or_a_picture_error(tail: bytes) -> None:
    try:
        header = jpeg_header(b"\xff\xd8" + tail)
    except PictureError:
        return
    assert header.width > 0
    assert header.height > 0
