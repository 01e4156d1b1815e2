"""A table: ``images/`` and ``pictures.csv`` with path, label, split, group and all metadata."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keepsight.data.exporters.item import File, Item
from keepsight.data.importers.tables import GROUP_NAMES, LABEL_NAMES, LONGEST_CELL, PATH_NAMES, SPLIT_COLUMN

NAME = "csv"
KIND = "a table"
TAKES = "every annotation: as a class, several as a|b, others as JSON"

COLUMNS = ("path", "label", "split", "group")
_RESERVED = frozenset({*PATH_NAMES, *LABEL_NAMES, *SPLIT_COLUMN, *GROUP_NAMES})


def place(item: Item) -> str:
    """Where the picture goes."""
    return f"images/{item.split}/{item.file}"


def refuses(item: Item) -> str | None:
    """Why an annotation cannot be written; None where it can."""
    return "It is too long for a cell." if len(_label(item)) > LONGEST_CELL // 2 else None


def files(items: Sequence[Item]) -> Iterator[File]:
    """The pictures, then the table, line by line."""
    for item in items:
        yield item.picture(place(item))
    yield File("pictures.csv", _lines(items))


def meta_columns(items: Sequence[Item]) -> list[str]:
    """The metadata that a table can hold beside its own columns."""
    names = {str(name) for item in items for name in item.sample.meta}
    return sorted(name for name in names if name.strip() == name and name and name.lower() not in _RESERVED)


def line(cells: Sequence[Any]) -> bytes:
    """One line of a table; a fact that is no plain value stays empty."""
    out = io.StringIO()
    plain = [cell if isinstance(cell, str | int | float) else "" for cell in cells]
    csv.writer(out, lineterminator="\n").writerow(plain)
    return out.getvalue().encode()


def facts(items: Sequence[Item], *, place: Callable[[Item], str]) -> Iterator[bytes]:
    """The lines of a table with the groups and metadata of pictures, for formats that have no room for them."""
    columns = meta_columns(items)
    yield line(["path", "group", *columns])
    for item in items:
        meta = [item.sample.meta.get(name) for name in columns]
        yield line([place(item), item.sample.group or "", *meta])


def _lines(items: Sequence[Item]) -> Iterator[bytes]:
    columns = meta_columns(items)
    yield line([*COLUMNS, *columns])
    for item in items:
        meta = [item.sample.meta.get(name) for name in columns]
        yield line([place(item), _label(item), item.split, item.sample.group or "", *meta])


def _label(item: Item) -> str:
    text = item.text()
    return json.dumps(dict(item.value), ensure_ascii=False) if text is None else text
