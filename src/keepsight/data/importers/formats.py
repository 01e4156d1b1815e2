"""Which format a path holds: each is a module of this package, and what is most particular is looked for first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from keepsight.data.importers import (
    clips,
    coco,
    documents,
    folders,
    labelstudio,
    manifest,
    marks,
    masks,
    packshots,
    tables,
    voc,
    yolo,
)
from keepsight.data.importers import source as sources
from keepsight.data.importers.source import Source
from keepsight.errors import BadInputError, DataError, NotFoundError


class Format(Protocol):
    """What a module of this package offers that reads one format."""

    NAME: str
    """As ``--format`` takes it."""

    KIND: str
    """In words."""

    GIVES: frozenset[str]
    """The parts of an annotation that it can say (``marks.PARTS``)."""

    EXPECTED: str
    """How it lies on disk, in a few words."""

    def looks(self, path: Path) -> bool:
        """Whether a folder or file looks like it."""

    def scan(self, path: Path) -> Source:
        """What is there, listed.

        Raises:
            DataError: It cannot be used. StorageError: It cannot be read.
        """


# In the order in which they are recognised: what is most particular comes first.
FORMATS: tuple[Format, ...] = cast(
    "tuple[Format, ...]", (coco, labelstudio, yolo, voc, masks, documents, clips, packshots, folders, tables)
)


def names() -> tuple[str, ...]:
    """The formats by their names, as ``format`` takes them."""
    return tuple(sorted(item.NAME for item in FORMATS))


def detect(path: Path, *, task: str, format: str | None = None, label_column: str | None = None) -> Source:
    """What is in a folder or file, listed; no picture is read.

    Args:
        path: A folder or a file.
        task: Of the project: only formats that can say what it needs are taken.
        format: One of ``names``; without it, what the path looks like.
        label_column: The column of a table that holds the label, where its name does not tell.

    Raises:
        NotFoundError: There is nothing at the path, or no such format or column.
        DataError: There is no picture in it that the task could use.
        BadInputError: It is nothing that is known.
    """
    parts = marks.parts_of(task)
    fitting = [item for item in FORMATS if item.GIVES & parts]
    if not path.exists():
        raise NotFoundError(
            f"There is nothing at {path}.", expected=_expected(fitting), do="Check the path.", path=str(path)
        )
    if format is None:
        chosen, notes = _recognised(path, parts, fitting, task=task)
    else:
        chosen, notes = _named(format, fitting, task=task), ()
    source = tables.scan(path, label_column=label_column) if chosen is tables else chosen.scan(path)
    if not source.entries and not source.rejected:
        raise DataError(
            f"There are no pictures in {path}.",
            expected=_expected(fitting),
            do="Check the path.",
            path=str(path),
            kind=source.kind,
        )
    if path.is_dir():
        entries, known = manifest.joined(path, source.entries)
        noted = (f"{manifest.NAME} says more about {known} of the pictures.",) if known else ()
        source = replace(source, entries=entries, notes=(*notes, *noted, *source.notes))
    return source


def _recognised(
    path: Path, parts: frozenset[str], fitting: Sequence[Format], *, task: str
) -> tuple[Format, tuple[str, ...]]:
    """The first format that the path looks like, and a note on others that it looks like too."""
    found = [item for item in FORMATS if item.looks(path)]
    if any(item not in (folders, packshots) for item in found):
        # Whatever lies in folders looks like class folders as well.
        found = [item for item in found if item is not folders]
    usable = [item for item in found if _gives(item, path) & parts and getattr(item, "UNASKED_FOR", parts) & parts]
    if usable:
        others = usable[1:]
        notes = tuple(f"There is {item.KIND} too; --format {item.NAME} takes that instead." for item in others)
        return usable[0], notes
    if path.is_dir() and folders in fitting and (not found or found == [packshots]):
        return folders, ()
    inside = [] if path.is_file() else _folders_with(path, fitting)
    told = " and ".join(item.KIND for item in found) or ("a single file of no known kind" if path.is_file() else "")
    raise (DataError if path.is_dir() else BadInputError)(
        f"{path} is {told}, which cannot be imported for {task}."
        if path.is_file()
        else f"{path} holds {told}, which cannot be imported for {task}."
        if told
        else f"{path} holds nothing that can be imported for {task}.",
        expected=_expected(fitting),
        do=f"Name one of its folders: {', '.join(inside)}."
        if inside
        else "Name the folder above it, or the format with --format."
        if path.is_file()
        else "Check the path, or name the format with --format.",
        path=str(path),
        formats=[item.NAME for item in fitting],
    )


def _gives(item: Format, path: Path) -> frozenset[str]:
    """What a format says at a path; of JSON documents that depends on what stands in them."""
    return documents.gives(path) if item is documents else item.GIVES


def _named(format: str, fitting: Sequence[Format], *, task: str) -> Format:
    if format not in names():
        raise NotFoundError.among("format", format, names())
    chosen = next(item for item in FORMATS if format == item.NAME)
    if chosen not in fitting:
        raise DataError(
            f"{chosen.KIND} cannot say what {task} needs.",
            expected=_expected(fitting),
            do=f"Use one of --format {', '.join(item.NAME for item in fitting)}.",
        )
    return chosen


def _expected(fitting: Sequence[Format]) -> str:
    texts = [item.EXPECTED for item in fitting]
    return f"{', '.join(texts[:-1])} or {texts[-1]}." if len(texts) > 1 else f"{''.join(texts)}."


def _folders_with(path: Path, fitting: Sequence[Format]) -> list[str]:
    """The folders in a folder that look like one of the formats."""
    return [item.name for item in sources.folders(path) if any(kind.looks(item) for kind in fitting)]
