"""COCO JSON: ``SPLIT/images/`` and ``SPLIT/coco.json`` with boxes and run-length masks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from keepsight.data.exporters.item import File, Item, by_split, classes_of, number
from keepsight.data.importers.marks import Shape, Size
from keepsight.runtime import rle

NAME = "coco"
KIND = "COCO JSON"
TAKES = "boxes and masks"

# COCO has no mask without a category.
FOREGROUND = "foreground"


def place(item: Item) -> str:
    """Where the picture goes."""
    return f"{item.split}/images/{item.file}"


def refuses(item: Item) -> str | None:
    """Why an annotation cannot be written; None where it can."""
    shapes = item.marks.shapes
    if shapes is None:
        return "It has no boxes and no mask."
    if any(shape.box is None and shape.mask is None for shape in shapes):
        return "Something in it has no box."
    return None


def files(items: Sequence[Item]) -> Iterator[File]:
    """The pictures of each split, then their document, in pieces."""
    classes = [name or FOREGROUND for name in classes_of(items)]
    numbers = {name: at for at, name in enumerate(classes, start=1)}
    for split, some in by_split(items).items():
        for item in some:
            yield item.picture(place(item))
        yield File(f"{split}/coco.json", _document(some, numbers))


def _document(items: Sequence[Item], classes: Mapping[str, int]) -> Iterator[bytes]:
    yield b'{"info": {"description": "exported by Keepsight"},\n"categories": '
    yield json.dumps([{"id": at, "name": name} for name, at in classes.items()]).encode()
    yield b',\n"images": [\n'
    yield from _joined(_image(at, item) for at, item in enumerate(items, start=1))
    yield b'\n],\n"annotations": [\n'
    yield from _joined(_annotations(items, classes))
    yield b"\n]}\n"


def _joined(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    for at, row in enumerate(rows):
        yield (",\n" if at else "").encode() + json.dumps(row).encode()


def _image(at: int, item: Item) -> dict[str, Any]:
    return {"id": at, "file_name": f"images/{item.file}", "width": item.size[0], "height": item.size[1]}


def _annotations(items: Sequence[Item], classes: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    count = 0
    for at, item in enumerate(items, start=1):
        for shape in item.marks.shapes or ():
            count += 1
            kind = classes[shape.label or FOREGROUND]
            yield {"id": count, "image_id": at, "category_id": kind, "iscrowd": 0, **_places(shape, item.size)}


def _places(shape: Shape, size: Size) -> dict[str, Any]:
    if shape.mask is not None:
        mask = rle.encode(shape.mask(size))
        x1, y1, x2, y2 = rle.bounds(mask) or (0, 0, 0, 0)
        return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": rle.area(mask), "segmentation": mask}
    left, top, right, bottom = shape.box or (0, 0, 0, 0)
    width, height = number(right - left), number(bottom - top)
    return {
        "bbox": [number(left), number(top), width, height],
        "area": number(width * height),
        "segmentation": [],
    }
