"""Index vectors: the features that a frozen backbone gives for each picture, computed once and kept.

They stand in the ``derived`` area under (picture, space); the space names the backbone and the preprocessing, so
vectors of different networks never mix. Retraining on 200 new labels therefore costs 200 embeddings, whatever the data
set's size. They are kept as float16 (cosine to float32 above 0.9999), together with the picture's quality figures,
measured on the same decoded picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from keepsight import executors
from keepsight.config import ProjectSettings
from keepsight.data import rows
from keepsight.errors import IntegrityError, KeepsightError, NotFoundError, PictureError, StorageError
from keepsight.executors import Executor, pictures
from keepsight.executors.pictures import FIGURES, STORED
from keepsight.store import schema
from keepsight.store.database import insert_ignore
from keepsight.store.workspace import Workspace
from keepsight.zoo.backbone import Backbone, load_backbone

KIND = "vector"
WRITTEN_AT_ONCE = 128

# So many pictures missing and none found: that is a disk that is not mounted, not a few lost objects.
ALL_GONE = 10


@dataclass(frozen=True)
class Unreadable:
    """A picture that gave no vector, and why."""

    picture_id: str
    code: str
    text: str


@dataclass(frozen=True)
class EnsureReport:
    """How many vectors were ``computed`` and how many ``present`` before; ``unreadable`` pictures have none."""

    computed: int
    present: int
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True)
class Vectors:
    """What is kept about n pictures in one space, in the order asked for.

    Attributes:
        present: bool (n,); where False, there is no vector and the other rows hold zeros.
        features: float32 (n, d), as the backbone gave them (not normalised).
        quality: float32 (n, 3): blur, brightness and contrast (see ``keepsight.runtime.quality``).
        sizes: int64 (n, 2), width and height of the original picture in pixels, upright.
    """

    present: NDArray[np.bool_]
    features: NDArray[np.float32]
    quality: NDArray[np.float32]
    sizes: NDArray[np.int64]


def backbone_of(ws: Workspace, settings: ProjectSettings) -> Backbone:
    """The backbone that a project's ``train.backbone`` names; a relative path begins at the workspace.

    Raises:
        NotFoundError: There is none of that name. WeightsError: It is not on this machine, or cannot serve.
    """
    name, weights = settings["train.backbone"], settings["train.weights"]
    return load_backbone(
        ws.config.root / name if name.endswith(".onnx") else name,
        weights=None if weights is None else ws.config.root / weights,
        allowed_licences=settings["gate.licences"],
    )


def space(backbone: Backbone) -> str:
    """The name (64 hex digits) of what this backbone and its preprocessing compute."""
    return hashlib.sha256(f"{backbone.digest}{backbone.preprocessing.digest}".encode()).hexdigest()


def ensure(
    ws: Workspace,
    picture_ids: Sequence[str],
    backbone: Backbone,
    *,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EnsureReport:
    """Computes the vectors that are missing; what is there is never computed again.

    Pictures are decoded and embedded one by one where the executor works, and written in short transactions, so a run
    that is killed goes on where it was.

    Args:
        executor: Where they are computed; the one that the workspace's settings name when not given.
        progress: Called with the number done and the number of missing ones.

    Raises:
        StorageError: The blob store or the database cannot be reached.
        BundleError: The backbone does not run, or gives numbers beyond float16.
        ExecutorError: The cluster that should compute them cannot be reached.
    """
    wanted = list(dict.fromkeys(picture_ids))
    name = space(backbone)
    known = _known(ws, wanted, name)
    missing = [picture_id for picture_id in wanted if picture_id not in known]
    if not missing:
        return EnsureReport(0, len(wanted), ())
    if executor is None:
        with executors.of(ws.config) as own:
            report = _compute(ws, missing, backbone, executor=own, progress=progress)
    else:
        report = _compute(ws, missing, backbone, executor=executor, progress=progress)
    return replace(report, present=len(wanted) - len(missing))


def load(ws: Workspace, picture_ids: Sequence[str], backbone: Backbone) -> Vectors:
    """The kept vectors of these pictures, in their order; ``ensure`` computes missing ones."""
    n = len(picture_ids)
    found = Vectors(
        present=np.zeros(n, np.bool_),
        features=np.zeros((n, backbone.features_dim), np.float32),
        quality=np.zeros((n, 3), np.float32),
        sizes=np.zeros((n, 2), np.int64),
    )
    places: dict[str, list[int]] = {}
    for place, picture_id in enumerate(picture_ids):
        places.setdefault(picture_id, []).append(place)
    vector, picture = schema.vector, schema.picture
    wanted = list(places)
    with ws.database.read("derived") as connection:
        for part in rows.chunks(wanted):
            query = sa.select(vector.c.picture_id, vector.c.data, vector.c.quality).where(
                vector.c.space == space(backbone), vector.c.picture_id.in_(part)
            )
            for picture_id, data, figures in connection.execute(query):
                at = places[picture_id]
                found.present[at] = True
                found.features[at] = np.frombuffer(data, STORED)
                found.quality[at] = np.frombuffer(figures, FIGURES)
    with ws.database.read() as connection:
        for part in rows.chunks(wanted):
            sizes = sa.select(picture.c.id, picture.c.width, picture.c.height).where(picture.c.id.in_(part))
            for picture_id, width, height in connection.execute(sizes):
                found.sizes[places[picture_id]] = (width, height)
    return found


def _compute(
    ws: Workspace,
    missing: Sequence[str],
    backbone: Backbone,
    *,
    executor: Executor,
    progress: Callable[[int, int], None] | None,
) -> EnsureReport:
    name = space(backbone)
    unreadable: list[Unreadable] = []
    gone: list[StorageError] = []
    computed = 0
    found = executor.map(
        pictures.Embedding,
        missing,
        shared=pictures.embedding(backbone.onnx, backbone.preprocessing),
        load=ws.blobs.get,
        chunk=pictures.CHUNK,
    )
    for part in rows.chunks(missing, WRITTEN_AT_ONCE):
        done: dict[str, tuple[bytes, bytes]] = {}
        for picture_id, result in zip(part, found, strict=False):
            if not isinstance(result, KeepsightError):
                done[picture_id] = result
                continue
            # One object that is gone costs one picture; a store that is away stops the work.
            lost = isinstance(result, StorageError) and isinstance(result.__cause__, FileNotFoundError)
            if not lost and not isinstance(result, (PictureError, IntegrityError, NotFoundError)):
                raise result
            if isinstance(result, StorageError):
                gone.append(result)
            unreadable.append(_told(picture_id, result))
        if not computed and not done and len(gone) >= ALL_GONE:
            raise gone[0]
        _write(ws, done, name)
        computed += len(done)
        if progress is not None:
            progress(computed + len(unreadable), len(missing))
    return EnsureReport(computed, 0, tuple(unreadable))


def _known(ws: Workspace, picture_ids: Sequence[str], name: str) -> set[str]:
    table = schema.vector
    known: set[str] = set()
    with ws.database.read("derived") as connection:
        for part in rows.chunks(picture_ids):
            query = sa.select(table.c.picture_id).where(table.c.space == name, table.c.picture_id.in_(part))
            known.update(connection.scalars(query))
    return known


def _write(ws: Workspace, done: dict[str, tuple[bytes, bytes]], name: str) -> None:
    now = ws.clock()
    with ws.database.write("derived") as connection:
        insert_ignore(
            connection,
            schema.derived,
            [{"picture_id": key, "kind": KIND, "location": name, "created_at": now} for key in done],
        )
        insert_ignore(
            connection,
            schema.vector,
            [
                {"picture_id": key, "space": name, "data": vector, "quality": figures}
                for key, (vector, figures) in done.items()
            ],
        )


def _told(picture_id: str, error: KeepsightError) -> Unreadable:
    return Unreadable(picture_id, error.code, f"{error.found} {error.do}")
