"""From a detector's map of text probability to the rectangles of the lines (differentiable binarisation, Liao 2020).

The same steps as RapidOCR's post-processing, in numpy alone, so that cameras and functions need no OpenCV, pyclipper or
shapely: threshold, connected components, the rectangle of least area around each, its mean probability, and the
rectangle grown again by what training had shrunk it. Inner contours (the holes of letters) are no lines here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEAST_SIDE = 3.0


@dataclass(frozen=True)
class Reading:
    """How pictures are read; part ``reading.json`` of a bundle.

    Attributes:
        side: The picture is scaled for the detector so that its shorter side (``longest`` False) has at least, or its
            longer one (True) at most, this many pixels.
        longest: See ``side``.
        binary: Probability from which a pixel of the map belongs to text.
        box: Lowest mean probability of a line's rectangle.
        unclip: By area times this over circumference the rectangle grows on each side.
        dilate: Whether pixels grow by one to the right and down before they are joined.
        line: Lowest mean probability of a line's signs; lines below are dropped.
    """

    side: int = 736
    longest: bool = False
    binary: float = 0.3
    box: float = 0.5
    unclip: float = 1.6
    dilate: bool = True
    line: float = 0.5

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON takes them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Reading:
        """The settings that `as_dict` wrote.

        Raises:
            TypeError: There are others.
        """
        return cls(**values)


def rectangles(
    shares: NDArray[np.float32], *, reading: Reading, size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The corners of text lines, float32 (n, 4, 2), clockwise from the top left, and their mean probability (n,).

    Args:
        shares: The map (height, width) of text probability.
        reading: Thresholds.
        size: (width, height) of the picture whose pixels the corners are in.
    """
    height, width = shares.shape
    scale = np.array([size[0] / width, size[1] / height])
    corners, means = [], []
    for points in _components(_text(shares, reading=reading)):
        found = _least_rectangle(_hull(points))
        if found is None or min(found[1]) < _LEAST_SIDE:
            continue
        mean = _mean_inside(shares, found)
        if mean < reading.box:
            continue
        sides = found[1]
        margin = 2 * reading.unclip * sides[0] * sides[1] / (2 * (sides[0] + sides[1]))
        grown = _corners(found[0], (sides[0] + margin, sides[1] + margin), found[2])
        placed = np.clip(np.round(grown * scale), 0, np.array(size) - 1)
        if min(np.linalg.norm(placed[0] - placed[1]), np.linalg.norm(placed[0] - placed[3])) <= _LEAST_SIDE:
            continue
        corners.append(placed.astype(np.float32))
        means.append(mean)
    if not corners:
        return np.zeros((0, 4, 2), np.float32), np.zeros(0, np.float32)
    return np.stack(corners), np.array(means, np.float32)


def _text(shares: NDArray[np.float32], *, reading: Reading) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = shares > reading.binary
    if reading.dilate:
        mask[1:] |= mask[:-1].copy()
        mask[:, 1:] |= mask[:, :-1].copy()
    return mask


def _components(mask: NDArray[np.bool_]) -> Iterator[Floats]:
    """The ends of the rows of each connected component (corners touch, too), float64 (m, 2) as x, y."""
    width = mask.shape[1]
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    if not len(rows):
        return
    # One number for row and column, so that the runs of the next row that touch are a range.
    row = width + 2
    first = np.searchsorted(rows * row + ends, (rows + 1) * row + starts)
    last = np.searchsorted(rows * row + starts, (rows + 1) * row + ends, side="right")
    count = np.maximum(last - first, 0)
    above = np.repeat(np.arange(len(rows)), count)
    below = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    label = np.arange(len(rows))
    while True:
        least = np.minimum(label[above], label[below])
        before = label.copy()
        np.minimum.at(label, above, least)
        np.minimum.at(label, below, least)
        label = label[label]
        if np.array_equal(label, before):
            break
    order = np.argsort(label, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        yield np.concatenate(
            [np.stack([starts[part], rows[part]], axis=1), np.stack([ends[part] - 1, rows[part]], axis=1)]
        ).astype(np.float64)


def _hull(points: Floats) -> Floats:
    """The corners of the convex hull (Andrew 1979)."""
    ordered = sorted({(float(x), float(y)) for x, y in points})
    if len(ordered) < 3:
        return np.array(ordered)

    def half(sequence: list[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for point in sequence:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        return chain[:-1]

    return np.array(half(ordered) + half(ordered[::-1]))


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _least_rectangle(hull: Floats) -> tuple[Floats, tuple[float, float], float] | None:
    """Centre, sides and angle (radians, of the first side) of the rectangle of least area; None without area.

    One of its sides lies on a side of the hull (Freeman and Shapira 1975).
    """
    if len(hull) < 3:
        return None
    sides = np.roll(hull, -1, axis=0) - hull
    angles = np.unique(np.round(np.mod(np.arctan2(sides[:, 1], sides[:, 0]), np.pi / 2), 12))
    along = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ hull.T
    across = np.stack([-np.sin(angles), np.cos(angles)], axis=1) @ hull.T
    lengths = np.stack([np.ptp(along, axis=1), np.ptp(across, axis=1)], axis=1)
    best = int(np.argmin(lengths[:, 0] * lengths[:, 1]))
    middle = np.array([along[best].max() + along[best].min(), across[best].max() + across[best].min()]) / 2
    cos, sin = np.cos(angles[best]), np.sin(angles[best])
    centre = np.array([cos * middle[0] - sin * middle[1], sin * middle[0] + cos * middle[1]])
    return centre, (float(lengths[best, 0]), float(lengths[best, 1])), float(angles[best])


def _corners(centre: Floats, sides: tuple[float, float], angle: float) -> Floats:
    """The four corners, clockwise from the top left as it is seen."""
    cos, sin = np.cos(angle), np.sin(angle)
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.array(sides) / 2
    points = half @ np.array([[cos, sin], [-sin, cos]]) + centre
    left = points[np.argsort(points[:, 0], kind="stable")]
    top, bottom = left[:2][np.argsort(left[:2, 1], kind="stable")]
    high, low = left[2:][np.argsort(left[2:, 1], kind="stable")]
    return np.stack([top, high, low, bottom])


def _mean_inside(shares: NDArray[np.float32], found: tuple[Floats, tuple[float, float], float]) -> float:
    """The mean probability inside a rectangle."""
    centre, sides, angle = found
    points = _corners(centre, sides, angle)
    height, width = shares.shape
    left, top = np.clip(np.floor(points.min(axis=0)), 0, [width - 1, height - 1]).astype(int)
    right, bottom = np.clip(np.ceil(points.max(axis=0)), 0, [width - 1, height - 1]).astype(int)
    x = np.arange(left, right + 1) - centre[0]
    y = (np.arange(top, bottom + 1) - centre[1])[:, None]
    cos, sin = np.cos(angle), np.sin(angle)
    inside = (np.abs(cos * x + sin * y) <= sides[0] / 2 + 0.5) & (np.abs(cos * y - sin * x) <= sides[1] / 2 + 0.5)
    window = shares[top : bottom + 1, left : right + 1]
    return float(window[inside].mean()) if inside.any() else 0.0
