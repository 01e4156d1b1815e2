"""How data sets lie in folders: divided into train, val and test or not, pictures in one, annotations in another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from keepsight.data.adding import Rejected
from keepsight.data.importers.source import SPLIT_NAMES, child, children, clean, files_below, folders, is_picture

PICTURE_FOLDERS = ("images", "jpegimages", "pictures", "photos", "img", "imgs")


@dataclass(frozen=True)
class Unit:
    """A folder that holds pictures and annotations, and the split that its name says."""

    folder: Path
    split: str | None


def units(root: Path, holds: Callable[[Path], bool]) -> tuple[list[Unit], list[Rejected]]:
    """The folders at ``root`` that hold what an importer looks for, and those that are left out.

    Folders called train, val and test count where one of them holds it; others beside them that hold it too are left
    out. Else it is the root itself, or nothing.
    """
    found = [folder for folder in folders(root) if holds(folder)]
    divided = [Unit(folder, SPLIT_NAMES[folder.name.lower()]) for folder in found if folder.name.lower() in SPLIT_NAMES]
    if not divided:
        return ([Unit(root, None)] if holds(root) else []), []
    beside = {unit.folder for unit in divided}
    return divided, [left_out(folder, beside=beside) for folder in found if folder not in beside]


def left_out(folder: Path, *, beside: Iterable[Path]) -> Rejected:
    """The note on a folder that is none of the splits it stands beside."""
    names = ", ".join(sorted(path.name for path in beside))
    text = (
        f"The folder stands beside {names}, so it is left out. To take it too, import {folder} by itself with "
        "--split train, val or test."
    )
    return Rejected(clean(folder.name), "not_a_split", text)


def picture_folder(folder: Path) -> Path:
    """Where the pictures of a folder lie: in ``images/`` (also JPEGImages, photos, ...), or in itself."""
    return child(folder, *PICTURE_FOLDERS) or folder


def name_in(root: Path, path: Path) -> str:
    """The name of a file for reports and samples: its path below the root."""
    return clean(path.relative_to(root).as_posix()) if path.is_relative_to(root) else clean(path.name)


@dataclass
class Stems:
    """The pictures below a folder by their names without suffix, for formats that pair files by name.

    Attributes:
        found: Path of each picture by its path below the folder without suffix.
        rejected: Pictures that differ from another one by their suffix only.
        skipped: Files that are no pictures by their name, of kinds that ``known`` does not name.
    """

    found: dict[str, Path] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    skipped: list[Rejected] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path, *, root: Path, known: frozenset[str] = frozenset(), deep: bool = True) -> Stems:
        """What lies in a folder, and below it if ``deep``; files with ``known`` suffixes are not reported."""
        stems = cls()
        for path in files_below(folder) if deep else (item for item in children(folder) if item.is_file()):
            if path.suffix.lower() in known:
                continue
            if not is_picture(path):
                stems.skipped.append(Rejected(name_in(root, path), "no_picture", "By its name it is no picture."))
                continue
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in stems.found:
                text = f"{stems.found[stem].name} has the same name, so the annotation cannot be told apart."
                stems.rejected.append(Rejected(name_in(root, path), "name_twice", text))
            else:
                stems.found[stem] = path
        return stems


class Finder:
    """Finds the pictures that an annotation file names, and never outside the data set's own folder."""

    def __init__(self, root: Path, bases: Iterable[Path]) -> None:
        """
        Args:
            root: The folder that the data set lies in.
            bases: Folders that the names may be relative to, the likeliest first.
        """
        self._root = root.resolve()
        self._bases = list(dict.fromkeys(bases))

    def find(self, reference: str) -> Path | Rejected:
        """The picture's file, or why it is not taken.

        Tried are the whole reference below each base, then its last part: exports keep paths of another machine.
        """
        wanted = reference.replace("\\", "/")
        name = clean(wanted) or "picture without a name"
        if not wanted.strip("/") or "\x00" in wanted:
            return Rejected(name, "file_missing", "The annotation names no picture.")
        for place in dict.fromkeys((wanted.lstrip("/"), PurePosixPath(wanted).name)):
            for base in self._bases:
                path = Path(os.path.normpath(base / place))
                try:
                    if path.is_file() and path.resolve().is_relative_to(self._root):
                        return path
                except OSError:
                    continue
        return Rejected(name, "file_missing", f"There is no such picture in {self._root.name}.")
