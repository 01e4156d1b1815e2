"""open_nsfw keeps our contract and says what the published network says of the same picture."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from keepsight.errors import WeightsError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.label_sets import chances
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.predictor import Predictor
from keepsight.runtime.session import open_session
from keepsight.zoo import catalogue, fetch, open_nsfw, pretrained
from tests.zoo.conftest import Weights

SAFE = (
    "clothing-coparsing-masks/test/images",
    "faces-families/scenes",
    "grocery-store/iconic",
    "license-plates/val/images",
)
EACH = 8


@pytest.fixture(scope="module")
def published(weights: Weights) -> ort.InferenceSession:
    """The network as it was published."""
    entry = catalogue.entry(open_nsfw.NAME)
    return ort.InferenceSession(fetch.read_weights(entry, cache=weights(entry.name)))


@pytest.fixture(scope="module")
def ours(weights: Weights) -> pretrained.Pretrained:
    return pretrained.load(open_nsfw.NAME, cache=weights(open_nsfw.NAME))


def reference(session: ort.InferenceSession, data: bytes, *, kind: str) -> float:
    """The score by the published preparation: 256 px square, the middle 224, saved once more, blue first, minus means.

    The published one saves as JPEG, which adds artefacts; saved as PNG the pixels stay as they are.
    """
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    image.crop((16, 16, 240, 240)).save(file, kind)
    pixels = np.asarray(Image.open(file), np.float32)[:, :, ::-1] - np.array([104, 117, 123], np.float32)
    (scores,) = session.run(None, {session.get_inputs()[0].name: pixels[None]})
    return float(scores[0, 1])


def log_odds(share: float) -> float:
    return math.log(share / (1 - share))


def test_the_same_numbers_give_the_same_score(published: ort.InferenceSession, ours: pretrained.Pretrained) -> None:
    pixels = np.random.default_rng(0).normal(0, 60, (3, 3, 256, 256)).astype(np.float32)
    middle = np.ascontiguousarray(pixels[:, ::-1, 16:240, 16:240].transpose(0, 2, 3, 1))
    (scores,) = published.run(None, {published.get_inputs()[0].name: middle})
    features, logits = open_session(ours.content).run(["features", "logits"], {"image": pixels})
    np.testing.assert_allclose(chances(logits[:, 0]), scores[:, 1], rtol=1e-3)
    assert features.shape == (3, ours.entry.features_dim)
    assert ours.entry.labels == ("nsfw",)


@pytest.mark.pictures
def test_safe_pictures_score_low_and_as_with_the_published_preparation(
    published: ort.InferenceSession, ours: pretrained.Pretrained, test_data: Path
) -> None:
    info = BundleInfo(
        task=ours.entry.task,
        labels=ours.entry.labels,
        preprocessing=ours.entry.preprocessing,
        created_at="2026-01-01T00:00:00+00:00",
    )
    predictor = Predictor(Bundle.create(info, model=ours.content))
    files = [file for folder in SAFE for file in sorted((test_data / folder).glob("*.jpg"))[:EACH]]
    assert len(files) == EACH * len(SAFE)
    for file in files:
        data = file.read_bytes()
        said = predictor.predict(data).output.as_dict()
        (score,) = [item["confidence"] for item in (*said["flags"], *said["alternatives"])]
        plain = reference(published, data, kind="PNG")
        assert log_odds(score) == pytest.approx(log_odds(plain), abs=0.8), file.name
        assert score == pytest.approx(reference(published, data, kind="JPEG"), abs=0.05), file.name
        assert score < 0.5, file.name
        assert said["action"] == "allow"


def test_another_network_is_refused(ours: pretrained.Pretrained) -> None:
    with pytest.raises(WeightsError, match="not those of open-nsfw"):
        open_nsfw.build(ours.content)


def test_restricted_weights_are_refused_unless_their_licence_is_named(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = weights(open_nsfw.NAME)
    entry = replace(catalogue.entry(open_nsfw.NAME), weights_licence="AGPL-3.0")
    monkeypatch.setattr(catalogue, "_ENTRIES", (entry,))
    for refused in (lambda: pretrained.load(entry.name, cache=cache), lambda: fetch.fetch(entry.name, cache=cache)):
        with pytest.raises(WeightsError, match=r"AGPL-3\.0"):
            refused()
    assert pretrained.load(entry.name, cache=cache, allowed_licences=["agpl-3.0"]).entry == entry
    assert fetch.fetch(entry.name, cache=cache, allowed_licences=["AGPL-3.0"]).is_file()
