"""What happens to pictures in shops: the same size, changed as named, and nothing at strength 0."""

from __future__ import annotations

import numpy as np
import pytest

from keepsight.training.corruptions import CORRUPTIONS, Picture


@pytest.fixture
def scene() -> Picture:
    across = np.linspace(40, 200, 90)[None, :, None] * np.ones((60, 1, 3))
    texture = np.random.default_rng(0).integers(-25, 25, (60, 90, 3))
    return np.clip(across + texture, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_keeps_the_size_and_repeats_with_its_seed(name: str, scene: Picture) -> None:
    before = scene.copy()
    change = CORRUPTIONS[name]
    worst = change(scene, 1.0, np.random.default_rng(1))
    assert worst.shape == scene.shape
    assert worst.dtype == np.uint8
    assert np.abs(worst.astype(int) - scene).mean() > 2
    assert np.array_equal(worst, change(scene, 1.0, np.random.default_rng(1)))
    assert np.abs(change(scene, 0.0, np.random.default_rng(1)).astype(int) - scene).mean() < 0.5
    assert np.array_equal(scene, before), "the picture that was given stays as it was"


def test_each_does_what_it_is_called(scene: Picture) -> None:
    rng = np.random.default_rng(0)
    changed = {name: change(scene, 1.0, rng) for name, change in CORRUPTIONS.items()}
    assert changed["darker"].mean() < 0.5 * scene.mean()
    assert changed["brighter"].mean() > 1.3 * scene.mean()

    def detail(picture: Picture) -> float:
        return float(np.abs(np.diff(picture.astype(int), axis=1)).mean())

    assert detail(changed["blurred"]) < 0.7 * detail(scene)
    assert detail(changed["half_size"]) < 0.7 * detail(scene)
    assert detail(changed["noisy"]) > 1.3 * detail(scene)
    assert 0.15 < (changed["covered"] == 127).all(axis=2).mean() < 0.25
