"""The genuine face networks on real photos. Few pictures: counts, no shares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepsight.errors import PictureError, WeightsError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.decode import read
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.outputs.recognition.calibration import Calibration
from keepsight.runtime.outputs.recognition.engine import RecognitionEngine
from keepsight.runtime.outputs.recognition.gallery import Entry, Gallery
from keepsight.runtime.predictor import Predictor
from keepsight.tasks.recognition.matching import matched
from keepsight.zoo import faces, pretrained

SCENES = Path(__file__).parents[1] / "tasks" / "faces_families_scenes.json"


@pytest.fixture(scope="module")
def predictor(weights: Any) -> Predictor:
    cache = weights("yunet")
    weights("sface")
    detector, embedder = pretrained.load("yunet", cache=cache), pretrained.load("sface", cache=cache)
    info = BundleInfo(
        task="recognition",
        labels=(),
        preprocessing=detector.entry.preprocessing,
        created_at="2026-01-01T00:00:00+00:00",
    )
    empty = Gallery(faces.FACE_FEATURES, Calibration(false_accepts=0.01, usual=0.45))
    parts = {"gallery.npz": empty.to_bytes(), "embedder.onnx": embedder.content}
    return Predictor(Bundle.create(info, model=detector.content, parts=parts))


@pytest.fixture
def engine(predictor: Predictor) -> Iterator[RecognitionEngine]:
    found = predictor.engine
    assert isinstance(found, RecognitionEngine)
    yield found
    found.gallery.drop(found.gallery.samples())


def vectors(engine: RecognitionEngine, test_data: Path) -> list[tuple[str, str, Any]]:
    found = []
    for path in sorted((test_data / "faces-families" / "gallery").glob("*/*.jpg")):
        image, info = read(path.read_bytes(), min_side=engine.min_side)
        view = engine.view_to_enrol(image, (info.width, info.height))
        found.append((path.parent.name, f"{path.parent.name}/{path.name}", view.vector))
    return found


@pytest.mark.pictures
def test_everybody_is_told_apart(engine: RecognitionEngine, test_data: Path) -> None:
    """Leave one picture out, and leave one person out: 16 pictures have another of the same person, 2 have none."""
    enrolled = vectors(engine, test_data)
    assert len(enrolled) == 18
    named, strangers = [], []
    for name, sample, vector in enrolled:
        unit = vector / np.linalg.norm(vector)
        engine.gallery.put([Entry(*row) for row in enrolled if row[1] != sample])
        first = engine.gallery.search(unit, top=1)[0]
        if any(other == name for other, place, _ in enrolled if place != sample):
            named.append(first.name == name and first.similarity >= engine.gallery.threshold)
        engine.gallery.drop(engine.gallery.samples())
        engine.gallery.put([Entry(*row) for row in enrolled if row[0] != name])
        strangers.append(engine.gallery.search(unit, top=1)[0].similarity < engine.gallery.threshold)
        engine.gallery.drop(engine.gallery.samples())
    assert (sum(named), len(named)) == (16, 16)
    # One of the two children is nearer to a brother than the usual threshold.
    assert len(strangers) == 18
    assert sum(strangers) >= 17


@pytest.mark.pictures
def test_the_faces_of_scenes_are_found_and_named(
    predictor: Predictor, engine: RecognitionEngine, test_data: Path
) -> None:
    engine.gallery.put([Entry(*row) for row in vectors(engine, test_data)])
    scenes = json.loads(SCENES.read_text())
    found = extra = right = named = 0
    for name, boxed in scenes.items():
        answer = predictor.predict((test_data / "faces-families" / "scenes" / name).read_bytes())
        for said, true in matched(answer.output.as_dict()["subjects"], boxed):
            found += said is not None and true is not None
            extra += true is None
            if true is not None and "label" in true:
                named += 1
                right += said is not None and said["label"] == true["label"]
    assert (found, extra) == (sum(map(len, scenes.values())), 0) == (17, 0)
    assert (right, named) == (6, 6)


@pytest.mark.pictures
def test_two_faces_and_none_are_told(engine: RecognitionEngine, test_data: Path) -> None:
    scene = (test_data / "faces-families" / "scenes" / "identification1.jpg").read_bytes()
    image, info = read(scene, min_side=engine.min_side)
    with pytest.raises(PictureError, match="There are 4 faces"):
        engine.view_to_enrol(image, (info.width, info.height))
    empty = np.full((200, 300, 3), 120, np.uint8)
    with pytest.raises(PictureError, match="There is no face"):
        engine.view_to_enrol(empty, (300, 200))


def test_a_batch_gives_what_single_pictures_give(predictor: Predictor) -> None:
    session = predictor.engine._session  # type: ignore[attr-defined]
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 3, 640, 640)).astype(np.float32)
    both = session.run(None, {"image": pictures})
    alone = session.run(None, {"image": pictures[1:]})
    assert [array.shape for array in both] == [(2, 64), (2, faces.CELLS, 16)]
    assert all(np.allclose(one[1:], other, atol=1e-5) for one, other in zip(both, alone, strict=True))


def test_another_file_is_refused() -> None:
    for build in (faces.build_yunet, faces.build_sface):
        with pytest.raises(WeightsError, match="not those of"):
            build(b"something else")
