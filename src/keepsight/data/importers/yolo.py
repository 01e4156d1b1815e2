"""YOLO text files: a line for each thing with its class number and its box or outline as shares of the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from keepsight.data.adding import Rejected
from keepsight.data.importers import layout, pairs, polygons
from keepsight.data.importers.marks import CLASSES, DECIMALS, THINGS, Fault, Marks, Shape, Size
from keepsight.data.importers.source import SPLIT_NAMES, Entry, Source, child, children, clean, read_text
from keepsight.errors import AnnotationError, BadInputError, DataError

NAME = "yolo"
KIND = "YOLO text files"
GIVES = THINGS | CLASSES | {"mask"}
EXPECTED = "YOLO text files (images/, labels/ and data.yaml or classes.txt)"

_LISTS = ("classes.txt", "obj.names", "classes.names", "names.txt", "labels.txt")
_NO_LABELS = frozenset({*_LISTS, "train.txt", "val.txt", "test.txt", "readme.txt", "notes.txt", "requirements.txt"})
_PAIRS = pairs.Kind(folders=("labels",), suffixes=frozenset({".txt"}), ignored=_NO_LABELS)


def looks(path: Path) -> bool:
    """Whether a folder (or the folder of a data.yaml) holds such files."""
    if path.is_file():
        return path.suffix.lower() in (".yaml", ".yml") and bool(_names_in(path)) and looks(path.parent)
    return bool(layout.units(path, _holds)[0])


def scan(path: Path) -> Source:
    """The pictures of a folder with their things.

    Splits are folders of the data set (``train/images``) or of its pictures (``images/train``).

    Raises:
        DataError: Nothing names the classes. StorageError: The folder cannot be read.
    """
    root = path.parent if path.is_file() else path
    names = _names_in(path) if path.is_file() else None
    found, skipped = layout.units(root, _holds)
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    for unit in found:
        known = names or _names(unit.folder) or _names(root)
        if not known:
            raise DataError(
                f"{unit.folder} has label files with class numbers, and nothing names the classes.",
                expected="a data.yaml with names, or a classes.txt with one name a line.",
                do="Put the file that your tool wrote beside the pictures.",
                path=str(unit.folder),
            )
        read = partial(_read, names=known)
        some, bad, other = pairs.listed(unit.folder, _PAIRS, root=root, split=unit.split, read=read)
        entries += some if unit.split else _divided(unit.folder, some, skipped)
        rejected += bad
        skipped += other
    return Source(KIND, tuple(entries), tuple(rejected), tuple(skipped), pairs.without(entries))


def _holds(folder: Path) -> bool:
    return pairs.holds(folder, _PAIRS, is_one=_is_yolo)


def _is_yolo(path: Path) -> bool:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:20]
    except (OSError, UnicodeError):
        return False
    return not lines or any(_numbers(line) is not None for line in lines)


def _numbers(line: str) -> list[float] | None:
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        return None
    return numbers if len(numbers) >= 5 and all(math.isfinite(number) for number in numbers) else None


def _divided(folder: Path, entries: Sequence[Entry], skipped: list[Rejected]) -> list[Entry]:
    """The pictures of ``images/train``, ``images/val`` and so on with their splits; other folders are left out."""
    pictures = layout.picture_folder(folder)
    tops = {path for path in children(pictures) if path.is_dir()}
    splits = {path for path in tops if path.name.lower() in SPLIT_NAMES}
    if not splits:
        return list(entries)
    skipped += [layout.left_out(path, beside=splits) for path in sorted(tops - splits)]
    by_top = {path.name: SPLIT_NAMES[path.name.lower()] for path in splits}
    kept = []
    for entry in entries:
        parts = entry.path.relative_to(pictures).parts
        if len(parts) == 1 or parts[0] in by_top:
            kept.append(replace(entry, split=by_top.get(parts[0])))
    return kept


def _names(folder: Path) -> dict[int, str]:
    """The classes by their numbers, from the first file that names them."""
    places = [folder, *([place] if (place := child(folder, "labels")) else [])]
    for place in places:
        for path in children(place):
            if path.is_file() and path.suffix.lower() in (".yaml", ".yml") and (names := _names_in(path)):
                return names
    for place in places:
        for path in children(place):
            if path.is_file() and path.name.lower() in _LISTS:
                lines = [clean(line).strip() for line in read_text(path).splitlines()]
                return {number: name for number, name in enumerate(lines) if name}
    return {}


def _names_in(path: Path) -> dict[int, str]:
    import yaml

    try:
        document: Any = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, BadInputError, RecursionError, ValueError):
        return {}
    names = document.get("names") if isinstance(document, Mapping) else None
    if isinstance(names, Mapping):
        return {number: clean(str(name)) for number, name in names.items() if isinstance(number, int)}
    return {number: clean(str(name)) for number, name in enumerate(names)} if isinstance(names, list) else {}


def _read(path: Path, size: Size, *, names: Mapping[int, str]) -> Marks:
    try:
        text = read_text(path)
    except BadInputError as error:
        raise AnnotationError(error.found, expected=error.expected, do=error.do) from None
    shapes: list[Shape] = []
    faults: list[Fault] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            found = _shape(line, where=f"line {number}", size=size, names=names)
            if isinstance(found, Shape):
                shapes.append(found)
            else:
                faults.append(found)
    return Marks(shapes=tuple(shapes), faults=tuple(faults))


def _shape(line: str, *, where: str, size: Size, names: Mapping[int, str]) -> Shape | Fault:
    numbers = _numbers(line)
    if numbers is None or (len(numbers) != 5 and (len(numbers) < 7 or len(numbers) % 2 == 0)):
        text = (
            f'It says "{line.strip()[:60]}"; a line has a class number and four shares, or the corners of an outline.'
        )
        return Fault(where, "line_invalid", text)
    label = names.get(int(numbers[0])) if numbers[0].is_integer() else None
    if label is None:
        return Fault(where, "category_unknown", f"It has the class {numbers[0]:g}, which nothing names.")
    shares = numbers[1:]
    if max(map(abs, shares)) > 2:
        return Fault(where, "line_invalid", "Its numbers are no shares of the picture (0 to 1); they may be pixels.")
    if len(shares) > 4:
        corners = polygons.points([share * size[at % 2] for at, share in enumerate(shares)])
        return Shape(label, where, polygons.around([corners]), lambda size: polygons.filled([corners], size=size))
    x, y, w, h = (share * size[at % 2] for at, share in enumerate(shares))
    if w <= 0 or h <= 0:
        return Fault(where, "box_invalid", f"Its box is {shares[2]:g} wide and {shares[3]:g} high.")
    edges = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    x1, y1, x2, y2 = (round(edge, DECIMALS) for edge in edges)
    return Shape(label, where, (x1, y1, x2, y2))
