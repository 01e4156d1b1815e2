"""The gallery of the live model, as a command sees it that runs beside the servers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from keepsight import tasks
from keepsight.data import gallery, samples
from keepsight.data.gallery import Enrolling
from keepsight.runtime.predictor import Predictor
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.models import Model
from keepsight.training.recognition import views


@dataclass(frozen=True)
class Overview:
    """Who is known.

    Attributes:
        model: Number of the live model; None where none is live, and the names are those of the data set.
        names: How many pictures each name has.
        threshold: The similarity from which on somebody is named; None without a live model.
    """

    model: int | None
    names: dict[str, int]
    threshold: float | None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return {
            "model": self.model,
            "threshold": self.threshold,
            "people": [{"name": name, "pictures": count} for name, count in self.names.items()],
        }


def predictor_of(ws: Workspace, project: str, model: Model) -> Predictor:
    """A model as servers answer with it: with what was enrolled since it was made, where it has a gallery."""
    predictor = Predictor(models.load_bundle(ws, model))
    if isinstance(predictor.engine, Enrolling):
        gallery.follow(ws, project, predictor.engine, since=0)
    return predictor


def live_engine(ws: Workspace, project: str) -> Enrolling | None:
    """The engine of the live model, its gallery up to date; None where no model is live.

    Raises:
        NotFoundError: There is no such project. BadInputError: Its task has no gallery.
    """
    model = models.champion(ws, gallery.check(ws, project))
    engine = None if model is None else predictor_of(ws, project, model).engine
    return engine if isinstance(engine, Enrolling) else None


def checking_engine(ws: Workspace, project: str) -> Enrolling | None:
    """What looks at pictures that are enrolled before a model is live: whether there is one face in each.

    None where the whole picture counts, so that there is nothing to look for.

    Raises:
        WeightsError: The networks for faces are not on this machine.
    """
    return _finding_faces() if ws.settings(project)["gallery.subject"] == "face" else None


@cache
def _finding_faces() -> Enrolling:
    return views.face_engine()


def overview(ws: Workspace, project: str) -> Overview:
    """Who is known to the live model, or, before there is one, who is in the data set to be enrolled."""
    engine = live_engine(ws, project)
    model = models.champion(ws, project)
    if engine is not None and model is not None:
        return Overview(model.number, engine.gallery.names(), engine.gallery.threshold)
    task = tasks.get(ws.settings(project)["task"])
    counts: dict[str, int] = {}
    for row in samples.current(ws, project):
        if row.value is not None and row.split in ("train", "val", "pending"):
            for name in task.classes(row.value):
                counts[name] = counts.get(name, 0) + 1
    return Overview(None, dict(sorted(counts.items())), None)
