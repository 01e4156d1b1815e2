"""The recipes: a pretrained network is judged and calibrated; training is kept where it is better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepsight.errors import DataError, WeightsError
from keepsight.runtime.session import open_session
from keepsight.training import processors, recipes
from keepsight.training.finetune.course import Course
from keepsight.training.recipes import segmentation as module
from keepsight.training.segmentation import fit
from tests import matting
from tests.tiny import material as material_of

COUNT = 24


def material(folder: Path, *, front: int = 220, back: int = 40, count: int = COUNT) -> recipes.Material:
    masks = [matting.disc((60, 50), radius=0.15 + 0.01 * n) for n in range(count)]
    pictures: list[bytes | None] = [matting.photo(mask, seed=n, front=front, back=back) for n, mask in enumerate(masks)]
    if count > 3:
        pictures[3] = None
    features = np.zeros((count, 4), np.float32)
    made = material_of(features, np.full(count, 0, np.int64), folder=folder, read=lambda place: pictures[place])
    return replace(
        made,
        task="segmentation",
        values=[matting.value(mask) for mask in masks],
        names=(),
        labels=np.full(count, -1, np.int64),
        sizes=np.tile([60, 50], (count, 1)),
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small network stands for the zoo's."""
    network = matting.pretrained(sharpness=8)
    monkeypatch.setattr(module, "_network", lambda material: network)
    plan = fit.Plan(Course(steps=30, ended_at=30, kept_at=30), rate=0.05)
    monkeypatch.setattr(processors, "cores", lambda: 1)
    monkeypatch.setattr(fit.Trainer, "_decided", lambda self: plan)


@pytest.mark.usefixtures("small")
def test_the_pretrained_network_is_judged_by_all_pictures_that_can_be_read(tmp_path: Path) -> None:
    trained = recipes.get("segmentation", "pretrained")(material(tmp_path))
    held_out = trained.held_out
    assert held_out.judged.tolist() == [place != 3 for place in range(COUNT)]
    assert trained.figures["pictures"] == COUNT - 1
    assert trained.figures["iou"] > 0.7
    assert (held_out.right[held_out.judged] == (held_out.score[held_out.judged] >= 0.9)).all()
    assert 0 < trained.thresholds["even"] < 1
    assert trained.temperature > 0
    assert trained.from_backbone is False
    assert trained.licences == ("Apache-2.0", "MIT")
    assert trained.plan["recipe"] == "pretrained"
    nothing = recipes.get("segmentation", "pretrained")(material(tmp_path, count=0))
    assert nothing.figures == {"iou": None, "right": None, "pictures": 0, "curve": []}


@pytest.mark.usefixtures("small")
def test_training_is_kept_where_it_is_better_and_a_replay_repeats_it(tmp_path: Path) -> None:
    dark = material(tmp_path / "a", front=100, back=30)
    trained = recipes.get("segmentation", "auto")(dark)
    assert trained.plan["chosen"] == "finetune"
    candidates = trained.figures["candidates"]
    assert candidates["finetune"]["iou"] > candidates["pretrained"]["iou"] + 0.2
    assert {item.name for item in open_session(trained.model).get_outputs()} >= {"alpha", "features"}
    judged = trained.held_out.judged
    assert 3 <= judged.sum() <= 8
    again = recipes.get("segmentation", "auto")(replace(dark, plan=trained.plan, folder=tmp_path / "b"))
    assert again.model == trained.model


@pytest.mark.usefixtures("small")
def test_a_given_val_split_judges(tmp_path: Path) -> None:
    made = material(tmp_path)
    validation = np.arange(COUNT) >= 14
    trained = recipes.get("segmentation", "finetune")(replace(made, validation=validation))
    assert (trained.held_out.judged == validation).all()
    assert trained.plan["hold_out"] == "validation"


@pytest.mark.usefixtures("small")
def test_too_few_masks_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="are left to train on"):
        recipes.get("segmentation", "finetune")(material(tmp_path, count=3))


def test_weights_that_are_not_here_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSIGHT_CACHE", str(tmp_path))
    made: Any = material(tmp_path)
    with pytest.raises(WeightsError, match="u2netp") as caught:
        recipes.get("segmentation", "pretrained")(made)
    assert "keepsight zoo fetch u2netp" in caught.value.do
