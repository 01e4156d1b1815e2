"""Faces in a picture: from the detector's cells to boxes and landmarks, and each face turned upright and cut out.

The detector's tensor is that of ``keepsight.zoo.faces``; boxes and landmarks come in the pixels of its input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keepsight.runtime.decode import Picture

STRIDES = (8, 16, 32)
FACE_SIZE = 112
# A cell is a face from here on; below, the best cell tells how sure "nobody" is.
LEAST_SCORE = 0.7
# Of two boxes that overlap more, the likelier one counts.
MOST_OVERLAP = 0.3
# Where the eyes, the nose and the corners of the mouth stand in an aligned face of 112 pixels (Deng et al. 2019).
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float64
)


@dataclass(frozen=True)
class Face:
    """One face: box (x1, y1, x2, y2), landmarks (5, 2), both in pixels, and how likely it is one, 0 to 1."""

    box: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    score: float


def found_in(cells: NDArray[np.float32], *, size: int) -> tuple[list[Face], float]:
    """The faces in the cells (m, 16) of one picture, the likeliest first, and the best score of any cell.

    Args:
        cells: Class and objectness (0 to 1), box and landmarks relative to the cell, strides 8, 16 and 32.
        size: Side of the detector's input.
    """
    scores = np.sqrt(cells[:, 0].clip(0, 1) * cells[:, 1].clip(0, 1))
    places = np.flatnonzero(scores >= LEAST_SCORE)
    best = float(scores.max(initial=0.0))
    if not len(places):
        return [], best
    x, y, stride = _grid(size)
    x, y, stride = x[places], y[places], stride[places]
    values = cells[places].astype(np.float64)
    middle_x, middle_y = (x + values[:, 2]) * stride, (y + values[:, 3]) * stride
    half_w, half_h = np.exp(values[:, 4]) * stride / 2, np.exp(values[:, 5]) * stride / 2
    boxes = np.stack([middle_x - half_w, middle_y - half_h, middle_x + half_w, middle_y + half_h], axis=1)
    landmarks = (values[:, 6:].reshape(-1, 5, 2) + np.stack([x, y], axis=1)[:, None]) * stride[:, None, None]
    kept: list[int] = []
    for place in np.argsort(-scores[places], kind="stable"):
        if all(overlap(boxes[place], boxes[other]) <= MOST_OVERLAP for other in kept):
            kept.append(int(place))
    return [Face(boxes[place], landmarks[place], float(scores[places[place]])) for place in kept], best


def overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    areas = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]))
    return shared / max(areas - shared, 1e-12)


def aligned(image: Picture, landmarks: NDArray[np.float64]) -> NDArray[np.float32]:
    """The face as the embedder takes it: float32 (3, 112, 112), 0 to 255, eyes level, the template's size.

    The map from the template to the picture is the similarity that fits the five landmarks best (Umeyama 1991). A face
    much larger than the template is first reduced by a whole factor, so that no pixel is passed over.
    """
    matrix, shift = similarity(TEMPLATE, landmarks)
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    corners = np.array([[0, 0], [FACE_SIZE, 0], [0, FACE_SIZE], [FACE_SIZE, FACE_SIZE]]) @ matrix.T + shift
    height, width = image.shape[:2]
    left, top = np.clip(np.floor(corners.min(axis=0)).astype(int) - 2, 0, [width - 1, height - 1])
    right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 2, [left + 1, top + 1], [width, height])
    part = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    factor = max(1, int(scale))
    if factor > 1:
        part = part.reduce(factor)
    # Pillow asks for each pixel of the result where it comes from, in pixels of the reduced part.
    a, b = matrix / factor, (shift - [left, top]) / factor
    face = part.transform(
        (FACE_SIZE, FACE_SIZE),
        Image.Transform.AFFINE,
        (a[0, 0], a[0, 1], b[0], a[1, 0], a[1, 1], b[1]),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(face, np.float32).transpose(2, 0, 1)


def similarity(
    source: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix (2, 2) and shift (2,) of the rotation, scaling and move that best bring points onto others (no mirror)."""
    middle, aim = source.mean(axis=0), target.mean(axis=0)
    from_, to = source - middle, target - aim
    left, spread, right = np.linalg.svd(to.T @ from_ / len(source))
    sign = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    scale = float((spread * sign).sum()) / max(float(from_.var(axis=0).sum()), 1e-12)
    matrix = scale * (left * sign) @ right
    return matrix, aim - matrix @ middle


def _grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Column, row and stride of every cell, in the tensor's order."""
    columns, rows, strides = [], [], []
    for stride in STRIDES:
        side = size // stride
        y, x = np.mgrid[:side, :side]
        columns.append(x.ravel())
        rows.append(y.ravel())
        strides.append(np.full(side * side, stride))
    return tuple(np.concatenate(part).astype(np.float64) for part in (columns, rows, strides))  # type: ignore[return-value]
