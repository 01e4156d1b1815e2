"""A flat folder with one picture for each class, named like it: ``Anna.jpg``, ``Golden-Delicious.png``."""

from __future__ import annotations

from pathlib import Path

from keepsight.data.adding import Rejected
from keepsight.data.importers.source import Entry, Source, beside, children, clean, is_picture

NAME = "one-per-class"
KIND = "one picture for each class"
GIVES = frozenset({"subjects", "flags", "labels", "label"})
# One picture of each is what recognition is made for; for the others a flat folder is more likely a mistake.
UNASKED_FOR = frozenset({"subjects"})
EXPECTED = "a flat folder with one picture for each class (Anna.jpg)"


def looks(path: Path) -> bool:
    """Whether a folder holds pictures and no folders."""
    found = children(path) if path.is_dir() else []
    return any(is_picture(item) for item in found) and not any(item.is_dir() for item in found)


def scan(path: Path) -> Source:
    """The pictures of a folder, each labelled with its name without suffix.

    Raises:
        StorageError: The folder cannot be read.
    """
    entries: list[Entry] = []
    skipped: list[Rejected] = []
    for item in children(path):
        name = clean(item.name)
        if item.is_dir():
            skipped.append(Rejected(name, "folder", "It is a folder; the pictures lie beside it."))
            continue
        reason = beside(item, name)
        if reason is not None:
            skipped.append(reason)
        else:
            entries.append(Entry(item, name, clean(item.stem)))
    return Source(KIND, tuple(entries), skipped=tuple(skipped))
