"""One picture, one view of it: index vectors, evaluation and serving agree on the real backbone."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from keepsight.data import vectors, versions
from keepsight.data.adding import NewSample, add
from keepsight.errors import PictureError, WeightsError
from keepsight.runtime import decode
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BackboneInfo, BundleInfo
from keepsight.runtime.predictor import Predictor, embed
from keepsight.runtime.session import open_session
from keepsight.store.workspace import Workspace
from keepsight.tasks.classification import probabilities
from keepsight.training import evaluation, material, recipes
from keepsight.training.material import Part
from keepsight.zoo.backbone import Backbone, load_backbone
from tests import tiny
from tests.tiny import workspace_with

LABELS = ("digit", "photo")


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    try:
        return load_backbone("efficientnet-lite0", cache=tmp_path_factory.mktemp("cache"))
    except WeightsError as error:
        pytest.skip(f"the weights are not here: {error}")


def encode(pixels: NDArray[np.uint8], kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@pytest.fixture(scope="module")
def pictures() -> list[tuple[str, bytes]]:
    """Crops of real photos, JPEG and PNG, and enlarged handwritten digits."""
    from sklearn.datasets import load_digits, load_sample_images

    found = []
    for photo in load_sample_images().images:
        for place, (top, left, side) in enumerate([(0, 0, 420), (60, 150, 300), (100, 300, 240)]):
            found.append(
                ("photo", encode(photo[top : top + side, left : left + side + 40], ["JPEG", "PNG"][place % 2]))
            )
    for place, digit in enumerate(load_digits().images[:6]):
        grey = Image.fromarray((digit * 15).astype(np.uint8)).resize((96, 96))
        found.append(("digit", encode(np.asarray(grey.convert("RGB")), ["PNG", "JPEG"][place % 2])))
    return found


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory, pictures: list[tuple[str, bytes]]) -> Iterator[Workspace]:
    with workspace_with(tmp_path_factory.mktemp("parity") / "ws") as opened:
        items = [NewSample(data, str(place), {"label": label}, "train") for place, (label, data) in enumerate(pictures)]
        add(opened, "shop", items, author="ana")
        versions.commit(opened, "shop", message="m", author="ana")
        yield opened


@pytest.fixture(scope="module")
def part(ws: Workspace, lite0: Backbone) -> Part:
    return material.load(ws, "shop", 1, lite0, progress=lambda _: None)["training"]


@pytest.fixture(scope="module")
def merged(part: Part, lite0: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle that training makes of these pictures."""
    labels = np.array([LABELS.index(label) for label in part.labels], np.int64)
    trained = recipes.get("classification", "head")(
        tiny.material(part.features, labels, folder=tmp_path_factory.mktemp("run"), names=LABELS, backbone_=lite0)
    )
    info = BundleInfo(
        task="classification",
        labels=LABELS,
        preprocessing=lite0.preprocessing,
        created_at="2026-01-01T00:00:00+00:00",
        temperature=trained.temperature,
        thresholds={"auto": 0.5},
        backbone=BackboneInfo(lite0.name, lite0.digest, lite0.licences[0]),
        extra={"frozen_backbone": True},
    )
    return Bundle.create(info, model=trained.model)


def served(ws: Workspace, part: Part, merged: Bundle) -> NDArray[np.float32]:
    """The features that the server computes and logs."""
    found = Predictor(merged).features([ws.blobs.get(sample.picture_id) for sample in part.samples])
    assert not any(isinstance(each, PictureError) for each in found)
    return np.stack([each for each in found if not isinstance(each, PictureError)])


def test_served_features_are_those_that_were_trained_on(
    ws: Workspace, part: Part, merged: Bundle, lite0: Backbone
) -> None:
    online = served(ws, part, merged)
    session = open_session(lite0.onnx)
    exact = []
    for sample in part.samples:
        image, _ = decode.read(ws.blobs.get(sample.picture_id), min_side=lite0.preprocessing.min_side)
        exact.append(embed(session, lite0.preprocessing.apply(image)[None])[0])
    assert np.abs(online - np.stack(exact)).max() < 1e-4
    one_by_one = [Predictor(merged).predict(ws.blobs.get(sample.picture_id)).features for sample in part.samples[:3]]
    assert np.abs(online[:3] - np.stack(one_by_one)).max() < 1e-4


def test_kept_vectors_point_the_same_way(ws: Workspace, part: Part, merged: Bundle, lite0: Backbone) -> None:
    online = served(ws, part, merged)
    kept = vectors.load(ws, [sample.picture_id for sample in part.samples], lite0)
    assert kept.present.all()
    assert (kept.features == part.features).all()
    cosine = (online * kept.features).sum(axis=1) / (
        np.linalg.norm(online, axis=1) * np.linalg.norm(kept.features, axis=1)
    )
    assert cosine.min() >= 0.9999


def test_evaluation_answers_as_the_server_does(ws: Workspace, part: Part, merged: Bundle, lite0: Backbone) -> None:
    predictor = Predictor(merged)
    online = [predictor.predict(ws.blobs.get(sample.picture_id)).output for sample in part.samples]
    assert evaluation.shares_features(merged, lite0)
    quick = evaluation.answers(ws, merged, part, backbone=lite0, progress=lambda _: None)
    assert [output.label for output in quick.outputs if output is not None] == [output.label for output in online]
    assert [output.label for output in online] == part.labels
    tables = [
        probabilities(found.predictions, LABELS) for found in (quick, evaluation.Answers(tuple(online), part.features))
    ]
    assert np.abs(tables[0] - tables[1]).max() < 1e-2


def test_the_merged_network_gives_the_logits_of_its_head(
    ws: Workspace, part: Part, merged: Bundle, lite0: Backbone
) -> None:
    images = []
    for sample in part.samples:
        image, _ = decode.read(ws.blobs.get(sample.picture_id), min_side=lite0.preprocessing.min_side)
        images.append(lite0.preprocessing.apply(image))
    session = open_session(merged.model())
    features, logits = session.run(["features", "logits"], {"image": np.stack(images)})
    head = open_session(evaluation.tail(merged.model(), outputs=("logits",)))
    assert np.abs(head.run(["logits"], {"features": features})[0] - logits).max() < 1e-4
    assert np.abs(head.run(["logits"], {"features": part.features})[0] - logits).max() < 1e-2
