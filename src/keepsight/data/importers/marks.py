"""What any source says about one picture, and the part of it that a project's task takes.

Formats know things (boxes, outlines, masks), texts and classes; tasks know annotations. ``Marks`` lies between:
importers fill it, ``annotation`` makes the raw annotation of it that a task parses, ``of_value`` goes the other way for
exporters. Which parts a task takes is asked of its ``parse``, so a task from a plug-in is served like the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight import tasks
from keepsight.errors import AnnotationError
from keepsight.runtime import rle

Size = tuple[int, int]
"""Width and height in pixels, of the upright picture."""

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels, the right and lower edge exclusive."""

Mask = NDArray[np.bool_]

# Tools round coordinates to whole pixels and to few decimals of a share; beyond that a box is wrong.
ROUNDING_PX = 2.0

# Of a pixel, where coordinates are computed from what a format holds (shares of the picture, widths).
DECIMALS = 3

# A small annotation of each part. A task takes the parts whose example its ``parse`` understands.
_EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "boxes": {"boxes": [{"label": "x", "box": [0, 0, 10, 10]}]},
    "mask": {"mask": {"size": [1, 2], "counts": "11"}},
    "lines": {"lines": [{"text": "x", "box": [0, 0, 10, 10]}]},
    "fields": {"fields": {"x": "y"}},
    "subjects": {"subjects": [{"label": "x"}]},
    "flags": {"flags": ["x"]},
    "labels": {"labels": ["x", "y"]},
    "label": {"label": "x"},
}
PARTS = frozenset(_EXAMPLES)
CLASSES = frozenset({"flags", "labels", "label"})
THINGS = frozenset({"boxes", "subjects"})


@dataclass(frozen=True)
class Fault:
    """What of an annotation is not taken: ``where`` in the source, a stable ``code``, a ``text`` for people."""

    where: str
    code: str
    text: str


@dataclass(frozen=True)
class Shape:
    """One thing in a picture.

    Attributes:
        label: Its class.
        where: What the source calls it, for reports.
        box: Around it.
        mask: Gives the pixels that belong to it; raises AnnotationError where it cannot.
        crowd: Whether it stands for many things that were not drawn one by one.
    """

    label: str
    where: str
    box: Box | None = None
    mask: Callable[[Size], Mask] | None = None
    crowd: bool = False


@dataclass(frozen=True)
class Line:
    """One line of text and its box."""

    text: str
    where: str
    box: Box | None = None


@dataclass(frozen=True)
class Marks:
    """Everything a source says about one picture. None means that it does not say; empty, that there is nothing.

    Attributes:
        shapes: Things in the picture.
        labels: Classes of the whole picture.
        lines: Lines of text.
        fields: Named texts.
        size: The size that the source takes the picture to have.
        faults: What could not be read.
        rest: Further parts of an annotation, for tasks that know them.
    """

    shapes: tuple[Shape, ...] | None = None
    labels: tuple[str, ...] | None = None
    lines: tuple[Line, ...] | None = None
    fields: Mapping[str, str] | None = None
    size: Size | None = None
    faults: tuple[Fault, ...] = ()
    rest: Mapping[str, Any] = field(default_factory=dict)


def parts_of(task: str) -> frozenset[str]:
    """The parts of an annotation that a task takes, of ``PARTS``.

    A task that takes none of them has something of its own; it is given texts, which it parses (``label``).

    Raises:
        NotFoundError: No such task.
    """
    module = tasks.get(task)
    found = set()
    for part, example in _EXAMPLES.items():
        try:
            value = module.canonical(module.parse(example))
        except AnnotationError:
            continue
        if value.get(part) or (part == "label" and any(value.values())):
            found.add(part)
    return frozenset(found or {"label"})


def annotation(marks: Marks, *, parts: frozenset[str], size: Size) -> tuple[dict[str, Any] | None, tuple[Fault, ...]]:
    """The raw annotation with the ``parts`` that a task takes, and what of the marks was not taken.

    A box may reach out of the picture by ``ROUNDING_PX`` and is clipped; one that reaches further is a fault. Where all
    things of a picture are faults the annotation is None: the picture is not empty, nobody knows what is in it.

    Args:
        marks: What the source says.
        parts: See ``parts_of``.
        size: Of the upright picture.
    """
    if marks.size is not None and marks.size != size:
        return None, (*marks.faults, _other_size(marks.size, size))
    raw: dict[str, Any] = dict(marks.rest)
    faults = list(marks.faults)
    shapes = marks.shapes
    if parts & THINGS and shapes is not None:
        things = [thing for shape in shapes if (thing := _thing(shape, parts, size, faults)) is not None]
        shapes = tuple(shape for shape, _ in things)
        for part in ("boxes", "subjects"):
            if part in parts:
                raw[part] = [thing for _, thing in things]
    if "mask" in parts and shapes is not None:
        mask, shapes = _united(shapes, size, faults)
        if mask is not None:
            raw["mask"] = rle.encode(mask)
    if "lines" in parts and marks.lines is not None:
        raw["lines"] = [line for item in marks.lines if (line := _line(item, size, faults)) is not None]
    if "fields" in parts and marks.fields is not None:
        raw["fields"] = dict(marks.fields)
    nothing_left = bool(faults) and not any(raw.get(part) for part in PARTS)
    if not raw and not nothing_left:
        raw = _classes(marks.labels, shapes, parts, faults)
        if not offered(marks) & parts:
            faults.append(Fault("", "not_for_task", "It says nothing that the task of this project takes."))
    return (raw if raw and not nothing_left else None), tuple(faults)


def offered(marks: Marks) -> frozenset[str]:
    """The parts that marks can give."""
    found = set(marks.rest)
    if marks.shapes is not None:
        found |= {*THINGS, "mask", *CLASSES}
    if marks.labels is not None:
        found |= {"subjects", *CLASSES}
    if marks.lines is not None:
        found.add("lines")
    if marks.fields is not None:
        found.add("fields")
    return frozenset(found)


def of_value(value: Mapping[str, Any]) -> Marks:
    """What an annotation, of whatever task, says; ``annotation`` makes the same of it again."""
    shapes: list[Shape] = []
    for part in ("boxes", "subjects"):
        for number, item in enumerate(_list(value, part), start=1):
            shapes.append(Shape(str(item.get("label", "")), f"{part} {number}", as_box(item.get("box"))))
    if "mask" in value:
        encoded = value["mask"]
        if not isinstance(encoded, Mapping):
            raise AnnotationError(
                "The mask is no run-length form.",
                expected='{"size": [height, width], "counts": "..."}.',
                do="Correct it.",
            )
        shapes.append(Shape("", "mask", mask=lambda size: sized(rle.decode(encoded), size)))
    labels = next((_texts(value, part) for part in ("labels", "flags") if part in value), None)
    if labels is None and isinstance(value.get("label"), str):
        labels = (value["label"],)
    lines = [
        Line(str(item.get("text", "")), f"line {number}", as_box(item.get("box")))
        for number, item in enumerate(_list(value, "lines"), start=1)
    ]
    fields = value.get("fields")
    return Marks(
        shapes=tuple(shapes) if {"boxes", "subjects", "mask"} & set(value) else None,
        labels=labels,
        lines=tuple(lines) if "lines" in value else None,
        fields={str(name): str(text) for name, text in fields.items()} if isinstance(fields, Mapping) else None,
        rest={name: item for name, item in value.items() if name not in PARTS},
    )


def as_box(raw: Any) -> Box | None:
    """Four numbers as a box; None stays None.

    Raises:
        AnnotationError: They are no four numbers.
    """
    if raw is None:
        return None
    try:
        if isinstance(raw, str | bytes | Mapping):
            raise TypeError
        x1, y1, x2, y2 = (float(number) for number in raw)
    except (TypeError, ValueError):
        raise AnnotationError(
            f"The box is {str(raw)[:60]}.", expected="four numbers x1, y1, x2, y2 in pixels.", do="Correct the box."
        ) from None
    return x1, y1, x2, y2


def sized(mask: Mask, size: Size) -> Mask:
    """The mask, made sure that it is as large as its picture.

    Raises:
        AnnotationError: It is not.
    """
    height, width = mask.shape
    if (width, height) != size:
        raise AnnotationError(
            f"The mask has {width} x {height} pixels, its picture {size[0]} x {size[1]}.",
            expected="a mask of the picture's size.",
            do="Make the mask anew from this picture.",
        )
    return mask


def fitted(box: Box, *, size: Size, where: str) -> Box | Fault:
    """The box within a picture of this size, clipped by at most ``ROUNDING_PX``, or why it cannot be one."""
    width, height = size
    x1, y1, x2, y2 = box
    shown = ", ".join(f"{number:g}" for number in box)
    if not all(math.isfinite(number) for number in box) or x2 <= x1 or y2 <= y1:
        return Fault(where, "box_invalid", f"The box {shown} has no positive width and height.")
    out = max(-x1, -y1, x2 - width, y2 - height)
    clipped = max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2)
    if out > ROUNDING_PX or clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        text = f"The box {shown} reaches {out:g} pixels out of its picture of {width} x {height}."
        return Fault(where, "box_outside", text)
    return clipped


def _thing(shape: Shape, parts: frozenset[str], size: Size, faults: list[Fault]) -> tuple[Shape, dict[str, Any]] | None:
    box = shape.box
    if shape.crowd:
        faults.append(Fault(shape.where, "crowd", "It marks a crowd of things with one box; draw them one by one."))
        return None
    if box is None and shape.mask is not None:
        drawn = _mask(shape, size, faults)
        around = None if drawn is None else rle.bounds(rle.encode(drawn))
        if around is None:
            if drawn is not None:
                faults.append(Fault(shape.where, "box_invalid", "Its mask is empty, so there is no box around it."))
            return None
        box = (float(around[0]), float(around[1]), float(around[2]), float(around[3]))
    if box is None:
        if "subjects" in parts:
            return shape, {"label": shape.label}
        faults.append(Fault(shape.where, "box_missing", "It does not say where the thing is."))
        return None
    found = fitted(box, size=size, where=shape.where)
    if isinstance(found, Fault):
        faults.append(found)
        return None
    return shape, {"label": shape.label, "box": list(found)}


def _mask(shape: Shape, size: Size, faults: list[Fault]) -> Mask | None:
    try:
        return None if shape.mask is None else shape.mask(size)
    except AnnotationError as error:
        faults.append(Fault(shape.where, "mask_invalid", f"{error.found} {error.do}"))
        return None


def _united(shapes: Sequence[Shape], size: Size, faults: list[Fault]) -> tuple[Mask | None, tuple[Shape, ...]]:
    """All masks of a picture as one, and the shapes they came from; None where no mask is left."""
    union = np.zeros((size[1], size[0]), np.bool_)
    taken = []
    for shape in shapes:
        if shape.mask is None:
            faults.append(Fault(shape.where, "mask_missing", "It has a box and no outline, so it gives no mask."))
            continue
        drawn = _mask(shape, size, faults)
        if drawn is not None:
            union |= drawn
            taken.append(shape)
    return (None if shapes and not taken else union), tuple(taken)


def _line(line: Line, size: Size, faults: list[Fault]) -> dict[str, Any] | None:
    if line.box is None:
        return {"text": line.text}
    found = fitted(line.box, size=size, where=line.where)
    if isinstance(found, Fault):
        faults.append(found)
        return None
    return {"text": line.text, "box": list(found)}


def _classes(
    labels: Sequence[str] | None, shapes: Sequence[Shape] | None, parts: frozenset[str], faults: list[Fault]
) -> dict[str, Any]:
    """What the source says about the whole picture: its classes, or those of the things in it."""
    if labels is None and shapes is None:
        return {}
    names = list(dict.fromkeys(labels if labels is not None else _in_order(shapes or ())))
    if "subjects" in parts:
        return {"subjects": [{"label": name} for name in names]}
    for part in ("flags", "labels"):
        if part in parts:
            return {part: names}
    if len(names) > 1 and "label" in parts:
        faults.append(Fault("", "several_classes", f"It names {len(names)} classes, and its project takes one."))
    return {"label": names[0]} if len(names) == 1 and "label" in parts else {}


def _in_order(shapes: Iterable[Shape]) -> list[str]:
    return sorted({shape.label for shape in shapes})


def _other_size(stated: Size, size: Size) -> Fault:
    turned = " The picture is stored turned; annotate it as it is shown." if stated == size[::-1] else ""
    return Fault(
        "",
        "size_differs",
        f"It was made for a picture of {stated[0]} x {stated[1]} pixels; this one has {size[0]} x {size[1]}.{turned}",
    )


def _list(value: Mapping[str, Any], part: str) -> list[Mapping[str, Any]]:
    items = value.get(part, [])
    if not isinstance(items, list | tuple) or not all(isinstance(item, Mapping) for item in items):
        raise AnnotationError(
            f'"{part}" is no list of objects.', expected=f'"{part}": [{{...}}, ...].', do="Correct it."
        )
    return list(items)


def _texts(value: Mapping[str, Any], part: str) -> tuple[str, ...]:
    items = value[part]
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise AnnotationError(f'"{part}" is no list of texts.', expected=f'"{part}": ["a", "b"].', do="Correct it.")
    return tuple(items)
