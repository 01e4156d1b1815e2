"""Cells become faces, and faces are turned upright, whatever their size and tilt."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from keepsight.runtime.outputs.recognition import faces

SIZE = 640
CELLS = sum((SIZE // stride) ** 2 for stride in faces.STRIDES)


def put(cells: NDArray[np.float32], *, stride: int, column: int, row: int, side: float, score: float) -> None:
    """A face whose box has its middle in the cell's corner."""
    start = sum((SIZE // other) ** 2 for other in faces.STRIDES if other < stride)
    cell = cells[start + row * (SIZE // stride) + column]
    cell[:2] = score
    cell[2:4] = 0
    cell[4:6] = math.log(side / stride)
    cell[6:] = 0


def test_a_cell_becomes_a_face_in_pixels() -> None:
    cells = np.zeros((CELLS, 16), np.float32)
    put(cells, stride=16, column=10, row=20, side=64, score=0.9)
    found, best = faces.found_in(cells, size=SIZE)
    assert best == pytest.approx(0.9)
    assert found[0].box.tolist() == pytest.approx([128, 288, 192, 352])
    assert found[0].landmarks.tolist() == [[160, 320]] * 5


def test_the_likelier_of_two_overlapping_boxes_counts() -> None:
    cells = np.zeros((CELLS, 16), np.float32)
    put(cells, stride=16, column=10, row=20, side=64, score=0.8)
    put(cells, stride=16, column=11, row=20, side=64, score=0.95)
    put(cells, stride=32, column=15, row=5, side=90, score=0.75)
    put(cells, stride=8, column=70, row=70, side=30, score=0.5)
    found, _ = faces.found_in(cells, size=SIZE)
    assert [round(face.score, 2) for face in found] == [0.95, 0.75]


def test_nobody_is_told_with_the_best_score() -> None:
    cells = np.zeros((CELLS, 16), np.float32)
    put(cells, stride=8, column=7, row=7, side=30, score=0.4)
    found, best = faces.found_in(cells, size=SIZE)
    assert (found, round(best, 3)) == ([], 0.4)


@pytest.mark.parametrize(("scale", "degrees"), [(0.5, 0), (1.0, 30), (2.5, -25), (6.0, 10)])
def test_eyes_and_mouth_stand_where_the_template_has_them(scale: float, degrees: float) -> None:
    turn = math.radians(degrees)
    matrix = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    shift = np.array([500.0, 420.0])
    landmarks = faces.TEMPLATE @ matrix.T + shift
    image = Image.new("RGB", (1400, 1400))
    pen = ImageDraw.Draw(image)
    radius = 5 * scale
    for number, (x, y) in enumerate(landmarks):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 40 * number, 0))
    face = faces.aligned(np.asarray(image), landmarks)
    assert face.shape == (3, 112, 112)
    for number, (x, y) in enumerate(faces.TEMPLATE):
        seen = face[:, round(y - 0.5), round(x - 0.5)]
        assert seen[0] > 230, number
        assert seen[1] == pytest.approx(40 * number, abs=25)


def test_a_face_at_the_rim_is_filled_up() -> None:
    image = np.full((60, 60, 3), 200, np.uint8)
    face = faces.aligned(image, faces.TEMPLATE - 50)
    assert face.shape == (3, 112, 112)
    assert face.max() <= 200


def test_the_similarity_of_points_is_found() -> None:
    turn = 0.4
    matrix = 1.7 * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    found, shift = faces.similarity(faces.TEMPLATE, faces.TEMPLATE @ matrix.T + [3, -8])
    assert found == pytest.approx(matrix)
    assert shift == pytest.approx([3, -8])
