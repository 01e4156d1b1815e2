"""Brings pictures into a project by the thousand: checked, encrypted, idempotent by content.

Pictures are decoded and sealed in a small thread pool while the batch before is written; each batch is one short
transaction, so that an import of any length never holds the database. A bad picture costs one picture. Running an
import again after a crash, or after it was done, changes nothing but what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepsight import tasks
from keepsight.data import rows, samples
from keepsight.data.rows import PENDING
from keepsight.errors import AnnotationError, PictureError
from keepsight.runtime import decode
from keepsight.store import schema
from keepsight.store.audit import canonical
from keepsight.store.blobs import Sealed
from keepsight.store.database import insert_ignore
from keepsight.store.workspace import Workspace

BATCH = 64
BATCH_BYTES = 64 * 1024 * 1024

# Decoding at this reduced size still reads a JPEG to its last byte, which is what the check is for.
CHECK_SIDE = 64

MAX_NAME = 1000
MAX_GROUP = 200


@dataclass(frozen=True)
class NewSample:
    """A picture on its way in.

    Attributes:
        data: The file's bytes.
        name: For people: the file name, relative to what is imported.
        value: The annotation, checked by its task; None leaves the sample unlabelled.
        split: train, val, test or recent; pending lets the next commit decide.
        group: What belongs on one side of a split with it; None: unknown.
        meta: JSON-able facts to keep beside it.
    """

    data: bytes
    name: str
    value: Mapping[str, Any] | None = None
    split: str = PENDING
    group: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejected:
    """What could not be taken: a stable ``code`` for programs, a ``text`` for people."""

    name: str
    code: str
    text: str

    def as_dict(self) -> dict[str, str]:
        """For ``--json`` and REST."""
        return {"name": self.name, "code": self.code, "text": self.text}


@dataclass(frozen=True)
class AddReport:
    """What became of the items of one import.

    ``added`` samples are new, ``updated`` ones got another label, split, group or metadata, ``unchanged`` ones were
    there already. ``rejected`` lists what was not taken, a label or a split of an accepted picture included.
    """

    added: int = 0
    unchanged: int = 0
    updated: int = 0
    rejected: tuple[Rejected, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return {
            "added": self.added,
            "unchanged": self.unchanged,
            "updated": self.updated,
            "rejected": [item.as_dict() for item in self.rejected],
        }


def add(
    ws: Workspace,
    project: str,
    items: Iterable[NewSample | Rejected],
    *,
    author: str,
    origin: str = "import",
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> AddReport:
    """Adds pictures to a project, batch by batch; they wait for the next commit.

    A picture that the project has already is not added twice: another label replaces its label, metadata are joined, a
    committed split stays. A picture that comes with two labels in one import gets neither and is listed.

    Args:
        items: Read lazily; what an importer could not read passes through to the report.
        origin: Of the annotations: ``import``, ``review`` or ``feedback``.
        threads: Size of the pool; ``machine.threads`` or all cores when not given.
        progress: Called with the number of items done.

    Raises:
        NotFoundError: No such project.
        StorageError: The workspace cannot be written; batches that were written stay.
    """
    ws.check_project(project)
    work = _Import(ws, project, author=author, origin=origin)
    count = threads or int(ws.config["machine.threads"] or 0) or os.cpu_count() or 1
    pool = ThreadPoolExecutor(count, thread_name_prefix="import")
    done = 0
    try:
        waiting: _Batch | None = None
        for batch in _batches(items):
            ahead = work.start(batch, pool)
            if waiting is not None:
                work.finish(waiting)
                done += len(waiting.items)
                if progress is not None:
                    progress(done)
            waiting = ahead
        if waiting is not None:
            work.finish(waiting)
            if progress is not None:
                progress(done + len(waiting.items))
    finally:
        pool.shutdown(cancel_futures=True)
    return work.report()


@dataclass(frozen=True)
class _Checked:
    """A picture that decodes and whose encrypted object is written."""

    info: decode.PictureInfo
    sealed: Sealed


@dataclass(frozen=True)
class _Batch:
    """Items, their pictures' ids ("" for rejected ones) and the checks under way."""

    items: list[NewSample | Rejected]
    ids: list[str]
    checks: dict[str, Future[_Checked]]


class _Import:
    """The state of one import: counts, and which label each sample came with."""

    def __init__(self, ws: Workspace, project: str, *, author: str, origin: str) -> None:
        self._ws = ws
        self._project = project
        self._author = author
        self._origin = origin
        self._counts = {"added": 0, "unchanged": 0, "updated": 0}
        self._rejected: list[Rejected] = []
        self._checked: set[str] = set()
        self._failed: dict[str, PictureError] = {}
        self._task: str = ws.settings(project)["task"]
        self._summary = samples.summaries(ws, project)
        self._labels: dict[str, tuple[Mapping[str, Any], str]] = {}
        self._splits: dict[str, str] = {}
        self._conflicting: set[str] = set()

    def report(self) -> AddReport:
        return AddReport(**self._counts, rejected=tuple(self._rejected))

    def start(self, items: list[NewSample | Rejected], pool: ThreadPoolExecutor) -> _Batch:
        """Names the pictures and lets the pool check and seal those that are not stored yet."""
        ids = [self._ws.blobs.name(item.data) if isinstance(item, NewSample) else "" for item in items]
        with self._ws.database.read() as connection:
            stored = self._stored(connection, [name for name in ids if name and name not in self._checked])
        checks = {}
        for item, name in zip(items, ids, strict=True):
            if isinstance(item, NewSample) and name not in stored and name not in self._checked:
                checks[name] = pool.submit(self._check, item.data)
                self._checked.add(name)
        return _Batch(items, ids, checks)

    def finish(self, batch: _Batch) -> None:
        """Writes what passed, in one transaction."""
        checked: dict[str, _Checked] = {}
        for name, future in batch.checks.items():
            try:
                checked[name] = future.result()
            except PictureError as error:
                self._failed[name] = error
        taken: list[tuple[NewSample, str]] = []
        sizes = self._sizes(batch, checked)
        for item, name in zip(batch.items, batch.ids, strict=True):
            if isinstance(item, Rejected):
                self._rejected.append(item)
            elif name in self._failed:
                failure = self._failed[name]
                self._reject(item, failure.code, f"{failure.found} {failure.do}")
            elif len(item.group or "") > MAX_GROUP:
                self._reject(
                    item, "group_too_long", f"Its group has more than {MAX_GROUP} letters; give it a short one."
                )
            elif (misplaced := self._misplaced(item, sizes[name])) is not None:
                self._reject(item, misplaced.code, f"{misplaced.found} {misplaced.do}")
            else:
                taken.append((item, name))
        contradicted = self._note_labels(taken)
        with self._ws.database.write() as connection:
            rows.lock(self._ws, connection, self._project)
            self._write_pictures(connection, checked)
            for sample_id in contradicted:
                self._withdraw(connection, sample_id)
            self._write_samples(connection, taken)

    def _sizes(self, batch: _Batch, checked: Mapping[str, _Checked]) -> dict[str, tuple[int, int]]:
        """Width and height of the batch's pictures, those that were stored before included."""
        table = schema.picture
        query = sa.select(table.c.id, table.c.width, table.c.height).where(
            table.c.id.in_([name for name in batch.ids if name and name not in checked])
        )
        with self._ws.database.read() as connection:
            sizes = {row.id: (int(row.width), int(row.height)) for row in connection.execute(query)}
        return sizes | {name: (item.info.width, item.info.height) for name, item in checked.items()}

    def _misplaced(self, item: NewSample, size: tuple[int, int]) -> AnnotationError | None:
        """Why the annotation cannot be one of a picture of this size."""
        if item.value is None:
            return None
        try:
            tasks.check_size(self._task, item.value, size)
        except AnnotationError as error:
            return error
        return None

    def _reject(self, item: NewSample, code: str, text: str) -> None:
        self._rejected.append(Rejected(item.name, code, text))

    def _stored(self, connection: Connection, names: list[str]) -> set[str]:
        known = self._ws.blobs.existing(connection, names)
        # A blob may be there without being a picture: a model's bundle, for one.
        query = sa.select(schema.picture.c.id).where(schema.picture.c.id.in_(known))
        return set(connection.scalars(query))

    def _check(self, data: bytes) -> _Checked:
        _, info = decode.read(data, min_side=CHECK_SIDE)
        return _Checked(info, self._ws.blobs.seal(data))

    def _note_labels(self, taken: list[tuple[NewSample, str]]) -> set[str]:
        """Compares each label with the one that the picture came with before; the samples found to have two."""
        found = set()
        for item, name in taken:
            if item.value is None:
                continue
            sample_id = rows.sample_id(self._project, name)
            value, first = self._labels.setdefault(sample_id, (item.value, item.name))
            if canonical(value) == canonical(item.value):
                continue
            if sample_id not in self._conflicting:
                self._conflicting.add(sample_id)
                found.add(sample_id)
            here, there = self._summary(item.value), self._summary(value)
            self._reject(
                item,
                "conflicting_labels",
                f'The same picture is labelled "{here}" here and "{there}" as {first}. Neither label was taken; '
                "keep one of the two files, or label the picture in review.",
            )
        return found

    def _withdraw(self, connection: Connection, sample_id: str) -> None:
        """Takes back the uncommitted labels of imports (this one, or one that broke off); reviewed ones stay."""
        while True:
            last = rows.current(connection, schema.annotation, self._project, [sample_id]).get(sample_id)
            if last is None or last["origin"] != self._origin:
                return
            if not samples.retract(connection, self._ws, self._project, sample_id):
                return

    def _write_pictures(self, connection: Connection, checked: Mapping[str, _Checked]) -> None:
        now = self._ws.clock()
        self._ws.blobs.record(connection, [item.sealed for item in checked.values()], now=now)
        pictures = [
            {
                "id": name,
                "format": item.info.format,
                "width": item.info.width,
                "height": item.info.height,
                "created_at": now,
            }
            for name, item in checked.items()
        ]
        insert_ignore(connection, schema.picture, pictures)

    def _write_samples(self, connection: Connection, taken: list[tuple[NewSample, str]]) -> None:
        ids = [rows.sample_id(self._project, name) for _, name in taken]
        members = rows.current(connection, schema.membership, self._project, ids)
        notes = rows.current(connection, schema.annotation, self._project, ids)
        past = rows.past_splits(connection, self._project, [name for name in ids if name not in members])
        new_members: dict[str, dict[str, Any]] = {}
        new_notes: dict[str, dict[str, Any]] = {}
        for (item, name), sample_id in zip(taken, ids, strict=True):
            outcome = "unchanged"
            if sample_id in self._splits:
                # The same picture again: what its first file said stands.
                self._keep_split(item, self._splits[sample_id])
            elif sample_id not in members:
                new_members[sample_id] = self._member(item, sample_id, name)
                if item.split == PENDING and sample_id in past:
                    new_members[sample_id]["split"] = past[sample_id]
                self._splits[sample_id] = new_members[sample_id]["split"]
                outcome = "added"
            elif self._amend(connection, members[sample_id], item):
                outcome = "updated"
            if sample_id in self._labels and sample_id not in self._conflicting and sample_id not in new_notes:
                value, note = self._labels[sample_id][0], notes.get(sample_id)
                if note is None or canonical(note["value"]) != canonical(value):
                    new_notes[sample_id] = self._note(sample_id, value)
                    outcome = "added" if outcome == "added" else "updated"
            self._counts[outcome] += 1
        rows.add_memberships(connection, list(new_members.values()))
        rows.close(connection, schema.annotation, [notes[key]["seq"] for key in new_notes if key in notes])
        rows.add_annotations(connection, list(new_notes.values()))

    def _member(self, item: NewSample, sample_id: str, picture_id: str) -> dict[str, Any]:
        return {
            "project_id": self._project,
            "sample_id": sample_id,
            "picture_id": picture_id,
            "split": samples.check_split(item.split),
            "group_key": item.group or "",
            "name": item.name[-MAX_NAME:],
            "meta": dict(item.meta),
        }

    def _note(self, sample_id: str, value: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "project_id": self._project,
            "sample_id": sample_id,
            "value": dict(value),
            "author": self._author,
            "origin": self._origin,
            "created_at": self._ws.clock(),
        }

    def _amend(self, connection: Connection, member: rows.Row, item: NewSample) -> bool:
        """Joins what the item says with the sample that is there; whether that changed it."""
        changes: dict[str, Any] = {}
        self._splits[member["sample_id"]] = member["split"]
        if item.split not in {PENDING, member["split"]}:
            if rows.past_splits(connection, self._project, [member["sample_id"]]):
                self._keep_split(item, member["split"])
            else:
                changes["split"] = self._splits[member["sample_id"]] = samples.check_split(item.split)
        if item.group and item.group != member["group_key"]:
            changes["group_key"] = item.group
        meta = {**member["meta"], **item.meta}
        if canonical(meta) != canonical(member["meta"]):
            changes["meta"] = meta
        if changes:
            rows.replace_membership(connection, member, **changes)
        return bool(changes)

    def _keep_split(self, item: NewSample, split: str) -> None:
        if item.split not in {PENDING, split}:
            self._reject(
                item,
                "split_kept",
                f"The same picture stands in {split}, so it was not put into {item.split} too. "
                "Leave it out of one of the two.",
            )


def _batches(items: Iterable[NewSample | Rejected]) -> Iterator[list[NewSample | Rejected]]:
    """Batches that are small in number and in memory."""
    batch: list[NewSample | Rejected] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.data) if isinstance(item, NewSample) else 0
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
