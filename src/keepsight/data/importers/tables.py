"""A table that lists pictures: CSV with the columns path, label, split and group; further ones become metadata."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from keepsight.data.adding import Rejected
from keepsight.data.importers.marks import PARTS, Marks, Size, of_value
from keepsight.data.importers.source import SPLIT_NAMES, Entry, Source, clean
from keepsight.errors import BadInputError, DataError, NotFoundError, StorageError

NAME = "csv"
KIND = "table"
GIVES = PARTS
EXPECTED = "a CSV file with the columns path and label"
SUFFIXES = {".csv", ".tsv"}

# Of one cell; an annotation written as JSON is longer than Python's reader takes by itself.
LONGEST_CELL = 16 * 1024 * 1024

# What each column may be called, the first found counts; capitals do not matter.
PATH_NAMES = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "picture")
LABEL_NAMES = ("label", "class", "class_name", "category")
SPLIT_COLUMN = ("split",)
GROUP_NAMES = ("group", "group_id")

_SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class _Columns:
    """Positions of the columns that mean something; the others are metadata."""

    header: tuple[str, ...]
    path: int
    label: int
    split: int | None
    group: int | None

    @property
    def others(self) -> list[int]:
        used = {self.path, self.label, self.split, self.group}
        return [at for at in range(len(self.header)) if at not in used and self.header[at]]


def looks(path: Path) -> bool:
    """Whether a file is a table by its name."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def scan(path: Path, *, label_column: str | None = None) -> Source:
    """The pictures that a table lists; paths are relative to the table.

    An empty label leaves the picture unlabelled, an empty split leaves that to the commit. A label is what the task
    parses: a class, several as ``a|b``, or the annotation itself as JSON.

    Raises:
        NotFoundError: There is no column ``label_column``. DataError: A column is missing, or the table is empty.
        BadInputError: It is no UTF-8 text. StorageError: It cannot be read.
    """
    lines = lines_of(path)
    header = next(lines, None)
    if header is None:
        raise DataError(f"{path} is empty.", expected="a table with a header.", do="Check the file.", path=str(path))
    columns = _find_columns(path, header, label_column=label_column)
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    for number, cells in enumerate(lines, start=2):
        if not any(cells):
            continue
        found = _entry(path.parent, columns, cells, line=number)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            rejected.append(found)
    return Source(KIND, tuple(entries), tuple(rejected))


def lines_of(path: Path) -> Iterator[list[str]]:
    """The lines of a table, each cell without blanks around it; the separator is the one that the header has most of.

    Raises:
        BadInputError: It is no UTF-8 text, or no table. StorageError: It cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\x00" in text:
            raise UnicodeError
    except UnicodeError:
        raise BadInputError(
            f"{path} is no UTF-8 text.",
            expected="a table in UTF-8.",
            do='Save it again as "CSV UTF-8".',
            path=str(path),
        ) from None
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror}.", expected="a readable file.", do="Change its permissions."
        ) from None
    first = text.split("\n", 1)[0]
    separator = max(_SEPARATORS, key=first.count)
    csv.field_size_limit(LONGEST_CELL)
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
            yield [cell.strip() for cell in cells]
    except csv.Error as error:
        raise BadInputError(
            f"{path} is no CSV table: {error}.",
            expected="cells separated by commas, quotes closed.",
            do="Correct the line, or save the table again.",
            path=str(path),
        ) from None


def _find_columns(path: Path, header: Sequence[str], *, label_column: str | None) -> _Columns:
    names = [name.lower() for name in header]

    def position(wanted: Sequence[str]) -> int | None:
        return next((names.index(name) for name in wanted if name in names), None)

    if label_column is not None and label_column.lower() not in names:
        raise NotFoundError.among("column", label_column, [name for name in header if name])

    def needed(kind: str, wanted: Sequence[str], *, do: str) -> int:
        at = position(wanted)
        if at is None:
            raise DataError(
                f"{path} has no {kind} column; its columns are {', '.join(header) or 'without names'}.",
                expected=f"a column called {', '.join(wanted[:-1])} or {wanted[-1]}.",
                do=do,
                path=str(path),
                columns=list(header),
            )
        return at

    return _Columns(
        header=tuple(clean(name) for name in header),
        path=needed("path", PATH_NAMES, do="Give the column with the pictures' paths one of these names."),
        label=needed(
            "label",
            LABEL_NAMES if label_column is None else [label_column.lower()],
            do="Name the column with --label-column.",
        ),
        split=position(SPLIT_COLUMN),
        group=position(GROUP_NAMES),
    )


def _entry(folder: Path, columns: _Columns, cells: Sequence[str], *, line: int) -> Entry | Rejected:
    def cell(at: int | None) -> str:
        return cells[at] if at is not None and at < len(cells) else ""

    place = cell(columns.path)
    if not place:
        return Rejected(f"line {line}", "path_missing", "The line names no picture.")
    name = clean(place)
    split = cell(columns.split).lower()
    if split and split not in SPLIT_NAMES:
        text = f'Line {line} names the split "{split}"; it must be train, val, test or empty.'
        return Rejected(name, "split_unknown", text)
    path = folder / place
    if "\\" in place and not path.exists():
        path = folder / place.replace("\\", "/")  # a table made on Windows
    meta = {columns.header[at]: clean(cell(at)) for at in columns.others if cell(at)}
    label = clean(cell(columns.label)) or None
    document = None if label is None else _document(label)
    return Entry(
        path,
        name,
        label if document is None else None,
        split=SPLIT_NAMES.get(split),
        group=clean(cell(columns.group)) or None,
        meta=meta,
        marks=None if document is None else partial(_marks, document),
    )


def _document(cell: str) -> Mapping[str, Any] | None:
    """The annotation that a cell holds as JSON; None for every other text."""
    if not cell.startswith("{"):
        return None
    try:
        found: Any = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, Mapping) else None


def _marks(document: Mapping[str, Any], _size: Size) -> Marks:
    return of_value(document)
