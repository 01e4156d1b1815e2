"""Pascal VOC: one XML file for each picture, with the things in it and their boxes."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from keepsight.data.adding import Rejected
from keepsight.data.importers import layout, pairs
from keepsight.data.importers.marks import CLASSES, THINGS, Box, Fault, Marks, Shape, Size
from keepsight.data.importers.source import SPLIT_NAMES, Entry, Source, child, clean, read_bytes
from keepsight.errors import AnnotationError

NAME = "voc"
KIND = "Pascal VOC XML"
GIVES = THINGS | CLASSES
EXPECTED = "Pascal VOC XML (images/ and annotations/)"

_PAIRS = pairs.Kind(folders=("annotations", "labels", "xml"), suffixes=frozenset({".xml"}))
_SNIFFED = 4096


def looks(path: Path) -> bool:
    """Whether a folder, or its split folders, hold such files."""
    return path.is_dir() and bool(layout.units(path, _holds)[0])


def scan(path: Path) -> Source:
    """The pictures of a folder with their things.

    VOC's own lists (``ImageSets/Main/train.txt``) give the splits where no folders do.

    Raises:
        StorageError: The folder cannot be read.
    """
    found, skipped = layout.units(path, _holds)
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    for unit in found:
        some, bad, other = pairs.listed(unit.folder, _PAIRS, root=path, split=unit.split, read=_read)
        splits = {} if unit.split else _image_sets(unit.folder)
        entries += [_with_split(entry, splits.get(entry.path.stem)) for entry in some]
        rejected += bad
        skipped += other
    return Source(KIND, tuple(entries), tuple(rejected), tuple(skipped), pairs.without(entries))


def _holds(folder: Path) -> bool:
    return pairs.holds(folder, _PAIRS, is_one=_is_voc)


def _is_voc(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"<annotation" in file.read(_SNIFFED)
    except OSError:
        return False


def _image_sets(folder: Path) -> dict[str, str]:
    """The split of each picture by its name; trainval says nothing about which of the two."""
    sets = child(folder, "imagesets")
    place = None if sets is None else child(sets, "main") or sets
    splits: dict[str, str] = {}
    for name in ("train", "val", "test"):
        path = None if place is None else place / f"{name}.txt"
        if path is not None and path.is_file():
            words = read_bytes(path).decode("utf-8", "replace").split()
            splits.update(dict.fromkeys(words, SPLIT_NAMES[name]))
    return splits


def _with_split(entry: Entry, split: str | None) -> Entry:
    return Entry(entry.path, entry.name, split=split or entry.split, marks=entry.marks)


def _read(path: Path, _size: Size) -> Marks:
    root = _root(path)
    shapes: list[Shape] = []
    faults: list[Fault] = []
    for number, item in enumerate(root.iter("object"), start=1):
        where = f"object {number}"
        label = clean((item.findtext("name") or "").strip())
        box = item.find("bndbox")
        try:
            if not label:
                raise AnnotationError("It has no name.", expected="a class.", do="Name it.")
            shapes.append(Shape(label, where, None if box is None else _box(box)))
        except AnnotationError as error:
            faults.append(Fault(where, error.code, f"{error.found} {error.do}"))
    return Marks(shapes=tuple(shapes), faults=tuple(faults), size=_stated(root))


def _root(path: Path) -> ElementTree.Element:
    content = read_bytes(path)
    fault = ""
    # Entities can grow to gigabytes, and no annotation needs them. In UTF-16 they would not be seen.
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content or b"\x00" in content:
        fault = "it declares a document type, or is no UTF-8"
    else:
        try:
            root = ElementTree.fromstring(content)  # noqa: S314 - without a document type there are no entities
            if root.tag == "annotation":
                return root
            fault = f"its root is <{root.tag}>"
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            fault = str(error)
    raise AnnotationError(
        f"{path.name} is no Pascal VOC annotation ({fault}).",
        expected="an XML file with <annotation> and an <object> for each thing.",
        do="Export it again.",
    )


def _stated(root: ElementTree.Element) -> Size | None:
    try:
        width, height = (round(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _box(element: ElementTree.Element) -> Box:
    texts = [element.findtext(name) for name in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = (float(text or "missing") for text in texts)
    except ValueError:
        raise AnnotationError(
            f"Its box is {', '.join(str(text) for text in texts)}.",
            expected="the numbers xmin, ymin, xmax and ymax.",
            do="Correct it.",
        ) from None
    return x1, y1, x2, y2
