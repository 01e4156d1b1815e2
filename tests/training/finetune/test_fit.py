from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keepsight.errors import TrainingError
from keepsight.training.finetune.cache import Cache
from keepsight.training.finetune.fit import Classifier, Trainer, one_cycle
from keepsight.training.finetune.network import Tail, cuts, features_only
from keepsight.training.finetune.settings import Plan
from tests.training.finetune import small

COUNT = 16


class Crowded(Tail):
    """A tail on a device that has room for so many pictures."""

    room = 4

    def __call__(self, maps: Any, *, exact: bool = False) -> Any:
        import torch

        if len(maps) > self.room:
            raise torch.OutOfMemoryError
        return super().__call__(maps, exact=exact)


def trainer(kind: type[Tail]) -> Trainer:
    model = features_only(small.backbone().onnx)
    cut = next(cut for cut in cuts(model) if cut.name == "wide")
    rng = np.random.default_rng(0)
    maps = rng.random((COUNT, 8, 8, 16)).astype(np.float16)
    plan = Plan("wide", False, (), (), 0, 32, 4, 0, "nothing", batch=COUNT, mixup=0.0, dropout=0.0)
    classifier = Classifier(rng.random((COUNT, small.CHANNELS)).astype(np.float32), 2)
    cache = Cache(maps, np.zeros((COUNT, 0, 8, 8, 16), np.float16), np.ones(COUNT, np.bool_))
    return Trainer(cache, np.arange(COUNT) % 2, kind(model, cut), classifier, plan, seed=0)


@pytest.mark.train
@pytest.mark.usefixtures("torch_installed")
def test_a_device_with_little_memory_works_in_pieces_and_learns_the_same() -> None:
    made = [trainer(kind) for kind in (Tail, Crowded)]

    for each in made:
        each.run("first", np.arange(COUNT), np.zeros(0, np.int64), steps=4)

    for first, second in zip(made[0].average, made[1].average, strict=True):
        assert (first - second).abs().max() < 1e-3


@pytest.mark.train
@pytest.mark.usefixtures("torch_installed")
def test_a_device_without_room_for_four_pictures_is_told() -> None:
    class Full(Crowded):
        room = 2

    with pytest.raises(TrainingError, match="no room for 4 pictures"):
        trainer(Full).run("first", np.arange(COUNT), np.zeros(0, np.int64), steps=4)


def test_the_learning_rate_rises_once_and_ends_near_nothing() -> None:
    rates = [one_cycle(share) for share in np.linspace(0, 1, 101)]
    highest = int(np.argmax(rates))

    assert rates[0] < 0.1
    assert rates[:highest] == sorted(rates[:highest])
    assert rates[highest:] == sorted(rates[highest:], reverse=True)
    assert rates[-1] < 0.01
