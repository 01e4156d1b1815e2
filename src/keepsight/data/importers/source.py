"""What an importer found at a path, before any picture is read."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keepsight.data.adding import Rejected

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

_NO_PICTURES = {".csv", ".db", ".html", ".ini", ".json", ".log", ".md", ".tsv", ".txt", ".xml", ".yaml", ".yml"}
_NO_PICTURE_NAMES = {"copying", "license", "notice", "readme"}
_SYSTEM_NAMES = {"__macosx", "desktop.ini", "thumbs.db"}


@dataclass(frozen=True)
class Entry:
    """One picture to import: where it is and what is said about it; ``split`` None leaves it to the commit."""

    path: Path
    name: str
    label: str | None
    split: str | None = None
    group: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Everything at a path: pictures to import, what cannot be imported, and files that are no pictures."""

    kind: str
    entries: tuple[Entry, ...]
    rejected: tuple[Rejected, ...] = ()
    skipped: tuple[Rejected, ...] = ()


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
