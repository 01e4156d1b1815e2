"""Which classes a reviewer can choose from: those of the live model and those that any label of the project names."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable

import sqlalchemy as sa

from keepsight import tasks
from keepsight.errors import AnnotationError
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.training import models

_LABELS: dict[str, tuple[str, ...]] = {}


def known(ws: Workspace, project: str) -> dict[str, int]:
    """How many labels each known class has now, sorted by the class's name."""
    table = schema.annotation
    text = sa.cast(table.c.value, sa.Text)
    query = (
        sa.select(text, sa.func.count())
        .where(table.c.project_id == project, table.c.removed_in.is_(None))
        .group_by(text)
    )
    with ws.database.read() as connection:
        rows = connection.execute(query).all()
    task = tasks.get(ws.settings(project)["task"])
    counts: dict[str, int] = dict.fromkeys(_model_labels(ws, project), 0)
    for value, count in rows:
        for label in task.classes(json.loads(value)):
            counts[label] = counts.get(label, 0) + int(count)
    return dict(sorted(counts.items(), key=lambda item: (natural(item[0]), item[0])))


def check(named: Iterable[str], known: Iterable[str], *, new_class: bool) -> None:
    """Makes sure that the classes that an annotation names are known, or meant as new.

    Args:
        named: The annotation's classes.
        known: Those that the project has.
        new_class: Whether a class that it does not have is meant as a new one.

    Raises:
        AnnotationError: One is neither; names the nearest classes.
    """
    names = list(known)
    for label in named:
        if label not in names:
            _check_new(label, names, new_class=new_class)


def _check_new(label: str, names: list[str], *, new_class: bool) -> None:
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(label.casefold(), folded, n=3, cutoff=0.6)
    alike = [folded[name] for name in near]
    if new_class and label.casefold() not in folded:
        return
    raise AnnotationError(
        f'The project has no class "{label}".',
        expected=f"one of its {len(names)} classes"
        + (", such as " + ", ".join(f'"{name}"' for name in alike) if alike else "")
        + ".",
        do="Choose one of them"
        + ("." if new_class else ', or say that it is a new class ("new_class": true, or --new-class).'),
        label=label,
        nearest=alike,
    )


def natural(text: str) -> list[tuple[bool, int, str]]:
    """A key that sorts names as people do: "class 2" before "class 10", whatever the case."""
    parts = re.split(r"([0-9]+)", text.casefold())
    return [(False, int(part), "") if index % 2 else (True, 0, part) for index, part in enumerate(parts)]


def _model_labels(ws: Workspace, project: str) -> tuple[str, ...]:
    model = models.champion(ws, project)
    if model is None:
        return ()
    # A digest never gets other labels, and opening a bundle means decrypting it whole.
    if model.bundle_digest not in _LABELS:
        _LABELS[model.bundle_digest] = models.load_bundle(ws, model).info.labels
    return _LABELS[model.bundle_digest]
