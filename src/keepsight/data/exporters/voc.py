"""Pascal VOC: ``SPLIT/images/`` and ``SPLIT/annotations/`` with one XML file for each picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from keepsight.data.exporters.item import File, Item, number

NAME = "voc"
KIND = "Pascal VOC XML"
TAKES = "boxes"


def place(item: Item) -> str:
    """Where the picture goes."""
    return f"{item.split}/images/{item.file}"


def refuses(item: Item) -> str | None:
    """Why an annotation cannot be written; None where it can."""
    shapes = item.marks.shapes
    if shapes is None or any(shape.mask is not None for shape in shapes):
        return "It has no boxes."
    return "Something in it has no box." if any(shape.box is None for shape in shapes) else None


def files(items: Sequence[Item]) -> Iterator[File]:
    """Each picture and its annotation."""
    for item in items:
        yield item.picture(place(item))
        yield File(f"{item.split}/annotations/{item.stem}.xml", _document(item).encode())


def _document(item: Item) -> str:
    width, height = item.size
    lines = [
        "<annotation>",
        "  <folder>images</folder>",
        f"  <filename>{escape(item.file)}</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
    ]
    for shape in item.marks.shapes or ():
        sides = zip(("xmin", "ymin", "xmax", "ymax"), shape.box or (), strict=True)
        box = "".join(f"<{side}>{number(value)}</{side}>" for side, value in sides)
        lines += [
            "  <object>",
            f"    <name>{escape(shape.label)}</name>",
            "    <difficult>0</difficult>",
            f"    <bndbox>{box}</bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])
