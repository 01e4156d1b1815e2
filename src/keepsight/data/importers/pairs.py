"""Pictures and annotations as two files of the same name: in one folder, or in two beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keepsight.data.adding import Rejected
from keepsight.data.importers.layout import Stems, name_in, picture_folder
from keepsight.data.importers.marks import Marks, Size
from keepsight.data.importers.source import PICTURE_SUFFIXES, Entry, child, children, files_below

Read = Callable[[Path, Size], Marks]


@dataclass(frozen=True)
class Kind:
    """What pairs a format makes.

    Attributes:
        folders: What the folder of the annotations may be called.
        suffixes: Of the annotation files.
        endings: What may stand between a picture's name and the suffix.
        beside: Whether the annotations may also lie in the folder of the pictures.
        ignored: Names of files that are none of the annotations.
    """

    folders: tuple[str, ...]
    suffixes: frozenset[str]
    endings: tuple[str, ...] = ("",)
    beside: bool = True
    ignored: frozenset[str] = frozenset()


def any_file(_path: Path) -> bool:
    """Takes every file with the right suffix."""
    return True


def holds(folder: Path, kind: Kind, *, is_one: Callable[[Path], bool] = any_file) -> bool:
    """Whether a folder has annotations of this kind: the first file with such a suffix is one."""
    if child(folder, *kind.folders) is None:
        files = annotation_files(folder, kind, deep=False)
        return kind.beside and any(_has_picture(path) and is_one(path) for path in files)
    file = first(folder, kind)
    return file is not None and is_one(file) and (kind.beside or picture_folder(folder) != folder)


def first(folder: Path, kind: Kind) -> Path | None:
    """The first annotation file of a folder; None where there is none."""
    place = child(folder, *kind.folders)
    if place is not None:
        return next(annotation_files(place, kind, deep=True), None)
    return next((path for path in annotation_files(folder, kind, deep=False) if _has_picture(path)), None)


def listed(
    folder: Path, kind: Kind, *, root: Path, split: str | None, read: Read
) -> tuple[list[Entry], list[Rejected], list[Rejected]]:
    """The pictures of a folder with their annotations: entries, what is rejected and what is skipped.

    A picture without an annotation comes in without one: nobody said that there is nothing in it.
    """
    place = child(folder, *kind.folders)
    pictures = picture_folder(folder)
    if place is not None and pictures == folder:
        # Pictures in the folder itself, annotations in one of its folders.
        stems = Stems.of(folder, root=root, known=kind.suffixes, deep=False)
    else:
        stems = Stems.of(pictures, root=root, known=kind.suffixes if place is None else frozenset(), deep=bool(place))
    rejected = list(stems.rejected)
    notes: dict[str, Path] = {}
    for path in annotation_files(place or pictures, kind, deep=place is not None):
        stem = path.relative_to(place or pictures).with_suffix("").as_posix()
        stem = next((stem.removesuffix(end) for end in kind.endings if _fits(stem, end, stems.found)), stem)
        if stem not in stems.found:
            text = f"There is no picture of its name in {name_in(root, pictures) or root.name}."
            rejected.append(Rejected(name_in(root, path), "picture_missing", text))
        elif stem in notes:
            text = f"{name_in(root, stems.found[stem])} has an annotation already, {notes[stem].name}."
            rejected.append(Rejected(name_in(root, path), "annotated_twice", text))
        else:
            notes[stem] = path
    entries = [
        Entry(path, name_in(root, path), split=split, marks=_reader(read, notes.get(stem)))
        for stem, path in sorted(stems.found.items())
    ]
    return entries, rejected, stems.skipped


def annotation_files(place: Path, kind: Kind, *, deep: bool) -> Iterator[Path]:
    """The annotation files of a folder."""
    for path in files_below(place) if deep else children(place):
        if path.suffix.lower() in kind.suffixes and path.name.lower() not in kind.ignored and path.is_file():
            yield path


def without(entries: Sequence[Entry]) -> tuple[str, ...]:
    """A note on the pictures that have no annotation file."""
    count = sum(entry.marks is None for entry in entries)
    if not count:
        return ()
    told = "1 picture has no annotation and comes" if count == 1 else f"{count} pictures have no annotation and come"
    return (f"{told} in without one. Where there is nothing in a picture, an empty annotation says so.",)


def _reader(read: Read, path: Path | None) -> Callable[[Size], Marks] | None:
    return None if path is None else lambda size: read(path, size)


def _fits(stem: str, ending: str, found: dict[str, Path]) -> bool:
    return stem.endswith(ending) and stem.removesuffix(ending) in found


def _has_picture(path: Path) -> bool:
    return any(path.with_suffix(suffix).is_file() for suffix in PICTURE_SUFFIXES | {".JPG", ".JPEG", ".PNG"})
