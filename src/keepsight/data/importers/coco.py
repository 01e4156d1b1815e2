"""COCO JSON: things with boxes, outlines or run-length masks, in one file for many pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from keepsight.data.adding import Rejected
from keepsight.data.importers import layout, polygons
from keepsight.data.importers.layout import Finder, Unit
from keepsight.data.importers.marks import CLASSES, DECIMALS, THINGS, Box, Fault, Marks, Shape, Size, sized
from keepsight.data.importers.source import SPLIT_NAMES, Entry, Source, child, children, clean, read_text
from keepsight.errors import AnnotationError, BadInputError
from keepsight.runtime import rle

NAME = "coco"
KIND = "COCO JSON"
GIVES = THINGS | CLASSES | {"mask"}
EXPECTED = "COCO JSON (coco.json beside images/)"

_SNIFFED = 65536
# Of the three files that COCO publishes for a split, this one has every thing.
_PREFERRED = "instances"


def looks(path: Path) -> bool:
    """Whether there is such a file at a path, or in a folder or its split folders."""
    if path.is_file():
        return _is_coco(path)
    return bool(layout.units(path, _holds)[0])


def scan(path: Path) -> Source:
    """The pictures that the files list, with their things.

    Raises:
        StorageError: A file cannot be read.
    """
    skipped: list[Rejected] = []
    if path.is_file():
        root = path.parent.parent if path.parent.name.lower() == "annotations" else path.parent
        documents = [(path, _split_of(path))]
    else:
        root = path
        found, skipped = layout.units(path, _holds)
        documents = [(file, unit.split or _split_of(file)) for unit in found for file in _files(unit)]
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    for file, split in documents:
        try:
            _read(file, root=root, split=split, entries=entries, rejected=rejected)
        except BadInputError as error:
            rejected.append(Rejected(layout.name_in(root, file), error.code, f"{error.found} {error.do}"))
    return Source(KIND, tuple(entries), tuple(rejected), tuple(skipped))


def _holds(folder: Path) -> bool:
    return bool(_files(Unit(folder, None)))


def _files(unit: Unit) -> list[Path]:
    places = [unit.folder, *([child(unit.folder, "annotations")] if child(unit.folder, "annotations") else [])]
    found = [path for place in places if place for path in children(place) if path.is_file() and _is_coco(path)]
    preferred = [path for path in found if path.name.lower().startswith(_PREFERRED)]
    return preferred or found


def _is_coco(path: Path) -> bool:
    """By its beginning and its end: the lists of a large file may stand in any order."""
    if path.suffix.lower() != ".json":
        return False
    try:
        with path.open("rb") as file:
            text = file.read(_SNIFFED)
            if not text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
                return False
            file.seek(max(0, path.stat().st_size - _SNIFFED))
            text += file.read()
    except OSError:
        return False
    # In a large file the beginning may lie inside one list and the end inside another.
    return sum(f'"{name}"'.encode() in text for name in ("images", "annotations", "categories", "image_id")) >= 2


def _split_of(path: Path) -> str | None:
    """The split in a name such as ``instances_train2017.json``."""
    words = re.split("[^a-z]+", path.stem.lower())
    splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return splits.pop() if len(splits) == 1 else None


def _read(file: Path, *, root: Path, split: str | None, entries: list[Entry], rejected: list[Rejected]) -> None:
    document = _parsed(file)
    name = layout.name_in(root, file)
    classes = {
        item["id"]: clean(str(item.get("name", item["id"])))
        for item in document["categories"]
        if isinstance(item, Mapping) and _is_id(item.get("id"))
    }
    things: dict[Any, list[Mapping[str, Any]]] = {}
    known = {item["id"] for item in document["images"] if isinstance(item, Mapping) and _is_id(item.get("id"))}
    for number, thing in enumerate(document["annotations"], start=1):
        picture = thing.get("image_id") if isinstance(thing, Mapping) else None
        if _is_id(picture) and picture in known:
            things.setdefault(picture, []).append(thing)
        else:
            text = f"It belongs to the picture {picture}, which the file does not list."
            rejected.append(Rejected(f"{name}: {_where(thing, number)}", "picture_unknown", text))
    finder = _finder(root, file)
    seen: set[Any] = set()
    for number, picture in enumerate(document["images"], start=1):
        where = f"{name}: picture {number}"
        if not isinstance(picture, Mapping) or not _is_id(picture.get("id")):
            rejected.append(Rejected(where, "id_missing", "It has no id."))
            continue
        path = finder.find(str(picture.get("file_name") or ""))
        if isinstance(path, Rejected):
            rejected.append(path)
            continue
        if {picture["id"], path} & seen:
            text = "The file lists it before, so its second entry was left out."
            rejected.append(Rejected(layout.name_in(root, path), "picture_twice", text))
            continue
        seen |= {picture["id"], path}
        marks = partial(_marks, picture, things.get(picture["id"], []), classes)
        entries.append(Entry(path, layout.name_in(root, path), split=split, marks=marks))


def _parsed(file: Path) -> Mapping[str, Any]:
    """The document with its three lists.

    Raises:
        BadInputError: It is no such document. StorageError: It cannot be read.
    """
    try:
        document = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            f"It is no JSON document ({error}).", expected="a COCO JSON file.", do="Export it again."
        ) from None
    lists = ("images", "annotations", "categories")
    wrong = [name for name in lists if not isinstance(document, Mapping) or not isinstance(document.get(name), list)]
    if wrong:
        raise BadInputError(
            f"It has no list of {' and no list of '.join(wrong)}.",
            expected="a COCO JSON file with images, annotations and categories.",
            do="Export it again; for pictures without a thing, leave an empty list.",
        )
    found: Mapping[str, Any] = document
    return found


def _finder(root: Path, file: Path) -> Finder:
    folder, above = file.parent, file.parent.parent
    bases = [folder, layout.picture_folder(folder)]
    if file.parent != root:
        # annotations/instances_train2017.json beside train2017/, or beside images/.
        bases += [above / path.name for path in _named(above, file)]
        bases += [above, layout.picture_folder(above), layout.picture_folder(above) / (_split_of(file) or ".")]
    else:
        bases += _named(root, file)
    return Finder(root, bases)


def _named(parent: Path, file: Path) -> list[Path]:
    """Folders whose name stands in the file's name."""
    return [path for path in children(parent) if path.is_dir() and path.name.lower() in file.stem.lower()]


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str)


def _where(thing: Any, number: int) -> str:
    named = thing.get("id") if isinstance(thing, Mapping) else None
    return f"annotation {named if _is_id(named) else number}"


def _marks(
    picture: Mapping[str, Any], things: Sequence[Mapping[str, Any]], classes: Mapping[Any, str], _size: Size
) -> Marks:
    shapes: list[Shape] = []
    faults: list[Fault] = []
    for number, thing in enumerate(things, start=1):
        where = _where(thing, number)
        kind = thing.get("category_id")
        if not _is_id(kind) or kind not in classes:
            text = f"It has the category {kind}, which the file does not name."
            faults.append(Fault(where, "category_unknown", text))
            continue
        try:
            shapes.append(_shape(thing, label=classes[kind], where=where))
        except AnnotationError as error:
            faults.append(Fault(where, error.code, f"{error.found} {error.do}"))
    width, height = picture.get("width"), picture.get("height")
    stated = (width, height) if isinstance(width, int) and isinstance(height, int) and width and height else None
    return Marks(shapes=tuple(shapes), faults=tuple(faults), size=stated)


def _shape(thing: Mapping[str, Any], *, label: str, where: str) -> Shape:
    outline = thing.get("segmentation")
    mask = None
    box = _box(thing.get("bbox"))
    if isinstance(outline, Mapping):

        def mask(size: Size) -> Any:
            return sized(rle.decode(outline), size)

    elif outline:
        if not isinstance(outline, Sequence) or isinstance(outline, str):
            raise AnnotationError(
                "Its outline is no list.", expected="polygons or a run-length mask.", do="Correct it."
            )
        parts = [polygons.points(part) for part in (outline if isinstance(outline[0], Sequence) else [outline])]
        box = box or polygons.around(parts)

        def mask(size: Size) -> Any:
            return polygons.filled(parts, size=size)

    return Shape(label, where, box, mask, crowd=bool(thing.get("iscrowd")))


def _box(raw: Any) -> Box | None:
    if raw is None or raw == []:
        return None
    try:
        x, y, width, height = (float(number) for number in raw)
    except (TypeError, ValueError):
        raise AnnotationError(
            f"Its box is {str(raw)[:60]}.", expected="x, y, width and height in pixels.", do="Correct it."
        ) from None
    # The sum of two decimal fractions is seldom the fraction that was meant.
    return x, y, round(x + width, DECIMALS), round(y + height, DECIMALS)
