"""``manifest.csv`` beside pictures: facts on each of them (light, shop, video) that its format has no room for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from keepsight.data.importers import tables
from keepsight.data.importers.source import SPLIT_NAMES, Entry, clean
from keepsight.errors import KeepsightError

NAME = "manifest.csv"


@dataclass(frozen=True)
class _Facts:
    split: str | None = None
    group: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


def joined(root: Path, entries: Sequence[Entry]) -> tuple[tuple[Entry, ...], int]:
    """The entries with what the manifest of their folder says, or of the folder above it, and how many it names.

    It counts where it has a column with paths. What an entry says itself stands; a column of labels is a fact only.
    """
    known: dict[str, _Facts] = {}
    for folder, prefix in ((root, ""), (root.parent, f"{clean(root.name)}/")):
        if not known and (folder / NAME).is_file():
            try:
                facts = dict(_facts(folder / NAME))
            except KeepsightError:
                continue
            known = {name.removeprefix(prefix): fact for name, fact in facts.items() if name.startswith(prefix)}
    found = [known.get(str(PurePosixPath(entry.name))) for entry in entries]
    taken = [
        entry
        if facts is None
        else replace(
            entry,
            split=entry.split or facts.split,
            group=entry.group or facts.group,
            meta={**facts.meta, **entry.meta},
        )
        for entry, facts in zip(entries, found, strict=True)
    ]
    return tuple(taken), sum(facts is not None for facts in found)


def _facts(path: Path) -> Iterator[tuple[str, _Facts]]:
    lines = tables.lines_of(path)
    header = [clean(name) for name in next(lines, [])]
    names = [name.lower() for name in header]

    def position(wanted: Sequence[str]) -> int | None:
        return next((names.index(name) for name in wanted if name in names), None)

    place, split, group = (position(names) for names in (tables.PATH_NAMES, tables.SPLIT_COLUMN, tables.GROUP_NAMES))
    if place is None:
        return
    others = [at for at, name in enumerate(header) if name and at not in (place, split, group)]
    for cells in lines:
        cell = dict(enumerate(cells))
        if cell.get(place):
            meta = {header[at]: clean(cell[at]) for at in others if cell.get(at)}
            name = str(PurePosixPath(clean(cell[place]).replace("\\", "/")))
            said = "" if split is None else cell.get(split, "").lower()
            member = None if group is None else clean(cell.get(group, "")) or None
            yield name, _Facts(SPLIT_NAMES.get(said), member, meta)
