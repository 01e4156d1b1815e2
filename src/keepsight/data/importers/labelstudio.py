"""Label Studio's JSON export: choices, rectangles, polygons, brush strokes and texts, for many pictures in one file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from keepsight.data.adding import Rejected
from keepsight.data.importers import brush, layout, polygons
from keepsight.data.importers.layout import Finder
from keepsight.data.importers.marks import DECIMALS, PARTS, Box, Fault, Line, Marks, Shape, Size, sized
from keepsight.data.importers.source import SPLIT_NAMES, Entry, Source, children, clean, is_picture, read_text
from keepsight.errors import AnnotationError, BadInputError

NAME = "label-studio"
KIND = "Label Studio JSON"
GIVES = PARTS
EXPECTED = "Label Studio JSON (its export called JSON, beside the pictures)"

LOCAL_FILES = "/data/local-files/?d="

_SNIFFED = 65536
_PICTURE_KEYS = ("image", "img", "picture", "photo", "ocr", "captioning")
# Uploaded pictures get eight hex digits before their name.
_UPLOADED = re.compile("^[0-9a-f]{8}-")
_RECTANGLES = ("rectanglelabels", "rectangle", "labels")
_POLYGONS = ("polygonlabels", "polygon")
_BRUSHES = ("brushlabels", "brush")


def looks(path: Path) -> bool:
    """Whether a file is such an export, or a folder has one."""
    return bool(_files(path))


def scan(path: Path) -> Source:
    """The pictures that the exports name, with what was drawn, chosen and written.

    Raises:
        StorageError: A file cannot be read.
    """
    root = path.parent if path.is_file() else path
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    for file in _files(path):
        try:
            tasks = _parsed(file)
        except BadInputError as error:
            rejected.append(Rejected(layout.name_in(root, file), error.code, f"{error.found} {error.do}"))
            continue
        finder = Finder(root, [root, layout.picture_folder(root)])
        for number, task in enumerate(tasks, start=1):
            found = _entry(task, number=number, root=root, finder=finder)
            if isinstance(found, Entry):
                entries.append(found)
            else:
                rejected.append(found)
    return Source(KIND, tuple(entries), tuple(rejected))


def _files(path: Path) -> list[Path]:
    places = [path] if path.is_file() else children(path)
    return [place for place in places if place.suffix.lower() == ".json" and place.is_file() and _is_export(place)]


def _is_export(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            text = file.read(_SNIFFED)
    except OSError:
        return False
    return text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") and b'"data"' in text and b'"annotations"' in text


def _parsed(file: Path) -> list[Any]:
    try:
        document = json.loads(read_text(file))
        if not isinstance(document, list):
            raise ValueError("it is no list")
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            f"It is no Label Studio export ({error}).", expected="a list of tasks.", do="Export it again as JSON."
        ) from None
    return document


def _entry(task: Any, *, number: int, root: Path, finder: Finder) -> Entry | Rejected:
    data = task.get("data") if isinstance(task, Mapping) else None
    if not isinstance(data, Mapping):
        return Rejected(f"task {number}", "task_invalid", "It has no data. Export it again as JSON, not as JSON-MIN.")
    path = _picture(data, finder=finder, number=number)
    if isinstance(path, Rejected):
        return path
    split = SPLIT_NAMES.get(str(data.get("split", "")).lower())
    notes = task.get("annotations")
    given = [
        note
        for note in (notes if isinstance(notes, list) else [])
        if isinstance(note, Mapping) and not note.get("was_cancelled") and isinstance(note.get("result"), list)
    ]
    agreed = [note for note in given if note.get("ground_truth")] or given
    marks = partial(_marks, [note["result"] for note in agreed]) if agreed else None
    return Entry(path, layout.name_in(root, path), split=split, marks=marks)


def _picture(data: Mapping[str, Any], *, finder: Finder, number: int) -> Path | Rejected:
    keys = [key for key in (*_PICTURE_KEYS, *data) if isinstance(data.get(key), str)]
    reference = next((str(data[key]) for key in keys if key in _PICTURE_KEYS or is_picture(Path(str(data[key])))), None)
    if reference is None:
        return Rejected(f"task {number}", "file_missing", "Its data name no picture.")
    place = unquote(reference.partition("?d=")[2] or reference.partition("?")[0])
    found = finder.find(place)
    bare = _UPLOADED.sub("", place.rpartition("/")[2])
    return finder.find(bare) if isinstance(found, Rejected) and bare != place.rpartition("/")[2] else found


def _marks(results: Sequence[Sequence[Any]], size: Size) -> Marks:
    if len(results) > 1:
        raise AnnotationError(
            f"It has {len(results)} annotations by different people, and nothing says which one counts.",
            expected="one annotation.",
            do="Mark one as ground truth in Label Studio, or delete the others.",
        )
    reading = _Reading(size)
    items = [item for item in results[0] if isinstance(item, Mapping) and isinstance(item.get("value"), Mapping)]
    for number, item in enumerate(items, start=1):
        reading.draw(item, where=f"result {item.get('id') or number}")
    for item in items:
        reading.write(item)
    return reading.marks(nothing=not items)


class _Reading:
    """Collects the results of one annotation: first what is drawn, then the texts that belong to it."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._shapes: dict[str, Shape] = {}
        self._texts: dict[str, str] = {}
        self._labels: list[str] = []
        self._fields: dict[str, str] = {}
        self._faults: list[Fault] = []
        self._stated: Size | None = None

    def draw(self, item: Mapping[str, Any], *, where: str) -> None:
        kind, value = str(item.get("type", "")), item["value"]
        width, height = item.get("original_width"), item.get("original_height")
        if isinstance(width, int) and isinstance(height, int):
            self._stated = width, height
        if kind == "choices":
            choices = value.get("choices")
            self._labels += [clean(str(choice)) for choice in choices] if isinstance(choices, list) else []
            return
        if kind == "textarea":
            return
        try:
            shape = self._shape(kind, value, where=where)
        except AnnotationError as error:
            self._faults.append(Fault(where, error.code, f"{error.found} {error.do}"))
            return
        key = str(item.get("id") or where)
        before = self._shapes.get(key)
        # One region may come as a bare rectangle and again with its label.
        self._shapes[key] = shape if before is None or shape.label else before

    def write(self, item: Mapping[str, Any]) -> None:
        if item.get("type") != "textarea":
            return
        raw = item["value"].get("text", "")
        text = clean("\n".join(map(str, raw)) if isinstance(raw, list) else str(raw))
        key = str(item.get("id") or "")
        if key in self._shapes:
            self._texts[key] = text
        else:
            self._fields[clean(str(item.get("from_name") or "text"))] = text

    def marks(self, *, nothing: bool) -> Marks:
        lines = [Line(text, self._shapes[key].where, self._shapes[key].box) for key, text in self._texts.items()]
        shapes = tuple(shape for key, shape in self._shapes.items() if key not in self._texts)
        return Marks(
            shapes=shapes if shapes or nothing or (self._faults and not lines) else None,
            labels=tuple(self._labels) or None,
            lines=tuple(lines) if lines or nothing else None,
            fields=self._fields or None,
            size=self._stated,
            faults=tuple(self._faults),
        )

    def _shape(self, kind: str, value: Mapping[str, Any], *, where: str) -> Shape:
        label = _label(kind, value)
        if kind in _RECTANGLES and "x" in value:
            return Shape(label, where, self._box(value))
        if kind in _POLYGONS:
            corners = polygons.points(value.get("points"))
            corners = corners * (self._size[0] / 100, self._size[1] / 100)
            return Shape(label, where, polygons.around([corners]), lambda size: polygons.filled([corners], size=size))
        if kind in _BRUSHES and value.get("format") == "rle":
            width, height = self._stated or self._size
            numbers = value.get("rle") or []
            return Shape(label, where, mask=lambda size: sized(brush.decode(numbers, width=width, height=height), size))
        raise AnnotationError(
            f'It is of the type "{kind}".',
            expected="choices, rectangles, polygons, brush strokes or texts.",
            do="Draw it as one of these.",
        )

    def _box(self, value: Mapping[str, Any]) -> Box:
        if value.get("rotation"):
            raise AnnotationError(
                "Its rectangle is turned.", expected="upright rectangles.", do="Draw it upright around the thing."
            )
        try:
            x, y, width, height = (float(value[name]) for name in ("x", "y", "width", "height"))
        except (KeyError, TypeError, ValueError):
            raise AnnotationError(
                "Its rectangle is incomplete.", expected="the numbers x, y, width and height.", do="Draw it again."
            ) from None
        across, down = self._size[0] / 100, self._size[1] / 100
        edges = x * across, y * down, (x + width) * across, (y + height) * down
        x1, y1, x2, y2 = (round(edge, DECIMALS) for edge in edges)
        return x1, y1, x2, y2


def _label(kind: str, value: Mapping[str, Any]) -> str:
    names = value.get(kind)
    return clean(str(names[0])) if isinstance(names, list) and names else ""
