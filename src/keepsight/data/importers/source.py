"""What an importer found at a path, before any picture is read."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keepsight.data.adding import Rejected
from keepsight.data.importers.marks import Marks, Size
from keepsight.errors import BadInputError, StorageError

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

# What the runtime decodes, as files are called.
PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

_NO_PICTURES = {".csv", ".db", ".html", ".ini", ".json", ".log", ".md", ".tsv", ".txt", ".xml", ".yaml", ".yml"}
_NO_PICTURE_NAMES = {"copying", "license", "notice", "readme"}
_SYSTEM_NAMES = {"__macosx", "desktop.ini", "thumbs.db"}

# Annotation files are read whole; one of this size already describes millions of things.
MOST_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Entry:
    """One picture to import: where it is and what is said about it.

    Attributes:
        path: The picture file.
        name: What it is called in reports and afterwards.
        label: The raw annotation, for the project's task to parse; None where there is none.
        split: train, val or test; None leaves it to the commit.
        group: What belongs on one side of a split with it.
        meta: Further facts.
        marks: Gives what the source says once the size (width, height) of the upright picture is known; used instead of
            ``label`` where it is there. Raises AnnotationError where the picture's annotation cannot be read.
    """

    path: Path
    name: str
    label: Any = None
    split: str | None = None
    group: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    marks: Callable[[Size], Marks] | None = None


@dataclass(frozen=True)
class Source:
    """Everything at a path: pictures to import, what cannot be imported, and files that are no pictures.

    ``kind`` says in words what the path was taken for; ``notes`` what a person should know about that.
    """

    kind: str
    entries: tuple[Entry, ...]
    rejected: tuple[Rejected, ...] = ()
    skipped: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = ()


def clean(text: str) -> str:
    """The text as every database takes it: valid Unicode in its composed form, without zero characters.

    File names may hold bytes that are no UTF-8, and macOS writes "ä" as two characters: one class would become two.
    """
    valid = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return unicodedata.normalize("NFC", valid).replace("\x00", "")


def hidden(path: Path) -> bool:
    """Whether a file or folder is the operating system's own business."""
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_NAMES


def beside(path: Path, name: str) -> Rejected | None:
    """Why a file is skipped unread: its name says that it is no picture. None for what may be one."""
    if path.suffix.lower() in _NO_PICTURES or (not path.suffix and path.name.lower() in _NO_PICTURE_NAMES):
        return Rejected(name, "no_picture", "By its name it is no picture.")
    return None


def is_picture(path: Path) -> bool:
    """Whether a file is called like a picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def children(folder: Path) -> list[Path]:
    """What lies in a folder, in the order of the names, hidden things left out.

    Raises:
        StorageError: The folder cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            paths = [Path(item.path) for item in found]
    except OSError as error:
        raise StorageError(
            f"The folder {folder} cannot be read: {error.strerror}.",
            expected="a folder that can be read.",
            do="Change its permissions.",
        ) from None
    return sorted(path for path in paths if not hidden(path))


def folders(parent: Path) -> list[Path]:
    """The folders in a folder, in the order of their names."""
    return [path for path in children(parent) if path.is_dir()]


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, hidden ones left out."""
    for path in children(folder):
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


def child(parent: Path, *names: str) -> Path | None:
    """The first of these folders that is there, whatever its capitals."""
    known = {path.name.lower(): path for path in folders(parent)}
    return next((known[name] for name in names if name in known), None)


def read_bytes(path: Path) -> bytes:
    """The content of an annotation file.

    Raises:
        BadInputError: It is too large. StorageError: It cannot be read.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInputError(
                f"{path} has over {MOST_BYTES // 2**30} GiB.",
                expected="an annotation file that fits into memory.",
                do="Divide it into several files.",
                path=str(path),
            )
        return path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror}.", expected="a readable file.", do="Change its permissions."
        ) from None


def read_text(path: Path) -> str:
    """The text of an annotation file, in UTF-8.

    Raises:
        BadInputError: It is no UTF-8 text, or too large. StorageError: It cannot be read.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
        if "\x00" in text:
            raise UnicodeError
    except UnicodeError:
        raise BadInputError(
            f"{path} is no UTF-8 text.", expected="a text file in UTF-8.", do="Save it again as UTF-8.", path=str(path)
        ) from None
    return text
