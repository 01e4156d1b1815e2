"""The views of the labelled pictures: what each named face, or each whole picture, looks like to the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import PictureError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.decode import read
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.outputs.recognition.calibration import Calibration
from keepsight.runtime.outputs.recognition.engine import EMBEDDER, RecognitionEngine, View
from keepsight.runtime.outputs.recognition.gallery import PART, Gallery
from keepsight.tasks.recognition import UNKNOWN
from keepsight.tasks.recognition.matching import matched
from keepsight.training.processors import cores
from keepsight.training.recipes import Material
from keepsight.zoo import faces, pretrained

NOBODY = -1
_MADE_AT = "2000-01-01T00:00:00+00:00"


@dataclass(frozen=True)
class Views:
    """n views of the material's pictures.

    Attributes:
        vectors: float32 (n, d), as the network gives them.
        of: (n,) the name as its place in the material's ``names``; -1 for somebody unknown.
        pictures: (n,) the place of the picture in the material.
        features: What drift is measured on, float32 (pictures, f), where it was computed on the way; else None.
        left_out: How many pictures gave nothing, by the reason.
    """

    vectors: NDArray[np.float32]
    of: NDArray[np.int64]
    pictures: NDArray[np.int64]
    features: NDArray[np.float32] | None
    left_out: dict[str, int] = field(default_factory=dict)


def of_pictures(material: Material) -> Views:
    """Whole pictures by the backbone's index vectors, which are there already."""
    places = {name: number for number, name in enumerate(material.names)}
    taken: list[int] = []
    of: list[int] = []
    left_out: Counter[str] = Counter()
    for place, value in enumerate(material.values):
        labels = [item["label"] for item in value["subjects"]]
        if len(labels) != 1:
            left_out["several names for the whole picture" if labels else "no name"] += 1
            continue
        taken.append(place)
        of.append(NOBODY if labels[0] == UNKNOWN else places[labels[0]])
    chosen = np.array(taken, np.int64)
    return Views(
        vectors=material.features[chosen],
        of=np.array(of, np.int64),
        pictures=chosen,
        features=material.features,
        left_out=dict(left_out),
    )


def face_networks() -> tuple[pretrained.Pretrained, pretrained.Pretrained]:
    """The detector and the embedder.

    Raises:
        WeightsError: They are not on this machine; it says how to fetch them.
    """
    return pretrained.load("yunet"), pretrained.load("sface")


def of_faces(material: Material) -> Views:
    """The faces in the pictures, each with the name that the annotation gives it."""
    engine = face_engine()
    places = {name: number for number, name in enumerate(material.names)}
    vectors: list[NDArray[np.float32]] = []
    of: list[int] = []
    pictures: list[int] = []
    features = np.zeros((len(material.values), faces.DETECTOR_FEATURES), np.float32)
    left_out: Counter[str] = Counter()

    def look(place: int) -> tuple[tuple[View, ...], NDArray[np.float32]] | None:
        data = material.read(place)
        try:
            if data is None:
                return None
            image, info = read(data, min_side=engine.min_side)
        except PictureError:
            return None
        seen = engine.see([engine.prepare(image, (info.width, info.height))])[0]
        return seen.views, seen.features

    with ThreadPoolExecutor(cores()) as pool:
        for place, seen in enumerate(pool.map(look, range(len(material.values)))):
            if place % 16 == 0:
                material.progress({"text": "finding faces", "done": place, "total": len(material.values)})
            if seen is None:
                left_out["unreadable"] += 1
                continue
            features[place] = seen[1]
            for reason, view, label in _named(seen[0], material.values[place]["subjects"]):
                if view is None:
                    left_out[reason] += 1
                else:
                    vectors.append(view.vector)
                    of.append(NOBODY if label == UNKNOWN else places[label])
                    pictures.append(place)
    return Views(
        vectors=np.stack(vectors) if vectors else np.zeros((0, faces.FACE_FEATURES), np.float32),
        of=np.array(of, np.int64),
        pictures=np.array(pictures, np.int64),
        features=features,
        left_out=dict(left_out),
    )


def face_engine() -> RecognitionEngine:
    """Finds faces and gives their vectors; it knows nobody."""
    detector, embedder = face_networks()
    info = BundleInfo(task="recognition", labels=(), preprocessing=detector.entry.preprocessing, created_at=_MADE_AT)
    empty = Gallery(faces.FACE_FEATURES, Calibration(false_accepts=0.01, usual=1.0))
    parts = {PART: empty.to_bytes(), EMBEDDER: embedder.content}
    return RecognitionEngine(Bundle.create(info, model=detector.content, parts=parts))


def _named(seen: tuple[View, ...], subjects: list[dict[str, object]]) -> Iterator[tuple[str, View | None, str]]:
    """Each subject's view, or why it has none, as (reason, view, name)."""
    boxed = all(item.get("box") for item in subjects)
    if not boxed and len(subjects) == 1 and len(seen) != 1:
        yield ("no face" if not seen else "several faces, one name"), None, str(subjects[0]["label"])
        return
    if not boxed and len(subjects) > 1:
        yield "several names without boxes", None, ""
        return
    # Matching pairs answers with subjects; here the faces stand for answers that say nothing.
    said = [{"label": "", "box": view.box, "place": place} for place, view in enumerate(seen)]
    for one, true in matched(said, subjects):
        if true is not None:
            view = None if one is None else seen[int(one["place"])]
            yield "no face in the box", view, str(true["label"])
