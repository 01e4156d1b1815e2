"""JSON documents: one file for each picture that holds its annotation, as the task writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from keepsight.data.adding import Rejected
from keepsight.data.importers import layout, pairs
from keepsight.data.importers.marks import PARTS, Marks, Size, of_value, offered
from keepsight.data.importers.source import Entry, Source, read_text
from keepsight.errors import AnnotationError, BadInputError

NAME = "json"
KIND = "JSON documents"
GIVES = PARTS
EXPECTED = "JSON documents (images/ and annotations/, one JSON file for each picture)"

# What a document says about its picture, and not about what is in it.
ABOUT_THE_PICTURE = frozenset({"image", "width", "height", "group", "meta"})

_PAIRS = pairs.Kind(folders=("annotations", "labels", "json"), suffixes=frozenset({".json"}))


def looks(path: Path) -> bool:
    """Whether a folder, or its split folders, hold such documents."""
    return path.is_dir() and bool(layout.units(path, _holds)[0])


def gives(path: Path) -> frozenset[str]:
    """The parts that the first document has."""
    found, _ = layout.units(path, _holds)
    first = next((file for unit in found if (file := pairs.first(unit.folder, _PAIRS)) is not None), None)
    try:
        return frozenset() if first is None else offered(of_value(_document(first)))
    except AnnotationError:
        return GIVES


def scan(path: Path) -> Source:
    """The pictures of a folder with what their documents say.

    Raises:
        StorageError: The folder cannot be read.
    """
    found, skipped = layout.units(path, _holds)
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    for unit in found:
        some, bad, other = pairs.listed(unit.folder, _PAIRS, root=path, split=unit.split, read=_read)
        entries += some
        rejected += bad
        skipped += other
    return Source(KIND, tuple(entries), tuple(rejected), tuple(skipped), pairs.without(entries))


def _holds(folder: Path) -> bool:
    return pairs.holds(folder, _PAIRS, is_one=_is_document)


def _is_document(path: Path) -> bool:
    try:
        return bool(_document(path).keys() & PARTS)
    except AnnotationError:
        return False


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(read_text(path))
        if not isinstance(document, Mapping):
            raise ValueError(f"it is a {type(document).__name__}")
    except (ValueError, RecursionError, BadInputError) as error:
        found = error.found if isinstance(error, BadInputError) else str(error)
        raise AnnotationError(
            f"{path.name} is no JSON document ({found}).", expected="a JSON object.", do="Correct it."
        ) from None
    found_document: Mapping[str, Any] = document
    return found_document


def _read(path: Path, _size: Size) -> Marks:
    document = _document(path)
    marks = of_value({name: value for name, value in document.items() if name not in ABOUT_THE_PICTURE})
    width, height = document.get("width"), document.get("height")
    stated = (width, height) if isinstance(width, int) and isinstance(height, int) else None
    return replace(marks, size=stated)
