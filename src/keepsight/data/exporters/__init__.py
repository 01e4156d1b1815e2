"""Exports a dataset version in the formats that other tools read; importing an export gives the same annotations.

A format is a module of this package with the members of ``Format``. It yields files one after the other, so an export
takes the memory of its annotations and of one picture. ``manifest.csv`` carries the groups and metadata that a format
has no room for.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import sqlalchemy as sa

from keepsight import tasks
from keepsight.data import rows, samples, versions
from keepsight.data.adding import Rejected
from keepsight.data.exporters import coco, documents, folders, labelstudio, masks, tables, voc, yolo
from keepsight.data.exporters.item import File, Item, Stems, by_split, suffix_of
from keepsight.data.importers import manifest
from keepsight.data.importers.source import PICTURE_SUFFIXES
from keepsight.errors import ConflictError, DataError, KeepsightError, NotFoundError, StorageError
from keepsight.store import audit, schema
from keepsight.store.workspace import Workspace


class Format(Protocol):
    """What a module of this package offers that writes one format."""

    NAME: str
    """As ``--format`` takes it."""

    KIND: str
    """In words."""

    TAKES: str
    """Which annotations it has room for, in words."""

    def place(self, item: Item) -> str:
        """Where a picture goes."""

    def refuses(self, item: Item) -> str | None:
        """Why a picture's annotation cannot be written; None where it can."""

    def files(self, items: Sequence[Item]) -> Iterator[File]:
        """All files of an export."""


# In the order in which one is chosen where none is named: the format that is usual for what the annotations are.
FORMATS: tuple[Format, ...] = cast(
    "tuple[Format, ...]", (folders, masks, coco, tables, documents, labelstudio, voc, yolo)
)


@dataclass(frozen=True)
class Export:
    """What an export will hold.

    Attributes:
        format: Its name.
        kind: In words.
        version: Of the data set.
        items: The pictures.
        left_out: Pictures that are not in it, each with its reason.
    """

    format: str
    kind: str
    version: int
    items: tuple[Item, ...]
    left_out: tuple[Rejected, ...]

    def files(self) -> Iterator[File]:
        """The files in the order of writing; their pictures are read when their content is."""
        chosen = named(self.format)
        yield from chosen.files(self.items)
        if chosen is not tables and any(one.sample.group or one.sample.meta for one in self.items):
            yield File(manifest.NAME, tables.facts(self.items, place=chosen.place))

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        splits = {split: len(some) for split, some in by_split(self.items).items()}
        return {
            "format": self.format,
            "kind": self.kind,
            "version": self.version,
            "pictures": len(self.items),
            "splits": splits,
            "left_out": [one.as_dict() for one in self.left_out],
        }


@dataclass(frozen=True)
class ExportReport:
    """What was written: the export, how many bytes, and what went wrong meanwhile."""

    export: Export
    size_bytes: int
    failed: tuple[Rejected, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        left_out = [one.as_dict() for one in (*self.export.left_out, *self.failed)]
        return {**self.export.as_dict(), "size_bytes": self.size_bytes, "left_out": left_out}


def names() -> tuple[str, ...]:
    """The formats by their names."""
    return tuple(sorted(one.NAME for one in FORMATS))


def named(format: str) -> Format:
    """The format of a name.

    Raises:
        NotFoundError: There is none.
    """
    if format not in names():
        raise NotFoundError.among("format", format, names())
    return next(one for one in FORMATS if format == one.NAME)


def prepare(ws: Workspace, project: str, *, version: int | str = versions.LATEST, format: str | None = None) -> Export:
    """What an export of a version will hold; pictures without an annotation, and ones with another kind, stay out.

    Args:
        version: Number or tag.
        format: One of ``names``; without it, the usual one for these annotations.

    Raises:
        NotFoundError: No such project, version or format. DataError: The format has room for none of the annotations.
    """
    ws.check_project(project)
    number = versions.get(ws, project, version).number
    some = sorted(samples.at_version(ws, project, number), key=lambda sample: (sample.split, sample.name))
    annotated = _items(ws, project, [sample for sample in some if sample.value is not None])
    chosen = _usual(annotated) if format is None else named(format)
    left_out = [
        Rejected(sample.name, "not_annotated", "It has no annotation in this version.")
        for sample in some
        if sample.value is None
    ]
    items = []
    for one in annotated:
        reason = chosen.refuses(one)
        if reason is None:
            items.append(one)
        else:
            left_out.append(Rejected(one.sample.name, "not_in_format", reason))
    if not items:
        fitting = [one.NAME for one in FORMATS if any(one.refuses(item) is None for item in annotated)]
        raise DataError(
            f"{chosen.KIND} has room for {chosen.TAKES}, and version {number} of {project} has none of that."
            if annotated
            else f"Version {number} of {project} has no annotated pictures.",
            expected=f"one of the formats {', '.join(fitting)}." if fitting else "annotated pictures.",
            do="Use one of them with --format." if fitting else "Annotate some first.",
        )
    return Export(chosen.NAME, chosen.KIND, number, tuple(items), tuple(left_out))


def write(
    ws: Workspace,
    project: str,
    directory: Path,
    *,
    export: Export,
    actor: str,
    progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Writes an export into a folder that is empty or not there yet, audited.

    A picture that cannot be read any more is listed; the rest is written.

    Raises:
        ConflictError: There is something in the folder. StorageError: It cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConflictError(
            f"{directory} is not empty." if directory.is_dir() else f"{directory} is a file.",
            expected="a new or an empty folder, so that nothing of yours is overwritten.",
            do="Name another folder.",
            path=str(directory),
        )
    _audit(ws, project, export, actor=actor, to=directory.name)
    places = {named(export.format).place(one): one.sample.name for one in export.items}
    failed: list[Rejected] = []
    size = done = 0
    for file in export.files():
        target = directory / file.path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                for piece in [file.content] if isinstance(file.content, bytes) else file.content:
                    size += out.write(piece)
        except KeepsightError as error:
            target.unlink()
            failed.append(Rejected(places.get(file.path, file.path), error.code, f"{error.found} {error.do}"))
        except OSError as error:
            raise StorageError(
                f"{target} cannot be written: {error.strerror}.",
                expected="a folder with room for the export.",
                do="Make room or name another folder; delete what was written of this export.",
            ) from None
        if file.path in places and progress is not None:
            done += 1
            progress(done, len(places))
    return ExportReport(export, size, tuple(failed))


def zipped(ws: Workspace, project: str, *, export: Export, actor: str) -> Iterator[bytes]:
    """An export as a ZIP file, piece by piece while it is made, audited; pictures are stored as they are.

    A picture that cannot be read any more is left out.
    """
    _audit(ws, project, export, actor=actor, to="zip")
    return _zipped(export)


def _zipped(export: Export) -> Iterator[bytes]:
    buffer = _Pieces()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in export.files():
            try:
                content = file.content if isinstance(file.content, bytes) else b"".join(file.content)
            except KeepsightError:
                continue
            info = zipfile.ZipInfo(file.path)
            text = not any(file.path.endswith(suffix) for suffix in PICTURE_SUFFIXES)
            archive.writestr(info, content, zipfile.ZIP_DEFLATED if text else zipfile.ZIP_STORED)
            yield buffer.take()
    yield buffer.take()


class _Pieces(io.RawIOBase):
    """A file that only goes forward: what was written is taken away at once."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        content, self._written = bytes(self._written), bytearray()
        return content


def _items(ws: Workspace, project: str, some: Sequence[samples.Sample]) -> list[Item]:
    table = schema.picture
    facts: dict[str, tuple[str, int, int]] = {}
    with ws.database.read() as connection:
        for part in rows.chunks([sample.picture_id for sample in some]):
            query = sa.select(table.c.id, table.c.format, table.c.width, table.c.height).where(table.c.id.in_(part))
            for name, format, width, height in connection.execute(query):
                facts[name] = format, width, height
    stems, task = Stems(), tasks.get(ws.settings(project)["task"])
    found = []
    for sample in some:
        format, width, height = facts[sample.picture_id]
        read = partial(ws.blobs.get, sample.picture_id)
        value = dict(sample.value or {})
        found.append(Item(sample, value, stems.of(sample), suffix_of(format), (width, height), read, task))
    return found


def _usual(items: Sequence[Item]) -> Format:
    """The first format that has room for most of the annotations."""
    return max(FORMATS, key=lambda one: sum(one.refuses(item) is None for item in items))


def _audit(ws: Workspace, project: str, export: Export, *, actor: str, to: str) -> None:
    detail = {"format": export.format, "version": export.version, "pictures": len(export.items), "to": to}
    with ws.database.write() as connection:
        audit.append(
            ws.database, connection, actor=actor, action="data.export", target=project, now=ws.clock(), detail=detail
        )
