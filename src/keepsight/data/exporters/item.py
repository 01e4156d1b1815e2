"""One picture on its way out, and the files that a format makes of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from keepsight import tasks
from keepsight.data.importers.marks import Marks, Size, of_value
from keepsight.data.importers.source import PICTURE_SUFFIXES
from keepsight.data.samples import Sample
from keepsight.errors import AnnotationError

Content = bytes | Iterable[bytes]

_SUFFIX_OF = {"jpeg": ".jpg", "tiff": ".tif"}
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]+')
# Names that Windows keeps for devices, and the length that every file system takes with suffix and number.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_LONGEST = 150


@dataclass(frozen=True)
class File:
    """A file to write: its path in the export, its content whole or in pieces."""

    path: str
    content: Content


@dataclass(frozen=True)
class Item:
    """A picture with its annotation.

    Attributes:
        sample: As it stands in the version.
        value: Its annotation.
        stem: The name that its files get, without suffix; no two pictures of a split share one.
        suffix: Of the picture file, by its format.
        size: Width and height of the upright picture.
        read: Gives the bytes of the picture.
        task: Parses what is written, to make sure that it comes back.
    """

    sample: Sample
    value: Mapping[str, Any]
    stem: str
    suffix: str
    size: Size
    read: Callable[[], bytes]
    task: tasks.Task

    @property
    def split(self) -> str:
        """train, val, test or recent."""
        return self.sample.split

    @property
    def file(self) -> str:
        """Name of the picture file."""
        return f"{self.stem}{self.suffix}"

    @property
    def marks(self) -> Marks:
        """What the annotation says."""
        return of_value(self.value)

    def picture(self, path: str) -> File:
        """The picture file at a path of the export; its bytes are read when they are written."""
        return File(path, self._bytes())

    def text(self) -> str | None:
        """The annotation as one short text that its task understands; None where there is none."""
        candidates = (self.task.summary(self.value), "|".join(self.task.classes(self.value)))
        for text in candidates:
            try:
                if text and self.task.canonical(self.task.parse(text)) == self.task.canonical(self.value):
                    return text
            except AnnotationError:
                continue
        return None

    def _bytes(self) -> Iterator[bytes]:
        yield self.read()


def suffix_of(format: str) -> str:
    """The suffix of a picture's format as the runtime names it."""
    return _SUFFIX_OF.get(format, f".{format}")


class Stems:
    """Gives each picture of a split a name of its own, made of the name that it came with."""

    def __init__(self) -> None:
        self._taken: dict[str, set[str]] = {}

    def of(self, sample: Sample) -> str:
        """``shelf/1.jpg`` becomes ``shelf_1``; a second picture of that name gets a number."""
        path = PurePosixPath(sample.name)
        path = path.with_suffix("") if path.suffix.lower() in PICTURE_SUFFIXES else path
        parts = [part for part in path.parts if part not in ("/", "..", ".")]
        # The folders that an earlier export or import made say nothing about the picture.
        kept = [part for part in parts[:-1] if part.lower() not in _LAYOUT] + parts[-1:]
        stem = file_name("_".join(kept)) or sample.sample_id
        taken = self._taken.setdefault(sample.split, set())
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        return name


_LAYOUT = frozenset({"images", "train", "val", "test", "recent", "jpegimages"})


def file_name(text: str) -> str:
    """A name that every file system takes; empty where nothing is left of it."""
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", text)).strip(" ._")[:_LONGEST].strip(" ._")
    return f"_{name}" if _RESERVED.match(name) else name


def by_split(items: Sequence[Item]) -> dict[str, list[Item]]:
    """The pictures of each split, splits in the order of their names."""
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.split, []).append(item)
    return dict(sorted(found.items()))


def number(value: float) -> float | int:
    """A coordinate without needless digits."""
    rounded = round(value, 4)
    return int(rounded) if float(rounded).is_integer() else rounded


def classes_of(items: Iterable[Item]) -> list[str]:
    """The classes of all things, sorted: every split numbers them alike."""
    return sorted({shape.label for item in items for shape in item.marks.shapes or ()})
