"""The COCO detector as it is: all of its classes, or those that the project names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepsight.errors import DataError
from keepsight.runtime.session import open_session
from keepsight.training import recipes
from keepsight.training.detection import pretrained
from keepsight.training.recipes import Material
from keepsight.zoo import ssd_mobilenet
from tests import tiny
from tests.zoo.conftest import Weights, weights  # noqa: F401 - a fixture


def material(folder: Path, values: list[Any], names: tuple[str, ...], **others: Any) -> Material:
    made = tiny.material(
        np.zeros((len(values), 4), np.float32), np.zeros(len(values), np.int64), folder=folder, names=("a", "b")
    )
    sizes = np.array([[120, 90]] * len(values), np.int64).reshape(-1, 2)
    return replace(made, task="detection", names=names, values=values, sizes=sizes, **others)


@pytest.fixture
def fetched(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811 - the fixture
    monkeypatch.setenv("KEEPSIGHT_CACHE", str(weights(pretrained.MODEL)))


@pytest.mark.usefixtures("fetched")
def test_it_needs_no_picture_and_takes_the_projects_classes(tmp_path: Path) -> None:
    whole = recipes.get("detection", "pretrained")(material(tmp_path, [], ()))
    some = recipes.get("detection", "pretrained")(
        material(tmp_path, [{"boxes": []}] * 2, ("cup", "person"), read=lambda place: tiny.picture(place, side=90))
    )

    assert whole.labels == ssd_mobilenet.LABELS
    assert some.labels == ("cup", "person")
    assert whole.licences == some.licences == ("Apache-2.0", "LicenseRef-unknown")
    assert not some.from_backbone
    assert some.held_out.judged.all()
    image = np.random.default_rng(0).standard_normal((1, 3, 300, 300)).astype(np.float32)
    every, chosen = (open_session(made.model).run(["scores"], {"image": image})[0] for made in (whole, some))
    places = [ssd_mobilenet.LABELS.index(name) for name in ("cup", "person")]
    assert np.array_equal(chosen, every[..., places])


def test_a_class_that_it_does_not_know_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not know cups") as caught:
        pretrained.take(material(tmp_path, [{"boxes": []}], ("cups", "person")))

    assert '"cup" for "cups"' in caught.value.do
    assert not pretrained.knows(["cups"])
    assert pretrained.knows(["cup", "person"])
    assert pretrained.knows([])
