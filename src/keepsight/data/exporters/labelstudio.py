"""Label Studio JSON: ``images/`` and ``tasks.json``, a task for each picture with its annotation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from keepsight.data.exporters.item import File, Item
from keepsight.data.importers import brush
from keepsight.data.importers.labelstudio import LOCAL_FILES
from keepsight.data.importers.marks import Box, Marks

NAME = "label-studio"
KIND = "Label Studio JSON"
TAKES = "classes, boxes, masks, lines of text and fields"

FOREGROUND = "foreground"
TRANSCRIPTION = "transcription"


def place(item: Item) -> str:
    """Where the picture goes."""
    return f"images/{item.split}/{item.file}"


def refuses(item: Item) -> str | None:
    """Why an annotation cannot be written; None where it can."""
    marks = item.marks
    if marks.rest:
        return f"It has parts that Label Studio does not know: {', '.join(sorted(marks.rest))}."
    shapes = marks.shapes or ()
    boxed = [shape for shape in shapes if shape.box is not None or shape.mask is not None]
    if boxed and len(boxed) < len(shapes):
        return "Something in it has a box and something else has none."
    if any(line.box is None for line in marks.lines or ()):
        return "A line of text in it has no box."
    return None


def files(items: Sequence[Item]) -> Iterator[File]:
    """The pictures, then the list of tasks, in pieces."""
    for item in items:
        yield item.picture(place(item))
    yield File("tasks.json", _tasks(items))


def _tasks(items: Sequence[Item]) -> Iterator[bytes]:
    yield b"[\n"
    for number, item in enumerate(items, start=1):
        task = {
            "id": number,
            "data": {"image": LOCAL_FILES + quote(place(item)), "split": item.split},
            "annotations": [{"id": number, "result": _results(item)}],
        }
        yield (",\n" if number > 1 else "").encode() + json.dumps(task).encode()
    yield b"\n]\n"


def _results(item: Item) -> list[dict[str, Any]]:
    marks, (width, height) = item.marks, item.size
    size = {"original_width": width, "original_height": height, "image_rotation": 0, "to_name": "image"}
    results: list[dict[str, Any]] = []
    for number, shape in enumerate(marks.shapes or (), start=1):
        here = {"id": f"shape{number}", **size}
        if shape.mask is not None:
            strokes = brush.encode(shape.mask(item.size))
            value: dict[str, Any] = {"format": "rle", "rle": strokes, "brushlabels": [shape.label or FOREGROUND]}
            results.append({**here, "type": "brushlabels", "from_name": "brush", "value": value})
        elif shape.box is not None:
            value = {**_percent(shape.box, item), "rectanglelabels": [shape.label]}
            results.append({**here, "type": "rectanglelabels", "from_name": "label", "value": value})
    for number, line in enumerate(marks.lines or (), start=1):
        box = _percent(line.box or (0.0, 0.0, 0.0, 0.0), item)
        here = {"id": f"line{number}", **size}
        results.append({**here, "type": "rectangle", "from_name": "bbox", "value": box})
        results.append({**here, "type": "textarea", "from_name": TRANSCRIPTION, "value": {**box, "text": [line.text]}})
    for name, text in (marks.fields or {}).items():
        results.append({"type": "textarea", "from_name": name, "to_name": "image", "value": {"text": [text]}})
    names = _names(marks)
    if names:
        results.append({"type": "choices", "from_name": "choice", "to_name": "image", "value": {"choices": names}})
    return results


def _names(marks: Marks) -> list[str]:
    """Classes of the whole picture: said of it, or of things that have no place in it."""
    whole = [shape.label for shape in marks.shapes or () if shape.box is None and shape.mask is None]
    return [*(marks.labels or ()), *whole]


def _percent(box: Box, item: Item) -> dict[str, float]:
    x1, y1, x2, y2 = box
    across, down = 100 / item.size[0], 100 / item.size[1]
    edges = {"x": x1 * across, "y": y1 * down, "width": (x2 - x1) * across, "height": (y2 - y1) * down}
    return {**{name: round(value, 9) for name, value in edges.items()}, "rotation": 0}
