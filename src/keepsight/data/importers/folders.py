"""Class folders: ``PHOTOS/<class>/*.jpg``, or ``PHOTOS/<train, val, test>/<class>/*.jpg``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from keepsight.data.adding import Rejected
from keepsight.data.importers.source import SPLIT_NAMES, Entry, Source, beside, clean, hidden
from keepsight.errors import DataError, StorageError

KIND = "class folders"


def scan(root: Path) -> Source:
    """The pictures below the class folders of ``root``, in the order of their names.

    The top folders are splits if one of them is called train, val or test and has folders of its own, else classes.
    Pictures deeper than a class folder belong to that class.

    Raises:
        DataError: There are pictures, but no class folders.
        StorageError: The folder cannot be read.
    """
    listing = _Listing(root)
    split_folders = [path for path in listing.folders(root) if path.name.lower() in SPLIT_NAMES and _divided(path)]
    if split_folders:
        for folder in listing.folders(root):
            if folder in split_folders:
                listing.add_classes(folder, split=SPLIT_NAMES[folder.name.lower()])
            else:
                where = ", ".join(path.name for path in split_folders)
                listing.skipped.append(
                    Rejected(
                        listing.name(folder), "not_a_split", f"The folder stands beside {where}, so it is left out."
                    )
                )
        listing.add_stray(root)
    else:
        listing.add_classes(root, split=None)
    if not listing.entries and listing.rejected:
        raise DataError(
            f"The {len(listing.rejected)} files in {root} lie in no class folder.",
            expected="one folder for each class (PHOTOS/apple/1.jpg), or a CSV file with the columns path and label.",
            do="Sort the pictures into folders named like their classes.",
            path=str(root),
        )
    return Source(KIND, tuple(listing.entries), tuple(listing.rejected), tuple(listing.skipped))


class _Listing:
    """Collects what lies below one root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.entries: list[Entry] = []
        self.rejected: list[Rejected] = []
        self.skipped: list[Rejected] = []

    def name(self, path: Path) -> str:
        return clean(path.relative_to(self._root).as_posix())

    def folders(self, parent: Path) -> list[Path]:
        return [path for path in _children(parent) if path.is_dir()]

    def add_classes(self, parent: Path, *, split: str | None) -> None:
        for folder in self.folders(parent):
            for path in _files(folder):
                reason = beside(path, self.name(path))
                if reason is not None:
                    self.skipped.append(reason)
                else:
                    self.entries.append(Entry(path, self.name(path), clean(folder.name), split=split))
        self.add_stray(parent)

    def add_stray(self, parent: Path) -> None:
        for path in _children(parent):
            if path.is_dir():
                continue
            reason = beside(path, self.name(path))
            if reason is not None:
                self.skipped.append(reason)
            else:
                text = "It lies in no class folder, so it has no label. Move it into one."
                self.rejected.append(Rejected(self.name(path), "no_class_folder", text))


def _divided(folder: Path) -> bool:
    return any(path.is_dir() for path in _children(folder))


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, hidden ones left out."""
    for path in _children(folder):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _children(folder: Path) -> list[Path]:
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
