"""YOLO: ``images/SPLIT/``, ``labels/SPLIT/`` with a text file for each picture, and ``data.yaml`` with the classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from keepsight.data.exporters import voc
from keepsight.data.exporters.item import File, Item, by_split, classes_of

NAME = "yolo"
KIND = "YOLO text files"
TAKES = "boxes"

# Of a share: a millionth of a pixel in a picture of 1,000.
_DIGITS = 9


def place(item: Item) -> str:
    """Where the picture goes."""
    return f"images/{item.split}/{item.file}"


refuses = voc.refuses


def files(items: Sequence[Item]) -> Iterator[File]:
    """The classes, then each picture and its boxes as shares of it."""
    classes = classes_of(items)
    splits = by_split(items)
    lines = ["path: .", *(f"{split}: images/{split}" for split in splits), "names:"]
    # A JSON text is a YAML text, whatever stands in it.
    lines += [f"  {at}: {json.dumps(name)}" for at, name in enumerate(classes)]
    yield File("data.yaml", "\n".join([*lines, ""]).encode())
    numbers = {name: at for at, name in enumerate(classes)}
    for split, some in splits.items():
        for item in some:
            yield item.picture(place(item))
            yield File(f"labels/{split}/{item.stem}.txt", _lines(item, numbers).encode())


def _lines(item: Item, numbers: dict[str, int]) -> str:
    width, height = item.size
    lines = []
    for shape in item.marks.shapes or ():
        x1, y1, x2, y2 = shape.box or (0.0, 0.0, 0.0, 0.0)
        shares = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
        lines.append(" ".join([str(numbers[shape.label]), *(f"{share:.{_DIGITS}f}" for share in shares)]))
    return "".join(f"{line}\n" for line in lines)
