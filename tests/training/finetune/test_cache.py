from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepsight.errors import StorageError, TrainingError
from keepsight.runtime.session import open_session
from keepsight.training.augment import NAMES, Augmenter
from keepsight.training.finetune.cache import Cache, build, views_that_fit
from keepsight.training.finetune.network import cuts, features_only, trunk
from keepsight.training.finetune.views import Views
from tests.training.finetune import small

COUNT = 20


def made(folder: Path, read: Any, *, count: int = COUNT, progress: Any = lambda done: None) -> Cache:
    model = features_only(small.backbone().onnx)
    cut = next(cut for cut in cuts(model) if cut.name == "wide")
    views = Views(small.backbone().preprocessing, Augmenter(NAMES, 64), 2, 0, read)
    session = open_session(trunk(model, cut, any_size=True))
    shapes: dict[str, Any] = {"plain": cut.shape, "view": (16, 16, 16)}
    return build(folder, views, session, pictures=count, key={}, threads=2, progress=progress, **shapes)


def test_activations_are_those_of_the_trunk_with_channels_last(tmp_path: Path) -> None:
    cache = made(tmp_path, small.picture)
    model = features_only(small.backbone().onnx)
    session: Any = open_session(trunk(model, next(cut for cut in cuts(model) if cut.name == "wide")))
    expected = session.run(None, {"image": small.inputs(COUNT)})[0].transpose(0, 2, 3, 1)

    assert cache.there.all()
    assert np.abs(cache.plain.astype(np.float32) - expected).max() < 0.01
    assert cache.views.shape == (COUNT, 2, 16, 16, 16)
    assert np.abs(cache.views[:, 0] - cache.views[:, 1]).max() > 0.1


def test_a_picture_that_cannot_be_read_costs_only_itself(tmp_path: Path) -> None:
    def read(place: int) -> bytes | None:
        return None if place == 3 else b"no picture" if place == 5 else small.picture(place)

    assert np.flatnonzero(~made(tmp_path, read).there).tolist() == [3, 5]


def test_nothing_to_read_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="None of the 20 pictures"):
        made(tmp_path, lambda place: None)


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    first = made(tmp_path, small.picture)
    read: list[int] = []

    again = made(tmp_path, read.append)

    assert read == []
    assert np.array_equal(again.views, first.views)


def test_views_are_left_out_where_the_disk_is_too_small(tmp_path: Path) -> None:
    assert views_that_fit(tmp_path, 10, plain=100, view=100, wanted=4) == 4
    assert views_that_fit(tmp_path, 10, plain=100, view=10**15, wanted=4) == 0
    with pytest.raises(StorageError, match="GB left"):
        views_that_fit(tmp_path, 10, plain=10**15, view=100, wanted=4)
