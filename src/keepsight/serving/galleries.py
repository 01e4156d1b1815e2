"""Follows what was enrolled and taken out, in the galleries of the models that are served, while requests run."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterable

from keepsight.data import gallery
from keepsight.data.gallery import Enrolling, NewView
from keepsight.errors import IntegrityError, NotFoundError, PictureError
from keepsight.runtime.decode import read
from keepsight.runtime.predictor import Predictor
from keepsight.serving import shortlist
from keepsight.store.workspace import Workspace

log = logging.getLogger(__name__)


class Galleries:
    """What each served gallery has seen of the changes; one look at a time.

    Args:
        ws: The workspace.
    """

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._looking = threading.Lock()
        self._seen: weakref.WeakKeyDictionary[Enrolling, int] = weakref.WeakKeyDictionary()

    def prepare(self, project: str, predictor: Predictor) -> None:
        """Brings a gallery up to date before its model answers: what was enrolled for another model is embedded anew.

        Raises:
            StorageError: The database cannot be read or written.
        """
        engine = predictor.engine
        if not isinstance(engine, Enrolling):
            return
        views = [
            view
            for sample_id, picture_id, label in gallery.enrolled_elsewhere(self._ws, project, space=engine.space)
            if sample_id not in engine.gallery.samples()
            and (view := self._again(engine, sample_id, picture_id, label)) is not None
        ]
        if views:
            gallery.add(self._ws, project, views, space=engine.space, again=True)
        self._catch_up(project, engine)
        shortlist.refresh(engine.gallery)

    def follow(self, predictors: Iterable[tuple[str, Predictor]]) -> None:
        """Takes in what changed since the last look, for all that is served, as (project, predictor).

        Raises:
            StorageError: The database cannot be read.
        """
        enrolling = [
            (project, predictor.engine) for project, predictor in predictors if isinstance(predictor.engine, Enrolling)
        ]
        if not enrolling:
            return
        newest = gallery.revisions(self._ws)
        for project, engine in enrolling:
            if newest.get(project, 0) > self._seen.get(engine, 0):
                self._catch_up(project, engine)
                shortlist.refresh(engine.gallery)

    def _catch_up(self, project: str, engine: Enrolling) -> None:
        with self._looking:
            since = self._seen.get(engine, 0)
            self._seen[engine] = gallery.follow(self._ws, project, engine, since=since)

    def _again(self, engine: Enrolling, sample_id: str, picture_id: str, label: str) -> NewView | None:
        """The vector of an enrolled picture for this engine; None where the picture cannot be used any more."""
        try:
            image, info = read(self._ws.blobs.get(picture_id), min_side=engine.min_side)
            view = engine.view_to_enrol(image, (info.width, info.height))
        except (PictureError, NotFoundError, IntegrityError) as error:
            log.warning("The enrolled picture %s of %s is left out: %s", picture_id[:12], label, error)
            return None
        return NewView(sample_id, picture_id, label, view.vector)
