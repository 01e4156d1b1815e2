"""Imports pictures with their annotations from what people have: folders, tables, and the formats of labelling tools.

``detect`` finds out what a path is and lists what is in it; ``import_path`` brings that into a project. A format is a
module of this package with the members of ``formats.Format``; it knows things, texts and classes (``marks``), no task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepsight import tasks
from keepsight.data import adding, samples, video
from keepsight.data.adding import NewSample, Rejected
from keepsight.data.importers import clips, marks
from keepsight.data.importers.formats import detect, names
from keepsight.data.importers.source import Entry, Source
from keepsight.data.rows import PENDING
from keepsight.errors import AnnotationError, BadInputError, DataError, PictureError, StorageError
from keepsight.runtime import decode
from keepsight.runtime.decode import DEFAULT_LIMITS
from keepsight.store import audit
from keepsight.store.workspace import Workspace

__all__ = ["AUTO", "FORCED", "ImportReport", "detect", "import_path", "names"]

AUTO = "auto"
FORCED = ("train", "val", "test")


@dataclass(frozen=True)
class ImportReport:
    """What became of an import.

    Attributes:
        kind: What the path was taken for, in words: "class folders", "COCO JSON".
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


def import_path(
    ws: Workspace,
    project: str,
    path: Path,
    *,
    author: str,
    split: str = AUTO,
    format: str | None = None,
    label_column: str | None = None,
    every_s: float = 1.0,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Brings the pictures of a folder or table into a project, audited; they wait for the next commit.

    Args:
        split: train, val or test for all of them; auto: as the source says, else decided by the commit.
        format: See ``detect``.
        label_column: See ``detect``.
        every_s: Seconds between two frames that are taken of a video.
        threads: See ``adding.add``.
        progress: Called with the number of pictures done and their total.

    Raises:
        NotFoundError: No such project, path, format or column. DataError: Nothing to import.
        BadInputError: No such split, or a path that cannot be imported. StorageError: The workspace cannot be written.
    """
    ws.check_project(project)
    if split not in (AUTO, *FORCED):
        raise BadInputError(
            f'Pictures cannot be imported into the split "{split}".',
            expected=f"{AUTO}, {', '.join(FORCED)}.",
            do=f"Use {AUTO} unless the split of all these pictures is decided.",
        )
    task = ws.settings(project)["task"]
    source = detect(path, task=task, format=format, label_column=label_column)
    total = len(source.entries)
    report = adding.add(
        ws,
        project,
        _items(source, task=task, split=split, every_s=every_s),
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
        warnings=(*source.notes, *_warnings(ws, project)),
    )
    detail = {
        "source": path.name,
        "kind": source.kind,
        "added": result.added,
        "updated": result.updated,
        "rejected": len(result.rejected),
    }
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


def _items(source: Source, *, task: str, split: str, every_s: float) -> Iterator[NewSample | Rejected]:
    """The entries with their bytes and annotations, read one after the other.

    Of an annotation in a file of its own only what is wrong is lost: the picture comes in with the rest of it, or
    without an annotation. A wrong label of a table or a folder costs the picture.
    """
    module = tasks.get(task)
    parts = marks.parts_of(task)
    for entry in source.entries:
        value = None
        try:
            if entry.marks is None and entry.label is not None:
                value = module.canonical(module.parse(entry.label))
        except AnnotationError as error:
            yield Rejected(entry.name, error.code, f"{error.found} {error.do}")
            continue
        chosen = split if split != AUTO else entry.split or PENDING
        if video.is_video(entry.path):
            yield from clips.samples(entry, value=value, split=chosen, every_s=every_s)
            continue
        data = _read(entry)
        if isinstance(data, Rejected):
            yield data
            continue
        if entry.marks is not None:
            raw, faults = _said(entry, data, parts=parts)
            yield from faults
            try:
                value = None if raw is None else module.canonical(module.parse(raw))
            except AnnotationError as error:
                yield Rejected(entry.name, error.code, f"{error.found} {error.do}")
        yield NewSample(data, entry.name, value, split=chosen, group=entry.group, meta=entry.meta)


def _said(entry: Entry, data: bytes, *, parts: frozenset[str]) -> tuple[dict[str, Any] | None, tuple[Rejected, ...]]:
    """The raw annotation of a picture that is said in a file, and what of it is not taken."""
    if entry.marks is None:
        return None, ()
    try:
        info = decode.probe(data)
        size = info.width, info.height
        raw, faults = marks.annotation(entry.marks(size), parts=parts, size=size)
    except PictureError:
        # Adding the picture says what is wrong with it.
        return None, ()
    except (AnnotationError, BadInputError, StorageError) as error:
        return None, (Rejected(entry.name, error.code, f"{error.found} {error.do}"),)
    named = [
        Rejected(f"{entry.name}: {item.where}" if item.where else entry.name, item.code, item.text) for item in faults
    ]
    return raw, tuple(named)


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
    # One picture of every class is a gallery, and meant so.
    if 0 < len(single) < len(counts):
        shown = ", ".join(single[:5]) + (f" and {len(single) - 5} more" if len(single) > 5 else "")
        return (f"One picture only of: {shown}. A class needs more to be learned and judged.",)
    return ()
