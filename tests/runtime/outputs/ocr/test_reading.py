"""From a map of probability to rectangles, the order of reading, decoding, and pieces of text."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from keepsight.runtime.outputs.ocr import recognition
from keepsight.runtime.outputs.ocr.order import reading_order
from keepsight.runtime.outputs.ocr.regions import Reading, rectangles
from keepsight.runtime.outputs.ocr.text import normalised, pieces, summary

PLAIN = Reading(dilate=False, unclip=0.0)


def map_of(*polygons: list[tuple[float, float]], size: tuple[int, int] = (200, 100)) -> np.ndarray:
    image = Image.new("L", size)
    for polygon in polygons:
        ImageDraw.Draw(image).polygon(polygon, fill=255)
    return np.asarray(image, np.float32) / 255


def bar(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def test_each_line_has_a_rectangle() -> None:
    corners, means = rectangles(map_of(bar(10, 10, 90, 20), bar(120, 60, 180, 75)), reading=PLAIN, size=(200, 100))
    assert sorted(corners[:, 0].tolist()) == [[10, 10], [120, 60]]
    assert sorted(corners[:, 2].tolist()) == [[90, 20], [180, 75]]
    assert means == pytest.approx([1, 1])


def test_pixels_of_the_picture_and_growth() -> None:
    shares = map_of(bar(10, 10, 90, 20))
    corners, _ = rectangles(shares, reading=PLAIN, size=(400, 300))
    assert corners[0].tolist() == [[20, 30], [180, 30], [180, 60], [20, 60]]
    # Area 80 x 10 times 1.6 over circumference 180: 7 pixels on each side.
    grown, _ = rectangles(shares, reading=Reading(dilate=False, unclip=1.6), size=(200, 100))
    assert grown[0].tolist() == [[3, 3], [97, 3], [97, 27], [3, 27]]


def test_a_slanted_line_has_a_slanted_rectangle() -> None:
    angle = np.deg2rad(12)
    along, down = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    begin = np.array([30.0, 20.0])
    polygon = [begin, begin + 120 * along, begin + 120 * along + 14 * down, begin + 14 * down]
    corners, _ = rectangles(map_of([(x, y) for x, y in polygon]), reading=PLAIN, size=(200, 100))
    assert np.abs(corners[0] - np.array(polygon)).max() <= 2


def test_specks_and_doubtful_lines_are_none() -> None:
    shares = map_of(bar(10, 10, 12, 11), bar(50, 50, 120, 60))
    shares[40:70] *= 0.4
    assert len(rectangles(shares, reading=PLAIN, size=(200, 100))[0]) == 0
    assert len(rectangles(np.zeros((64, 64), np.float32), reading=PLAIN, size=(64, 64))[0]) == 0


def test_parts_that_touch_at_a_corner_are_one() -> None:
    shares = np.zeros((40, 60), np.float32)
    shares[10:15, 10:20] = 1
    shares[15:20, 20:30] = 1
    assert len(rectangles(shares, reading=PLAIN, size=(60, 40))[0]) == 1


def test_rows_from_left_to_right() -> None:
    receipt = [(200, 52, 260, 70), (20, 10, 260, 30), (20, 50, 150, 70), (20, 90, 120, 110), (210, 91, 260, 109)]
    assert reading_order(receipt) == [1, 2, 0, 3, 4]
    assert reading_order([]) == []


def test_two_columns_of_text_are_read_one_after_the_other() -> None:
    left = [(20, 60 + 30 * row, 200, 80 + 30 * row) for row in range(6)]
    right = [(260, 62 + 30 * row, 440, 82 + 30 * row) for row in range(6)]
    heading = (20, 10, 440, 34)
    boxes = [heading, *(box for pair in zip(left, right, strict=True) for box in pair)]
    assert [boxes[place] for place in reading_order(boxes)] == [heading, *left, *right]


def test_a_table_is_no_pair_of_columns() -> None:
    items = [(20, 30 * row, 220, 20 + 30 * row) for row in range(6)]
    amounts = [(300, 30 * row, 350, 20 + 30 * row) for row in range(6)]
    boxes = [*items, *amounts]
    rows = [boxes[place] for place in reading_order(boxes)]
    assert rows == [box for pair in zip(items, amounts, strict=True) for box in pair]


def test_decoding_takes_repeats_and_blanks_out() -> None:
    characters = ("a", "b")
    path = [0, 1, 1, 0, 1, 2, 3, 3, 0, 2]
    shares = np.full((len(path), 4), 0.1, np.float32)
    shares[np.arange(len(path)), path] = 0.7
    shares[5] = [0.1, 0.2, 0.5, 0.2]
    read = recognition.decode(shares, characters=characters)
    assert read.text == "aab b"
    assert read.confidence == pytest.approx((0.7 * 4 + 0.5) / 5)
    assert read.weakest == pytest.approx(0.5)
    assert recognition.decode(np.eye(3, dtype=np.float32)[[0, 0]], characters=("a",)).text == ""


def test_a_slanted_line_is_cut_out_upright() -> None:
    line = Image.new("RGB", (200, 100), "white")
    ImageDraw.Draw(line).rectangle((40, 40, 139, 59), fill="black")
    turned = line.rotate(-10, Image.Resampling.BICUBIC, fillcolor="white", center=(40, 40))
    angle = np.deg2rad(10)
    along, down = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    begin = np.array([40.0, 40.0])
    corners = np.array([begin, begin + 100 * along, begin + 100 * along + 20 * down, begin + 20 * down], np.float32)
    part = np.asarray(recognition.cut(turned, corners).convert("L"))
    assert abs(part.shape[1] - 100) <= 1
    assert part[3:-3, 3:-3].max() < 60


def test_pieces_and_what_counts() -> None:
    assert [piece.text for piece in pieces("RM 9.00, No.5")] == ["rm", "9", ".", "00", ",", "no", ".", "5"]
    assert normalised("RM 9.00") == normalised("rm９.00") == "rm9.00"
    assert normalised("NO. 5, JALAN 7/2 ,") == normalised("no 5 jalan 7/2")
    assert normalised("9.00") != normalised("900")
    assert normalised(" - ") == ""


def test_a_few_words() -> None:
    assert summary({"fields": {"total": "9.00", "date": "1/2/2026"}, "lines": []}) == "date: 1/2/2026, total: 9.00"
    assert summary({"lines": [{"text": "Hello"}, {"text": "World"}]}) == "Hello and 1 more line"
    assert summary({"fields": {"total": ""}}) == "no text"
    assert len(summary({"fields": {"address": "x" * 200}})) == 80
