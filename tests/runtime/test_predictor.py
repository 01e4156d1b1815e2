"""A bundle answers pictures: singly, in batches and from several threads, always the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keepsight.errors import BundleError, NotFoundError, PictureError, PictureTooLargeError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.decode import Limits, decode
from keepsight.runtime.predictor import Prediction, Predictor, embed
from keepsight.runtime.preprocess import Preprocessing
from keepsight.runtime.quality import QualityLimits
from keepsight.runtime.session import open_session

Make = Callable[..., Any]
Array = NDArray[np.uint8]


@pytest.fixture
def red(scene: Array, make_jpeg: Make) -> bytes:
    """A clearly red photo."""
    content: bytes = make_jpeg((scene * (1.0, 0.2, 0.2)).astype(np.uint8))
    return content


@pytest.fixture
def many(scene: Array, make_jpeg: Make) -> list[bytes]:
    """Forty different photos."""
    return [make_jpeg(scene[row : row + 120, 3 * row : 3 * row + 160]) for row in range(40)]


def test_prediction(bundle: Bundle, red: bytes) -> None:
    prediction = Predictor(bundle).predict(red)
    assert prediction.output.label == "red"
    assert prediction.output.confidence > 0.9
    assert prediction.decision == "auto"
    assert prediction.quality_reasons == ()
    assert prediction.features.dtype == np.float32
    assert prediction.features.shape == (3,)
    assert (prediction.info.width, prediction.info.height) == (640, 480)
    assert prediction.timings_ms.keys() == {"decode", "model"}
    assert min(prediction.timings_ms.values()) > 0


def test_answer_as_json(bundle: Bundle, red: bytes) -> None:
    answer = json.loads(json.dumps(Predictor(bundle).predict(red, top_k=2).as_dict()))
    assert answer["label"] == "red"
    assert len(answer["alternatives"]) == 1
    assert answer["decision"] == "auto"
    assert answer["quality"]["width"] == 640


def test_unsure_answers_go_to_review(make_bundle: Make, red: bytes) -> None:
    unsure = Predictor(make_bundle(temperature=50.0)).predict(red)
    assert unsure.output.label == "red"
    assert unsure.decision == "review"
    assert Predictor(make_bundle(temperature=50.0, thresholds={})).predict(red).decision == "auto"


def test_bad_quality_goes_to_review(make_bundle: Make, red: bytes) -> None:
    prediction = Predictor(make_bundle(quality_limits=QualityLimits(min_brightness=200))).predict(red)
    assert prediction.output.confidence > 0.9
    assert prediction.quality_reasons == ("too_dark",)
    assert prediction.decision == "review"


def test_one_bad_picture_costs_one(bundle: Bundle, many: list[bytes], make_jpeg: Make) -> None:
    predictor = Predictor(bundle)
    many[5], many[17] = b"a text file", many[17][:500]
    results = predictor.predict_many(many)
    assert len(results) == len(many)
    for index, result in enumerate(results):
        if index in (5, 17):
            assert isinstance(result, PictureError)
            continue
        assert isinstance(result, Prediction)
        alone = predictor.predict(many[index])
        assert alone.output.label == result.output.label
        np.testing.assert_allclose(alone.features, result.features, atol=1e-4)
    vectors = predictor.features(many)
    assert [index for index, vector in enumerate(vectors) if isinstance(vector, PictureError)] == [5, 17]
    first = results[0]
    assert isinstance(first, Prediction)
    np.testing.assert_allclose(np.asarray(vectors[0]), first.features, atol=1e-4)


def test_nothing_but_bad_pictures(bundle: Bundle) -> None:
    predictor = Predictor(bundle)
    assert all(isinstance(result, PictureError) for result in predictor.predict_many([b"", b"x"]))
    assert all(isinstance(result, PictureError) for result in predictor.features([b"", b"x"]))
    assert predictor.predict_many([]) == []
    assert predictor.features([]) == []


def test_single_picture_errors_reach_the_caller(bundle: Bundle, red: bytes) -> None:
    with pytest.raises(PictureError, match="a text file"):
        Predictor(bundle).predict(b"a text file")
    with pytest.raises(PictureTooLargeError):
        Predictor(bundle, limits=Limits(max_pixels=1000)).predict(red)


@pytest.mark.parametrize("pool", [None, 1, 3])
def test_threads_get_their_own_answers(pool: int | None, bundle: Bundle, many: list[bytes]) -> None:
    predictor = Predictor(bundle, pool=pool)
    expected = [predictor.predict(data).features for data in many]
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda data: predictor.predict(data).features, many * 3))
    np.testing.assert_array_equal(answers, expected * 3)


def test_a_failed_picture_frees_its_place_in_the_pool(bundle: Bundle, red: bytes) -> None:
    predictor = Predictor(bundle, pool=1)
    for _ in range(3):
        with pytest.raises(PictureError):
            predictor.predict(b"")
        predictor.predict_many([b"", red])
    assert predictor.predict(red).output.label == "red"


def test_embedding_does_not_depend_on_the_batch(make_model: Make) -> None:
    session = open_session(make_model())
    tensors = np.random.default_rng(1).normal(size=(32, 3, 16, 16)).astype(np.float32)
    together = embed(session, tensors)
    assert together.dtype == np.float32
    assert together.shape == (32, 3)
    np.testing.assert_allclose(np.concatenate([embed(session, row[None]) for row in tensors]), together, atol=1e-4)


def test_predictor_and_embedding_give_the_same_features(bundle: Bundle, many: list[bytes]) -> None:
    preprocessing = bundle.info.preprocessing
    tensors = np.stack([preprocessing.from_bytes(data)[0] for data in many])
    vectors = embed(open_session(bundle.model()), tensors)
    served = [Predictor(bundle).predict(data).features for data in many[:3]]
    np.testing.assert_allclose(served, vectors[:3], atol=1e-4)


def test_decoded_pictures_get_the_answers_of_their_files(bundle: Bundle, many: list[bytes]) -> None:
    predictor = Predictor(bundle)
    pictures = [decode(data, min_side=bundle.info.preprocessing.min_side) for data in many]
    outputs = predictor.predict_arrays(pictures, top_k=2)
    assert [output.label for output in outputs] == [predictor.predict(data).output.label for data in many]
    assert predictor.predict_arrays([]) == []


def test_variants(bundle: Bundle, red: bytes) -> None:
    assert Predictor(bundle, variant="int8").predict(red).output.label == "red"
    with pytest.raises(NotFoundError, match="int4"):
        Predictor(bundle, variant="int4")


def test_warm(bundle: Bundle, make_bundle: Make) -> None:
    Predictor(bundle).warm()
    with pytest.raises(BundleError, match="for 2 labels"):
        Predictor(make_bundle(labels=("a", "b"))).warm()


def test_bundles_that_do_not_fit_are_refused_at_once(make_bundle: Make) -> None:
    with pytest.raises(BundleError, match=r"\(n, 3, 224, 224\)"):
        Predictor(make_bundle(preprocessing=Preprocessing(224)))
    with pytest.raises(NotFoundError, match="fortune-telling"):
        Predictor(make_bundle(task="fortune-telling"))
