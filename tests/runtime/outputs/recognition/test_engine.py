"""The engine of a bundle that sees whole pictures: enrol, answer, unknown."""

from __future__ import annotations

import numpy as np
import pytest

from keepsight.errors import BundleError, NotFoundError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.decode import read
from keepsight.runtime.outputs import output_module
from keepsight.runtime.outputs import recognition as module
from keepsight.runtime.outputs.recognition.answers import in_short, output_of
from keepsight.runtime.outputs.recognition.engine import RecognitionEngine, space_of
from keepsight.runtime.outputs.recognition.gallery import Entry
from keepsight.runtime.predictor import Predictor
from keepsight.training.recognition.network import Projection
from tests import tiny
from tests.gallery import bundle_with as bundle


def engine_of(predictor: Predictor) -> RecognitionEngine:
    assert isinstance(predictor.engine, RecognitionEngine)
    return predictor.engine


def enrol(predictor: Predictor, name: str, data: bytes) -> None:
    engine = engine_of(predictor)
    image, info = read(data, min_side=engine.min_side)
    view = engine.view_to_enrol(image, (info.width, info.height))
    engine.gallery.put([Entry(name, name, view.vector)])


def test_who_is_enrolled_is_known_at_once_and_strangers_are_not() -> None:
    predictor = Predictor(bundle())
    assert predictor.predict(tiny.picture(1)).output.label == "unknown"
    enrol(predictor, "one", tiny.picture(1))
    enrol(predictor, "two", tiny.picture(2))
    answer = predictor.predict(tiny.picture(1), top_k=2)
    assert answer.output.label == "one"
    told = answer.as_dict()
    assert told["subjects"][0]["similarity"] == pytest.approx(1.0, abs=1e-3)
    assert [item["label"] for item in told["alternatives"]] == ["two"]
    assert "box" not in told["subjects"][0]
    assert predictor.predict(tiny.picture(77)).output.label == "unknown"
    assert len(answer.features) == tiny.DIMENSIONS


def test_a_projection_is_part_of_the_network() -> None:
    random = np.random.default_rng(0)
    projection = Projection(
        (random.standard_normal(tiny.DIMENSIONS) / 100).astype(np.float32),
        random.standard_normal((tiny.DIMENSIONS, 12)).astype(np.float32),
    )
    plain, projected = Predictor(bundle()), Predictor(bundle(projection=projection))
    image, info = read(tiny.picture(5), min_side=tiny.SIDE)
    vector = engine_of(plain).view_to_enrol(image, (info.width, info.height)).vector
    through = engine_of(projected).view_to_enrol(image, (info.width, info.height)).vector
    assert through == pytest.approx(projection.apply(vector[None])[0], abs=1e-5)
    assert float(np.linalg.norm(vector)) == pytest.approx(1.0, abs=1e-5)
    assert engine_of(plain).space != engine_of(projected).space
    assert engine_of(plain).space == space_of(bundle())


def test_a_bundle_without_a_gallery_is_refused() -> None:
    whole = bundle()
    lacking = Bundle.create(whole.info, model=whole.model())
    with pytest.raises(NotFoundError, match=r"gallery\.npz"):
        Predictor(lacking)


def test_tensors_alone_are_not_decoded() -> None:
    assert output_module("recognition") is module
    assert module.summaries(bundle().info) == ()
    with pytest.raises(BundleError, match="without its gallery"):
        module.decode({}, info=bundle().info, top_k=1, sizes=[])


def test_vectors_that_are_there_already_give_the_same_answers() -> None:
    predictor = Predictor(bundle())
    enrol(predictor, "one", tiny.picture(1))
    engine = engine_of(predictor)
    known = bundle(engine.gallery)
    names, decode = module.open_decode(known)
    image, info = read(tiny.picture(1), min_side=engine.min_side)
    vector = engine.view_to_enrol(image, (info.width, info.height)).vector
    found = decode({names[0]: vector[None]}, info=known.info, top_k=5, sizes=[(8, 8)])[0]
    assert found.as_dict() == predictor.predict(tiny.picture(1)).output.as_dict()


def test_answers_in_short() -> None:
    assert in_short([]) == "nobody"
    assert in_short(["unknown", "unknown"]) == "2 unknown"
    assert in_short(["Ben", "Anna", "Ben"]) == "Anna, Ben"
    nobody = output_of([], sure_of_none=0.8)
    assert (nobody.label, nobody.confidence) == ("nobody", 0.8)
