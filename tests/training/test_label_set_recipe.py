"""From labelled pictures to a model for moderation or several labels."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepsight.errors import WeightsError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.predictor import Predictor
from keepsight.training import recipes
from keepsight.training.recipes import Material
from keepsight.zoo import catalogue, open_nsfw
from tests import fetched, tiny

N = 120


def pictures() -> tuple[list[bytes], np.ndarray]:
    """Noisy pictures, of which some are red and some, independently, have a bright upper half."""
    rng = np.random.default_rng(0)
    present = rng.random((N, 2)) < (0.4, 0.3)
    files = []
    for red, bright in present:
        pixels = rng.integers(40, 90, (tiny.SIDE, tiny.SIDE, 3))
        pixels[..., 0] += 100 * red
        pixels[: tiny.SIDE // 2] += 60 * bright
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    return files, present


def material(folder: Path, *, task: str, key: str, names: tuple[str, ...] = ("bright", "red")) -> Material:
    files, present = pictures()
    preprocessing = tiny.backbone().preprocessing
    features = np.stack([preprocessing.from_bytes(data)[0].ravel() for data in files])
    values: list[dict[str, Any]] = [
        {key: [name for name, there in zip(names, (bright, red), strict=False) if there]} for red, bright in present
    ]
    labels = np.array([names.index(value[key][0]) if value[key] else -1 for value in values])
    made = tiny.material(features, labels.clip(0), folder=folder, names=names, read=lambda place: files[place])
    return replace(made, task=task, values=values, labels=labels)


@pytest.mark.parametrize(("task", "key"), [("moderation", "flags"), ("multilabel", "labels")])
def test_what_was_learned_is_what_is_served(tmp_path: Path, task: str, key: str) -> None:
    given = material(tmp_path, task=task, key=key)
    trained = recipes.get(task, "auto")(given)
    assert trained.held_out.judged.all()
    again = recipes.get(task, "auto")(replace(given, plan=trained.plan))
    assert again.model == trained.model
    assert trained.held_out.right.mean() > 0.9
    assert trained.figures["right"] == pytest.approx(trained.held_out.right.mean())
    info = BundleInfo(
        task=task,
        labels=given.names,
        preprocessing=given.backbone.preprocessing,
        created_at="2026-01-01T00:00:00+00:00",
        thresholds=trained.thresholds,
    )
    predictor = Predictor(Bundle.create(info, model=trained.model))
    right = 0
    for place in range(N):
        data = given.read(place)
        assert data is not None
        answer = predictor.predict(data).output.as_dict()
        right += [item["label"] for item in answer[key]] == given.values[place][key]
    assert right > 0.95 * N


def test_a_stricter_rate_of_false_alarms_raises_the_thresholds(tmp_path: Path) -> None:
    given = material(tmp_path, task="moderation", key="flags")
    noise = np.random.default_rng(1).normal(0, 2, given.features.shape).astype(np.float32)
    blurred = replace(given, features=given.features + noise)
    found = []
    for rate in (0.3, 0.02):
        settings = tiny.material(
            given.features, given.labels.clip(0), folder=tmp_path, settings={"train.false_alarms": rate}
        ).settings
        trained = recipes.get("moderation", "head")(replace(blurred, settings=settings))
        found.append(trained.thresholds)
    assert all(found[0][name] <= found[1][name] for name in found[0] if name.startswith("label"))
    assert found[0] != found[1]


def test_the_pretrained_network_needs_no_pictures_and_judges_those_that_there_are(tmp_path: Path) -> None:
    fetched.ensure(open_nsfw.NAME)
    given = material(tmp_path, task="moderation", key="flags", names=("nsfw", "red"))
    trained = recipes.get("moderation", "pretrained")(given)
    assert trained.labels == ("nsfw",)
    assert trained.preprocessing == catalogue.entry(open_nsfw.NAME).preprocessing
    assert not trained.from_backbone
    assert trained.licences == ("BSD-2-Clause", "Apache-2.0")
    # Pictures with a flag that it does not know do not judge it.
    asked = np.array([set(value["flags"]) <= {"nsfw"} for value in given.values])
    np.testing.assert_array_equal(trained.held_out.judged, asked)
    nothing = replace(
        given, values=[], features=given.features[:0], labels=given.labels[:0], groups=given.groups[:0], names=()
    )
    alone = recipes.get("moderation", "pretrained")(nothing)
    assert alone.model == trained.model
    assert alone.figures["pictures"] == 0


def test_a_restricted_licence_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(catalogue.entry(open_nsfw.NAME), weights_licence="CC-BY-NC-4.0")
    monkeypatch.setattr(catalogue, "_ENTRIES", (entry,))
    given = material(tmp_path, task="moderation", key="flags")
    with pytest.raises(WeightsError, match=r"CC-BY-NC-4\.0"):
        recipes.get("moderation", "pretrained")(given)
