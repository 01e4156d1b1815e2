"""Detectors learn what their boxes show, keep to their time, and go on after a kill."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from keepsight.errors import BudgetError, DataError
from keepsight.runtime.session import open_session
from keepsight.training import recipes
from keepsight.training.budget import Budget
from keepsight.training.detection import deciding
from keepsight.training.detection.recipe import held_out, train
from keepsight.training.recipes import Material
from keepsight.zoo.backbone import Backbone, load_backbone
from tests import tiny
from tests.zoo.conftest import Weights, weights  # noqa: F401 - a fixture

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("torch_installed")]

SIDE = 96


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inputs of 96 pixels, and one core: networks this small are trained fastest by one thread."""
    monkeypatch.setattr(deciding, "SIZES", (SIDE,))
    monkeypatch.setattr(deciding, "_USUAL", SIDE)
    monkeypatch.setattr(deciding, "SHORTEST_S", 5.0)
    monkeypatch.setattr(deciding, "LEAST_STEPS", 5)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@functools.cache
def backbone(cache: Path) -> Backbone:
    return load_backbone("efficientnet-lite0", cache=cache)


def scene(number: int) -> tuple[bytes, dict[str, Any]]:
    """A red disc and a blue square somewhere on grey, and their boxes."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", (160, 120), tuple(int(value) for value in rng.integers(90, 160, 3)))
    pen = ImageDraw.Draw(image)
    boxes = []
    for label, half in (("disc", 0), ("square", 80)):
        side = int(rng.integers(30, 50))
        left, top = half + int(rng.integers(0, 80 - side)), int(rng.integers(0, 120 - side))
        box = (left, top, left + side, top + side)
        pen.ellipse(box, fill=(200, 30, 30)) if label == "disc" else pen.rectangle(box, fill=(30, 40, 200))
        boxes.append({"label": label, "box": [float(each) for each in box]})
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue(), {"boxes": boxes}


def material(folder: Path, cache: Path, *, count: int = 24, **others: Any) -> Material:
    scenes = [scene(number) for number in range(count)]
    made = tiny.material(
        np.zeros((count, 4), np.float32),
        np.zeros(count, np.int64),
        folder=folder,
        names=("disc", "square"),
        backbone_=backbone(cache),
        read=lambda place: scenes[place][0],
    )
    given: dict[str, Any] = {
        "values": [value for _, value in scenes],
        "sizes": np.array([[160, 120]] * count, np.int64),
        "budget": Budget(600.0),
        **others,
    }
    return replace(made, task="detection", **given)


@pytest.fixture
def cache(weights: Weights) -> Path:  # noqa: F811 - the fixture
    return weights("efficientnet-lite0")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Few steps, and weights from the tests' own cache."""
    monkeypatch.setenv("KEEPSIGHT_CACHE", str(cache))
    monkeypatch.setattr(
        deciding, "affordable", lambda choices, **_: (choices[0], 40 if choices[0].architecture == "fcos" else 8)
    )


@pytest.mark.usefixtures("short")
def test_fcos_learns_what_its_boxes_show(tmp_path: Path, cache: Path) -> None:
    told: list[Any] = []
    trained = recipes.get("detection", "fcos")(material(tmp_path / "first", cache, progress=told.append))

    assert trained.figures["ap50"] > 0.5
    assert trained.figures["pictures"] == trained.held_out.judged.sum() > 0
    assert 0 < trained.thresholds["show"] < 1
    assert trained.preprocessing is not None
    assert (trained.preprocessing.size, trained.preprocessing.fit) == (SIDE, "stretch")
    assert any(values["text"] == "training" for values in told)
    session = open_session(trained.model)
    for count in (1, 3):
        given = np.zeros((count, 3, SIDE, SIDE), np.float32)
        features, boxes, scores = session.run(["features", "boxes", "scores"], {"image": given})
        assert features.shape == (count, trained.features.shape[1])
        assert boxes.shape[:2] == scores.shape[:2]
        assert scores.shape[2] == 2


class Killed(Exception):
    """The process is gone."""


@pytest.mark.usefixtures("short")
def test_a_killed_training_goes_on_and_its_replay_agrees(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepsight.training.detection.fit.CHECKPOINT_EVERY_S", 0.0)

    def kill(values: Any) -> None:
        if values["text"] == "training" and values["done"] >= 4:
            raise Killed

    with pytest.raises(Killed):
        train(material(tmp_path / "first", cache, progress=kill), architecture="ssdlite")
    told: list[Any] = []
    trained = train(material(tmp_path / "first", cache, progress=told.append), architecture="ssdlite")

    assert "measuring this machine" not in [values["text"] for values in told]
    assert min(values["done"] for values in told if values["text"] == "training") >= 4
    assert trained.figures["steps"] == 8
    assert trained.plan["architecture"] == "ssdlite"
    assert trained.held_out.judged.any()

    again = train(material(tmp_path / "again", cache, plan=trained.plan, budget=Budget(0.0)))
    assert again.plan == trained.plan
    assert again.figures["map"] == pytest.approx(trained.figures["map"], abs=0.02)


def test_too_little_time_and_nothing_to_learn_are_told(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPSIGHT_CACHE", str(cache))
    with pytest.raises(BudgetError, match="left for training a detector"):
        train(material(tmp_path / "short", cache, budget=Budget(3.0)))
    monkeypatch.setattr(deciding, "affordable", lambda choices, **_: (choices[0], 3))
    with pytest.raises(BudgetError, match="time for 3 steps") as caught:
        train(material(tmp_path / "few", cache))
    assert caught.value.details["needed_minutes"] > 0
    nothing: list[Any] = [{"boxes": []}] * 24
    with pytest.raises(DataError, match="has a box"):
        train(material(tmp_path / "empty", cache, values=nothing))


def test_val_judges_where_it_shows_enough_and_groups_stay_together(tmp_path: Path, cache: Path) -> None:
    some = np.arange(40) >= 18
    given, rule = held_out(material(tmp_path, cache, count=40, validation=some))
    assert rule == "validation"
    assert (given == some).all()

    few, rule = held_out(material(tmp_path, cache, count=40, validation=np.arange(40) >= 35))
    assert rule == "groups"
    assert 0 < few.sum() < 20
    groups = np.arange(40) // 4
    together, _ = held_out(material(tmp_path, cache, count=40, groups=groups))
    assert all(len(set(together[groups == group])) == 1 for group in range(10))
    nothing, rule = held_out(material(tmp_path, cache, count=8))
    assert rule == "nothing"
    assert not nothing.any()
