from __future__ import annotations

import numpy as np
import pytest

from keepsight.training.augment import DOUBTFUL, NAMES, Augmenter, changed, mirrored

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)


def test_a_view_is_decided_by_its_random_numbers_alone() -> None:
    augmenter = Augmenter(NAMES, 32)
    first, again, other = (augmenter.view(PICTURE, np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_without_any_change_the_middle_remains() -> None:
    middle = PICTURE[:, 15:75]

    assert np.array_equal(Augmenter((), 60).view(PICTURE, np.random.default_rng(0)), middle)


@pytest.mark.parametrize("name", NAMES)
def test_each_change_happens_alone(name: str) -> None:
    plain = Augmenter((), 48).view(PICTURE, np.random.default_rng(0))
    views = [Augmenter((name,), 48).view(PICTURE, np.random.default_rng(seed)) for seed in range(60)]

    assert any(not np.array_equal(view, plain) for view in views)
    if name == "flip":
        assert {view.tobytes() for view in views} == {plain.tobytes(), mirrored(plain).tobytes()}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_doubtful_change_can_be_asked_for(name: str) -> None:
    assert not np.array_equal(changed(PICTURE, name, np.random.default_rng(0)), PICTURE)
