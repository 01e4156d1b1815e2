"""What a person should know about a data set before training: gaps, doubtful classes, annotations out of place."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from keepsight import tasks
from keepsight.data import rows, samples, versions
from keepsight.data.importers import marks
from keepsight.data.samples import Sample
from keepsight.errors import AnnotationError, DataError
from keepsight.store import schema
from keepsight.store.workspace import Workspace

# Training judges a class by its pictures; with fewer than these there is nothing to judge it by.
FEW = 5
# Of a test split that tells models apart at all: the interval of a share is then about 14 points wide each way.
SMALL_TEST = 50
NAMED = 5


@dataclass(frozen=True)
class Finding:
    """Something to look at: ``code`` for programs, ``text`` for people, ``serious`` where training would go wrong."""

    code: str
    text: str
    serious: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"code": self.code, "text": self.text, "serious": self.serious}


@dataclass(frozen=True)
class Report:
    """What a version holds, and what was found.

    Attributes:
        version: Its number.
        pictures: How many.
        classes: Pictures of each class by split.
        findings: Serious ones first.
    """

    version: int
    pictures: int
    classes: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "version": self.version,
            "pictures": self.pictures,
            "classes": {name: dict(counts) for name, counts in self.classes.items()},
            "findings": [item.as_dict() for item in self.findings],
        }


def check(ws: Workspace, project: str, which: int | str = versions.LATEST) -> Report:
    """Looks at a version; no picture is read.

    Raises:
        NotFoundError: No such project or version.
    """
    task = tasks.get(ws.settings(ws.check_project(project))["task"])
    version = versions.get(ws, project, which)
    some = samples.at_version(ws, project, version.number)
    classes = _by_class(some, task)
    fits = _fits(ws, some, parts=marks.parts_of(ws.settings(project)["task"]))
    found = [*_gaps(project, some, task), *_classes(classes), *_groups(some), *fits]
    return Report(version.number, len(some), classes, tuple(sorted(found, key=lambda item: not item.serious)))


def _by_class(some: Sequence[Sample], task: tasks.Task) -> dict[str, Counter[str]]:
    counted: dict[str, Counter[str]] = {}
    for sample in some:
        for name in () if sample.value is None else task.classes(sample.value):
            counted.setdefault(name, Counter())[sample.split] += 1
    return dict(sorted(counted.items()))


def _gaps(project: str, some: Sequence[Sample], task: tasks.Task) -> Iterator[Finding]:
    learned = [sample.value for sample in some if sample.value is not None and sample.split in ("train", "val")]
    try:
        task.check_trainable(project, learned)
    except DataError as error:
        yield Finding("not_trainable", f"{error.found} Training needs {error.expected}", serious=True)
    bare = [sample.name for sample in some if sample.value is None]
    if bare:
        yield Finding("not_annotated", f"{_pictures(len(bare))} without an annotation: {_shown(bare)}.")
    test = sum(sample.split == "test" and sample.value is not None for sample in some)
    if test < SMALL_TEST:
        yield Finding("small_test", f"{_pictures(test)} in test; from fewer than {SMALL_TEST} little can be told.")


def _classes(classes: Mapping[str, Counter[str]]) -> Iterator[Finding]:
    untaught = [name for name, counts in classes.items() if not counts["train"] + counts["val"]]
    if untaught:
        yield Finding("class_untaught", f"Only in test or recent, so never learned: {_shown(untaught)}.", serious=True)
    few = [name for name, counts in classes.items() if 0 < counts["train"] + counts["val"] < FEW]
    # One picture of every class is a gallery, and meant so.
    if few and len(few) < len(classes):
        yield Finding("class_small", f"Fewer than {FEW} pictures to learn from: {_shown(few)}.")
    alike: dict[str, list[str]] = {}
    for name in classes:
        plain = unicodedata.normalize("NFKD", name).casefold()
        alike.setdefault("".join(sign for sign in plain if sign.isalnum()), []).append(name)
    twins = [" and ".join(f'"{name}"' for name in names) for names in alike.values() if len(names) > 1]
    if twins:
        yield Finding("class_twice", f"Perhaps one class, written in two ways: {_shown(twins)}.")


def _groups(some: Sequence[Sample]) -> Iterator[Finding]:
    splits: dict[str, set[str]] = {}
    for sample in some:
        if sample.group:
            splits.setdefault(sample.group, set()).add(sample.split)
    torn = sorted(group for group, found in splits.items() if "train" in found and len(found) > 1)
    if torn:
        text = f"Groups in train and in another split, so that figures are too good: {_shown(torn)}."
        yield Finding("group_torn", text)


def _fits(ws: Workspace, some: Sequence[Sample], *, parts: frozenset[str]) -> Iterator[Finding]:
    """Annotations that do not fit their pictures, by what is wrong with them."""
    wrong: dict[str, list[str]] = {}
    empty = annotated = 0
    for sample, size in _sized(ws, some):
        if sample.value is None:
            continue
        annotated += 1
        empty += not any(sample.value.values())
        for code in sorted(_faults(sample.value, parts, size)):
            wrong.setdefault(code, []).append(sample.name)
    for code, names in sorted(wrong.items()):
        words = code.replace("_", " ")
        text = f"{_pictures(len(names))} with an annotation that does not fit ({words}): {_shown(names)}."
        yield Finding(code, text, serious=True)
    if empty:
        yield Finding("empty", f"In {empty} of {annotated} annotated pictures there is nothing.")


def _faults(value: Mapping[str, Any], parts: frozenset[str], size: marks.Size) -> set[str]:
    try:
        _, faults = marks.annotation(marks.of_value(value), parts=parts, size=size)
    except AnnotationError as error:
        return {error.code}
    return {fault.code for fault in faults}


def _sized(ws: Workspace, some: Sequence[Sample]) -> Iterator[tuple[Sample, marks.Size]]:
    table = schema.picture
    for part in rows.chunks(some):
        query = sa.select(table.c.id, table.c.width, table.c.height).where(
            table.c.id.in_([sample.picture_id for sample in part])
        )
        with ws.database.read() as connection:
            sizes = {name: (width, height) for name, width, height in connection.execute(query)}
        yield from ((sample, sizes[sample.picture_id]) for sample in part if sample.picture_id in sizes)


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"


def _shown(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:NAMED]) + (f" and {len(listed) - NAMED} more" if len(listed) > NAMED else "")
