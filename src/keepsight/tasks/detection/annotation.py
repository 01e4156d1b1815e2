"""Boxes as they are stored: ``{"boxes": [{"label": "RBC", "box": [x1, y1, x2, y2]}]}``.

Corners are in pixels of the original upright picture, x to the right and y down from its upper left corner. No boxes
mean that the picture shows nothing of what is looked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from keepsight.errors import AnnotationError
from keepsight.tasks import classification

EXAMPLE = '{"boxes": [{"label": "cup", "box": [10, 20, 110, 90]}]}'
# Tools that count pixels from 1 put a box at the rim one pixel too far.
TOLERANCE = 1.0
MOST_BOXES = 5000


def parse(raw: Any) -> dict[str, Any]:
    """The boxes in a mapping (further keys, as predictions have, are dropped) or in its JSON text.

    Raises:
        AnnotationError: There is no list of boxes, or one of them is none.
    """
    if isinstance(raw, str) and raw.strip():
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise _no_boxes("The annotation is a text that is no JSON.") from error
    if not isinstance(raw, Mapping):
        raise _no_boxes(f"The annotation is a {type(raw).__name__}." if raw else "The annotation is empty.")
    if "boxes" not in raw:
        raise _no_boxes('The annotation has no "boxes".')
    listed = raw["boxes"]
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise _no_boxes(f'"boxes" is a {type(listed).__name__}.')
    return canonical({"boxes": [_item(item, number) for number, item in enumerate(listed, 1)]})


def canonical(value: Mapping[str, Any]) -> dict[str, Any]:
    """Each box once, to a hundredth of a pixel, in the order of classes and corners.

    Raises:
        AnnotationError: A class without a printable name, swapped corners or too many boxes.
    """
    if len(value["boxes"]) > MOST_BOXES:
        raise AnnotationError(
            f"The annotation has {len(value['boxes'])} boxes.",
            expected=f"at most {MOST_BOXES} boxes in a picture.",
            do="Cut the picture into parts.",
        )
    boxes = set()
    for number, item in enumerate(value["boxes"], 1):
        label = classification.canonical({"label": item["label"]})["label"]
        x1, y1, x2, y2 = (round(float(side), 2) + 0.0 for side in item["box"])
        if x2 <= x1 or y2 <= y1:
            swapped = x2 < x1 or y2 < y1
            raise AnnotationError(
                f"Box {number} ({label}), {_shown((x1, y1, x2, y2))}, "
                + ("has its corners swapped." if swapped else "has no area."),
                expected="the upper left corner first: [x1, y1, x2, y2] with x1 < x2 and y1 < y2.",
                do="Exchange the corners." if swapped else "Leave the box out, or draw it again.",
                box=number,
            )
        boxes.add((label, x1, y1, x2, y2))
    return {"boxes": [{"label": label, "box": list(corners)} for label, *corners in sorted(boxes)]}


def validate(value: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Makes sure that there are boxes in the one form, all of them of ``labels`` and none left of or above the picture.

    Raises:
        AnnotationError: They are not.
    """
    for number, item in enumerate(parse(value)["boxes"], 1):
        classification.validate({"label": item["label"]}, labels)
        if min(item["box"]) < -TOLERANCE:
            raise _outside(number, item, "left of or above it")


def fits(value: Mapping[str, Any], size: tuple[int, int]) -> None:
    """Makes sure that all boxes lie in a picture of this width and height.

    Raises:
        AnnotationError: One reaches more than a pixel over the rim.
    """
    width, height = size
    for number, item in enumerate(value["boxes"], 1):
        x1, y1, x2, y2 = item["box"]
        if x1 < -TOLERANCE or y1 < -TOLERANCE or x2 > width + TOLERANCE or y2 > height + TOLERANCE:
            raise _outside(number, item, f"over the rim of its {width} x {height} pixels")


def _item(item: Any, number: int) -> dict[str, Any]:
    if not isinstance(item, Mapping) or not isinstance(item.get("label"), str):
        raise AnnotationError(
            f"Box {number} has no label.",
            expected=f"a class for each box, as in {EXAMPLE}.",
            do="Name the class of the box.",
            box=number,
        )
    corners = item.get("box")
    if (
        not isinstance(corners, Sequence)
        or isinstance(corners, str)
        or len(corners) != 4
        or not all(
            isinstance(side, int | float) and not isinstance(side, bool) and math.isfinite(side) for side in corners
        )
    ):
        raise AnnotationError(
            f"Box {number} ({item['label']}) has no corners.",
            expected=f"four numbers in pixels, [x1, y1, x2, y2], as in {EXAMPLE}.",
            do="Give the upper left and the lower right corner.",
            box=number,
        )
    return {"label": item["label"], "box": [float(side) for side in corners]}


def _no_boxes(found: str) -> AnnotationError:
    return AnnotationError(
        found,
        expected=f'a list of boxes, as in {EXAMPLE}; {{"boxes": []}} where the picture shows nothing.',
        do="Give the boxes of the picture.",
    )


def _outside(number: int, item: Mapping[str, Any], where: str) -> AnnotationError:
    return AnnotationError(
        f"Box {number} ({item['label']}), {_shown(item['box'])}, lies outside the picture: {where}.",
        expected="corners in pixels of the upright picture, between 0 and its width and height.",
        do="Correct the box, or check that it belongs to this picture and was not meant for a smaller or turned one.",
        box=number,
    )


def _shown(corners: Sequence[float]) -> str:
    return "[" + ", ".join(f"{side:g}" for side in corners) + "]"
