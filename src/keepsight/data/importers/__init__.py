"""Imports pictures with their labels from what people have: class folders, or a table with paths.

``detect`` finds out what a path is and lists what is in it; ``import_path`` brings that into a project.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepsight import tasks
from keepsight.data import adding, samples
from keepsight.data.adding import NewSample, Rejected
from keepsight.data.importers import folders, tables
from keepsight.data.importers.source import Entry, Source
from keepsight.data.rows import PENDING
from keepsight.errors import AnnotationError, BadInputError, DataError, NotFoundError
from keepsight.runtime.decode import DEFAULT_LIMITS
from keepsight.store import audit
from keepsight.store.workspace import Workspace

AUTO = "auto"
FORCED = ("train", "val", "test")


@dataclass(frozen=True)
class ImportReport:
    """What became of an import.

    Attributes:
        kind: What the path was taken for: "class folders" or "table".
        added: New samples.
        unchanged: Pictures that the project had already.
        updated: Samples that got another label, split, group or metadata.
        rejected: What was not taken although it looked like a picture with a label.
        skipped: Files that are no pictures by their name.
        warnings: What a person should know, in words.
    """

    kind: str
    added: int
    unchanged: int
    updated: int
    rejected: tuple[Rejected, ...]
    skipped: tuple[Rejected, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return {
            "kind": self.kind,
            "added": self.added,
            "unchanged": self.unchanged,
            "updated": self.updated,
            "rejected": [item.as_dict() for item in self.rejected],
            "skipped": [item.as_dict() for item in self.skipped],
            "warnings": list(self.warnings),
        }


def detect(path: Path, *, label_column: str | None = None) -> Source:
    """What is in a folder or table, listed but not read.

    Args:
        label_column: The column of a table that holds the label, where its name does not tell.

    Raises:
        NotFoundError: There is nothing at the path, or no such column.
        DataError: There is no picture with a label in it.
        BadInputError: It is neither a folder nor a table.
    """
    if not path.exists():
        raise NotFoundError(
            f"There is nothing at {path}.",
            expected="a folder of class folders, or a CSV file.",
            do="Check the path.",
            path=str(path),
        )
    if path.is_dir():
        source = folders.scan(path)
    elif path.suffix.lower() in tables.SUFFIXES:
        source = tables.read(path, label_column=label_column)
    else:
        raise BadInputError(
            f"{path} is a single file that is no table.",
            expected="a folder of class folders (PHOTOS/apple/1.jpg), or a CSV file with the columns path and label.",
            do="Name the folder above it.",
            path=str(path),
        )
    if not source.entries and not source.rejected:
        raise DataError(
            f"There are no pictures in {path}.",
            expected="pictures in class folders (PHOTOS/apple/1.jpg), or a CSV file that lists some.",
            do="Check the path.",
            path=str(path),
        )
    return source


def import_path(
    ws: Workspace,
    project: str,
    path: Path,
    *,
    author: str,
    split: str = AUTO,
    label_column: str | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Brings the pictures of a folder or table into a project, audited; they wait for the next commit.

    Args:
        split: train, val or test for all of them; auto: as the source says, else decided by the commit.
        label_column: See ``detect``.
        threads: See ``adding.add``.
        progress: Called with the number of pictures done and their total.

    Raises:
        NotFoundError: No such project, path or column. DataError: Nothing to import.
        BadInputError: No such split, or a path that cannot be imported. StorageError: The workspace cannot be written.
    """
    ws.check_project(project)
    if split not in (AUTO, *FORCED):
        raise BadInputError(
            f'Pictures cannot be imported into the split "{split}".',
            expected=f"{AUTO}, {', '.join(FORCED)}.",
            do=f"Use {AUTO} unless the split of all these pictures is decided.",
        )
    source = detect(path, label_column=label_column)
    total = len(source.entries)
    report = adding.add(
        ws,
        project,
        _items(source, task=ws.settings(project)["task"], split=split),
        author=author,
        threads=threads,
        progress=None if progress is None else lambda done: progress(min(done, total), total),
    )
    result = ImportReport(
        kind=source.kind,
        added=report.added,
        unchanged=report.unchanged,
        updated=report.updated,
        rejected=(*source.rejected, *report.rejected),
        skipped=source.skipped,
        warnings=_warnings(ws, project),
    )
    detail = {"source": path.name, "added": result.added, "updated": result.updated, "rejected": len(result.rejected)}
    with ws.database.write() as connection:
        audit.append(
            ws.database,
            connection,
            actor=author,
            action="data.import",
            target=project,
            now=ws.clock(),
            detail=detail,
        )
    return result


def _items(source: Source, *, task: str, split: str) -> Iterator[NewSample | Rejected]:
    """The entries with their bytes and annotations, read one after the other."""
    module = tasks.get(task)
    for entry in source.entries:
        try:
            value = None if entry.label is None else module.canonical(module.parse(entry.label))
        except AnnotationError as error:
            yield Rejected(entry.name, error.code, f"{error.found} {error.do}")
            continue
        data = _read(entry)
        if isinstance(data, Rejected):
            yield data
            continue
        chosen = split if split != AUTO else entry.split or PENDING
        yield NewSample(data, entry.name, value, split=chosen, group=entry.group, meta=entry.meta)


def _read(entry: Entry) -> bytes | Rejected:
    try:
        # Not even read when it is too large, so that a film beside the pictures does not fill the memory.
        if entry.path.stat().st_size > DEFAULT_LIMITS.max_bytes:
            most = DEFAULT_LIMITS.max_bytes // 2**20
            return Rejected(entry.name, "picture_too_large", f"It has over {most} MiB. Save a smaller version of it.")
        return entry.path.read_bytes()
    except FileNotFoundError:
        return Rejected(entry.name, "file_missing", "There is no such file. Correct the path in the table.")
    except OSError as error:
        return Rejected(entry.name, "file_unreadable", f"It cannot be read: {error.strerror}.")


def _warnings(ws: Workspace, project: str) -> tuple[str, ...]:
    labelled = [sample.value for sample in samples.current(ws, project) if sample.value is not None]
    task = tasks.get(ws.settings(project)["task"])
    try:
        task.check_trainable(project, labelled)
    except DataError as error:
        return (f"{error.found} Training needs {error.expected}",) if labelled else ()
    counts = Counter(name for value in labelled for name in task.classes(value))
    single = sorted(label for label, count in counts.items() if count == 1)
    if single:
        shown = ", ".join(single[:5]) + (f" and {len(single) - 5} more" if len(single) > 5 else "")
        return (f"One picture only of: {shown}. A class needs more to be learned and judged.",)
    return ()
