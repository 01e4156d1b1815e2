"""Recipes are found by task and name, and give networks that answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepsight.errors import NotFoundError
from keepsight.runtime.session import open_session
from keepsight.training import recipes
from tests.tiny import DIMENSIONS
from tests.tiny import material as material_of


def made_of(seed: int, folder: Path) -> recipes.Material:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = rng.standard_normal((60, DIMENSIONS)).astype(np.float32)
    features[np.arange(60), labels] += 8
    progress: list[Any] = []
    return material_of(
        features, labels.astype(np.int64), folder=folder, names=("a", "b", "c"), seed=seed, progress=progress.append
    )


def test_unknown_names_are_told_with_those_that_exist() -> None:
    with pytest.raises(NotFoundError, match="classification"):
        recipes.get("cooking", "head")
    with pytest.raises(NotFoundError, match="head"):
        recipes.get("classification", "tail")


def test_a_head_learns_and_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    recipe = recipes.get("classification", "head")
    material = made_of(7, tmp_path)
    trained = recipe(material)
    held_out = trained.held_out
    assert held_out.confidence.shape == (60,)
    assert (held_out.confidence[held_out.judged] > 1 / 3).all()
    assert np.array_equal(held_out.right, held_out.predicted == material.labels)
    assert held_out.right[held_out.judged].mean() == pytest.approx(trained.figures["accuracy"])
    assert trained.figures["pictures"] == held_out.judged.sum() > 0
    assert recipe(made_of(7, tmp_path)).model == trained.model
    session = open_session(trained.model)
    image = np.zeros((2, 3, 8, 8), np.float32)
    features, logits = session.run(["features", "logits"], {"image": image})
    assert (features.shape, logits.shape) == ((2, DIMENSIONS), (2, 3))


def test_each_row_of_held_out_answers_is_an_array_of_its_own() -> None:
    held_out = recipes.HeldOut.nothing(3)
    held_out.judged[0] = True
    held_out.confidence[1] = 0.5

    assert not held_out.right.any()
    assert not held_out.score.any()
