"""Class folders: ``PHOTOS/<class>/*.jpg``, or ``PHOTOS/<train, val, test>/<class>/*.jpg``."""

from __future__ import annotations

from pathlib import Path

from keepsight.data.adding import Rejected
from keepsight.data.importers.layout import left_out, name_in
from keepsight.data.importers.marks import CLASSES
from keepsight.data.importers.source import (
    SPLIT_NAMES,
    Entry,
    Source,
    beside,
    children,
    clean,
    files_below,
    folders,
    is_picture,
)
from keepsight.data.video import is_video
from keepsight.errors import DataError

NAME = "folders"
KIND = "class folders"
GIVES = CLASSES | {"subjects"}
EXPECTED = "class folders (PHOTOS/apple/1.jpg)"


def looks(path: Path) -> bool:
    """Whether there are pictures in folders at a path."""
    return path.is_dir() and any(
        is_picture(item) or is_video(item) for folder in folders(path) for item in files_below(folder)
    )


def scan(root: Path) -> Source:
    """The pictures below the class folders of ``root``, in the order of their names.

    The top folders are splits if one of them is called train, val or test and has folders of its own, else classes.
    Pictures deeper than a class folder belong to that class.

    Raises:
        DataError: There are pictures, but no class folders.
        StorageError: The folder cannot be read.
    """
    listing = _Listing(root)
    split_folders = [path for path in folders(root) if path.name.lower() in SPLIT_NAMES and folders(path)]
    if split_folders:
        for folder in folders(root):
            if folder in split_folders:
                listing.add_classes(folder, split=SPLIT_NAMES[folder.name.lower()])
            else:
                listing.skipped.append(left_out(folder, beside=split_folders))
        listing.add_stray(root)
    else:
        listing.add_classes(root, split=None)
    if not listing.entries and listing.rejected:
        raise DataError(
            f"The {len(listing.rejected)} files in {root} lie in no class folder.",
            expected="one folder for each class (PHOTOS/apple/1.jpg), or a CSV file with the columns path and label.",
            do="Sort the pictures into folders named like their classes; where each file is named like its class, "
            "import it with --format one-per-class.",
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
        return name_in(self._root, path)

    def add_classes(self, parent: Path, *, split: str | None) -> None:
        for folder in folders(parent):
            for path in files_below(folder):
                reason = beside(path, self.name(path))
                if reason is not None:
                    self.skipped.append(reason)
                else:
                    self.entries.append(Entry(path, self.name(path), clean(folder.name), split=split))
        self.add_stray(parent)

    def add_stray(self, parent: Path) -> None:
        for path in children(parent):
            if path.is_dir():
                continue
            reason = beside(path, self.name(path))
            if reason is not None:
                self.skipped.append(reason)
            else:
                text = "It lies in no class folder, so it has no label. Move it into one."
                self.rejected.append(Rejected(self.name(path), "no_class_folder", text))
