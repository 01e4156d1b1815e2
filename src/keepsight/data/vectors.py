"""Index vectors: the features that a frozen backbone gives for each picture, computed once and kept.

They stand in the ``derived`` area under (picture, space); the space names the backbone and the preprocessing, so
vectors of different networks never mix. Retraining on 200 new labels therefore costs 200 embeddings, whatever the data
set's size. They are kept as float16 (cosine to float32 above 0.9999), together with the picture's quality figures,
measured on the same decoded picture.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from keepsight.config import ProjectSettings
from keepsight.data import rows
from keepsight.errors import BundleError, IntegrityError, KeepsightError, NotFoundError, PictureError, StorageError
from keepsight.runtime import decode, quality
from keepsight.runtime.predictor import embed
from keepsight.runtime.session import open_session
from keepsight.store import schema
from keepsight.store.database import insert_ignore
from keepsight.store.workspace import Workspace
from keepsight.zoo.backbone import Backbone, load_backbone

KIND = "vector"
WRITTEN_AT_ONCE = 128

# So many pictures missing and none found: that is a disk that is not mounted, not a few lost objects.
ALL_GONE = 10

_STORED = np.dtype("<f2")
_FIGURES = np.dtype("<f4")


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
        sides: int64 (n,), the shorter side of the original picture in pixels.
    """

    present: NDArray[np.bool_]
    features: NDArray[np.float32]
    quality: NDArray[np.float32]
    sides: NDArray[np.int64]


def backbone_of(ws: Workspace, settings: ProjectSettings) -> Backbone:
    """The backbone that a project's ``train.backbone`` names; a relative path begins at the workspace.

    Raises:
        NotFoundError: There is none of that name. WeightsError: It is not on this machine, or cannot serve.
    """
    name = settings["train.backbone"]
    return load_backbone(ws.config.root / name if name.endswith(".onnx") else name)


def space(backbone: Backbone) -> str:
    """The name (64 hex digits) of what this backbone and its preprocessing compute."""
    return hashlib.sha256(f"{backbone.digest}{backbone.preprocessing.digest}".encode()).hexdigest()


def ensure(
    ws: Workspace,
    picture_ids: Sequence[str],
    backbone: Backbone,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EnsureReport:
    """Computes the vectors that are missing; what is there is never computed again.

    Pictures are read, decoded and embedded one by one in a pool of threads, and written in short transactions, so a run
    that is killed goes on where it was.

    Args:
        threads: Size of the pool; ``machine.threads`` or all cores when not given.
        progress: Called with the number done and the number of missing ones.

    Raises:
        StorageError: The blob store or the database cannot be reached.
        BundleError: The backbone does not run, or gives numbers beyond float16.
    """
    wanted = list(dict.fromkeys(picture_ids))
    name = space(backbone)
    known = _known(ws, wanted, name)
    missing = [picture_id for picture_id in wanted if picture_id not in known]
    if not missing:
        return EnsureReport(0, len(wanted), ())
    unreadable: list[Unreadable] = []
    gone: list[StorageError] = []
    computed = 0
    count = threads or int(ws.config["machine.threads"] or 0) or os.cpu_count() or 1
    work = _Embedding(ws, backbone)
    pool = ThreadPoolExecutor(count, thread_name_prefix="embed")
    try:
        for part, futures in _ahead(missing, lambda picture_id: pool.submit(work.compute, picture_id)):
            done: dict[str, tuple[bytes, bytes]] = {}
            for picture_id, future in zip(part, futures, strict=True):
                try:
                    done[picture_id] = future.result()
                except (PictureError, IntegrityError, NotFoundError) as error:
                    unreadable.append(_told(picture_id, error))
                except StorageError as error:
                    # One object that is gone costs one picture; a store that is away stops the work.
                    if not isinstance(error.__cause__, FileNotFoundError):
                        raise
                    gone.append(error)
                    unreadable.append(_told(picture_id, error))
            if not computed and not done and len(gone) >= ALL_GONE:
                raise gone[0]
            _write(ws, done, name)
            computed += len(done)
            if progress is not None:
                progress(computed + len(unreadable), len(missing))
    finally:
        pool.shutdown(cancel_futures=True)
    return EnsureReport(computed, len(wanted) - len(missing), tuple(unreadable))


def load(ws: Workspace, picture_ids: Sequence[str], backbone: Backbone) -> Vectors:
    """The kept vectors of these pictures, in their order; ``ensure`` computes missing ones."""
    n = len(picture_ids)
    found = Vectors(
        present=np.zeros(n, np.bool_),
        features=np.zeros((n, backbone.features_dim), np.float32),
        quality=np.zeros((n, 3), np.float32),
        sides=np.zeros(n, np.int64),
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
                found.features[at] = np.frombuffer(data, _STORED)
                found.quality[at] = np.frombuffer(figures, _FIGURES)
    with ws.database.read() as connection:
        for part in rows.chunks(wanted):
            sizes = sa.select(picture.c.id, picture.c.width, picture.c.height).where(picture.c.id.in_(part))
            for picture_id, width, height in connection.execute(sizes):
                found.sides[places[picture_id]] = min(width, height)
    return found


class _Embedding:
    """Turns one stored picture into its vector and quality figures; used from several threads."""

    def __init__(self, ws: Workspace, backbone: Backbone) -> None:
        self._blobs = ws.blobs
        self._preprocessing = backbone.preprocessing
        # One picture a run, so that its vector does not depend on which others were missing with it.
        self._session = open_session(backbone.onnx, threads=1)

    def compute(self, picture_id: str) -> tuple[bytes, bytes]:
        data = self._blobs.get(picture_id)
        image, info = decode.read(data, min_side=self._preprocessing.min_side)
        measured = quality.measure(image, info=info)
        vector = embed(self._session, self._preprocessing.apply(image)[None])[0]
        if not np.abs(vector).max(initial=0) <= np.finfo(_STORED).max:
            raise BundleError(
                f"The backbone gives features up to {np.abs(vector).max():g}.",
                expected=f"finite numbers up to {np.finfo(_STORED).max:g}, which float16 can hold.",
                do="Use another backbone, or scale its features down.",
            )
        figures = np.array([measured.blur, measured.brightness, measured.contrast], _FIGURES)
        return vector.astype(_STORED).tobytes(), figures.tobytes()


def _known(ws: Workspace, picture_ids: Sequence[str], name: str) -> set[str]:
    table = schema.vector
    known: set[str] = set()
    with ws.database.read("derived") as connection:
        for part in rows.chunks(picture_ids):
            query = sa.select(table.c.picture_id).where(table.c.space == name, table.c.picture_id.in_(part))
            known.update(connection.scalars(query))
    return known


def _ahead(
    picture_ids: Sequence[str], start: Callable[[str], Future[tuple[bytes, bytes]]]
) -> Iterator[tuple[Sequence[str], list[Future[tuple[bytes, bytes]]]]]:
    """Parts with their futures; the next part is under way while the caller writes one."""
    waiting: tuple[Sequence[str], list[Future[tuple[bytes, bytes]]]] | None = None
    for part in rows.chunks(picture_ids, WRITTEN_AT_ONCE):
        started = (part, [start(picture_id) for picture_id in part])
        if waiting is not None:
            yield waiting
        waiting = started
    if waiting is not None:
        yield waiting


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
