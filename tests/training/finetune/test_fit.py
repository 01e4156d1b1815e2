from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from keepsight.errors import TrainingError
from keepsight.training.finetune.cache import Cache
from keepsight.training.finetune.classifier import Classifier
from keepsight.training.finetune.fit import Trainer, one_cycle
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
            raise torch.cuda.OutOfMemoryError
        return super().__call__(maps, exact=exact)


class Late(Tail):
    """The same, but the memory is full only on the way back."""

    room = 4

    def __call__(self, maps: Any, *, exact: bool = False) -> Any:
        import torch

        found = super().__call__(maps, exact=exact)

        def full(_gradient: Any) -> None:
            if len(maps) > self.room:
                raise torch.cuda.OutOfMemoryError

        if found.requires_grad:
            found.register_hook(full)
        return found


def trainer(kind: type[Tail] = Tail, *, clock: Callable[[], float] = time.monotonic, **changes: Any) -> Trainer:
    model = features_only(small.backbone().onnx)
    cut = next(cut for cut in cuts(model) if cut.name == "wide")
    rng = np.random.default_rng(0)
    maps = rng.random((COUNT, 8, 8, 16)).astype(np.float16)
    plan = Plan("wide", False, (), (), 0, 32, 4, 0, "nothing", batch=COUNT, mixup=0.0, dropout=0.0)
    plan = replace(plan, **changes)
    classifier = Classifier(rng.random((COUNT, small.CHANNELS)).astype(np.float32), 2)
    cache = Cache(maps, np.zeros((COUNT, 0, 8, 8, 16), np.float16), np.ones(COUNT, np.bool_))
    return Trainer(cache, np.arange(COUNT) % 2, kind(model, cut), classifier, plan, seed=0, clock=clock)


@pytest.mark.train
@pytest.mark.usefixtures("torch_installed", "one_core")
@pytest.mark.parametrize("kind", [Crowded, Late])
def test_a_device_with_little_memory_works_in_pieces_and_learns_the_same(kind: type[Tail]) -> None:
    made = [trainer(each) for each in (Tail, kind)]

    for each in made:
        each.run("first", np.arange(COUNT), np.zeros(0, np.int64), steps=4)

    assert made[1].piece == 4, "the largest that there is room for"
    for first, second in zip(made[0].average, made[1].average, strict=True):
        assert (first - second).abs().max() < 1e-3


@pytest.mark.train
@pytest.mark.usefixtures("torch_installed", "one_core")
def test_pictures_are_judged_in_pieces_too() -> None:
    answers = [trainer(kind).judge(np.arange(COUNT)) for kind in (Tail, Crowded)]

    for whole, pieces in zip(*answers, strict=True):
        assert np.allclose(whole, pieces, atol=1e-5)


@pytest.mark.train
@pytest.mark.usefixtures("torch_installed", "one_core")
def test_a_device_without_room_for_four_pictures_is_told() -> None:
    class Full(Crowded):
        room = 3

    with pytest.raises(TrainingError, match="no room for 4 pictures") as told:
        trainer(Full).run("first", np.arange(COUNT), np.zeros(0, np.int64), steps=4)
    assert "train.backbone" in told.value.do
    with pytest.raises(TrainingError, match="no room for 4 pictures"):
        trainer(Full).judge(np.arange(COUNT))


@pytest.mark.train
@pytest.mark.usefixtures("torch_installed", "one_core")
def test_a_hurried_phase_is_followed_to_the_same_weights() -> None:
    now = 0.0
    rng = np.random.default_rng(1)

    def clock() -> float:
        nonlocal now
        now += float(rng.exponential())
        return now

    train, held = np.arange(8), np.arange(8, COUNT)
    mixed: dict[str, Any] = {"batch": 4, "mixup": 0.2, "dropout": 0.2, "learning_rate": 0.05}
    first = trainer(clock=clock, **mixed)
    second = trainer(**mixed)

    made = first.run("first", train, held, steps=40, seconds=60.0)
    last = first.run("second", np.arange(COUNT), held[:0], steps=9, rate=0.3, seconds=15.0)
    followed = second.run("first", train, held, steps=40, follow=made.course)
    ended = second.run("second", np.arange(COUNT), held[:0], steps=9, rate=0.3, follow=last.course)

    assert made.course.pace and last.course.pace, "the clock hurried both phases"
    assert made.course.kept_at < made.course.ended_at < 40, "the best weights were not the last ones"
    assert (followed.course, ended.course) == (made.course, last.course)
    assert np.array_equal(followed.logits, made.logits)
    for one, other in zip(first.average, second.average, strict=True):
        assert one.equal(other)


def test_the_learning_rate_rises_once_and_ends_near_nothing() -> None:
    rates = [one_cycle(share) for share in np.linspace(0, 1, 101)]
    highest = int(np.argmax(rates))

    assert rates[0] < 0.1
    assert rates[:highest] == sorted(rates[:highest])
    assert rates[highest:] == sorted(rates[highest:], reverse=True)
    assert rates[-1] < 0.01
