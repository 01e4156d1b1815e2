from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepsight.training.budget import Budget
from keepsight.training.finetune.recipe import finetune
from keepsight.training.finetune.search import JOURNAL, SPACE, Range, Searched, search
from keepsight.training.finetune.trials import Ask, Bench
from tests.conftest import REPOSITORY
from tests.training.finetune import small
from tests.training.finetune.searched import bench

pytestmark = pytest.mark.train


@pytest.fixture(autouse=True)
def one_thread(torch_installed: None) -> Iterator[None]:
    """A network so small is slower with more, and sums in one order are always the same."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Killed(Exception):
    """The process is gone."""


class Ticking:
    """A clock on which every look takes a hundredth of a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


def searched(folder: Path, **others: Any) -> Searched:
    folder.mkdir(exist_ok=True)
    values: dict[str, Any] = {"trials": 4, "left_s": lambda: math.inf, "progress": lambda done, total: None, **others}
    return search(values.pop("on", None) or bench(), folder=folder, **values)


def test_of_two_learning_rates_the_one_that_learns_is_taken(tmp_path: Path) -> None:
    slow = bench(learning_rate=1e-6)

    found = searched(tmp_path, on=slow, space={**SPACE, "learning_rate": Range(1e-3, 4e-3, log=True)})

    first, *others = found.trials
    assert first["settings"]["learning_rate"] == 1e-6, "what would have been done without a search comes first"
    best = min(found.trials, key=lambda trial: trial["nll"])
    assert best in others
    assert found.plan.learning_rate == best["settings"]["learning_rate"] > 1e-3
    assert found.plan.search is not None
    assert best["nll"] < 0.8 * found.plan.search["nll_as_it_was"]
    assert found.plan.steps == slow.plan.steps, "without a limit of time nothing is taken from training"


def test_a_trial_that_is_worse_than_most_is_given_up() -> None:
    ask = Ask(5, {"learning_rate": 1e-6}, bars=(None, None, 0.5, 0.4, 0.3, 0.2))

    outcome = bench(steps=30).run(ask)

    assert outcome.state == "pruned"
    assert 0 < outcome.steps < 30


def test_trials_whose_loss_leaves_all_numbers_decide_nothing(tmp_path: Path) -> None:
    found = searched(tmp_path, on=bench(learning_rate=1e30), trials=2, space={"learning_rate": Range(1e29, 1e30)})

    assert [trial["state"] for trial in found.trials] == ["failed", "failed"]
    assert "came to their end" in str(found.plan.search)
    assert found.plan.learning_rate == 1e30


def test_the_share_of_the_time_is_kept_and_training_gets_the_rest(tmp_path: Path) -> None:
    clock = Ticking()

    found = searched(tmp_path, trials=30, left_s=lambda: 6 - clock.now, clock=clock)

    assert clock.now < 2.5
    assert 2 <= len(found.trials) < 30
    assert found.plan.steps <= 70


def test_too_little_time_for_two_trials_is_said(tmp_path: Path) -> None:
    clock = Ticking()

    found = searched(tmp_path, left_s=lambda: 1 - clock.now, clock=clock)

    assert found.trials == []
    assert found.plan.search is not None
    assert "no search: two trials take" in found.plan.search["text"]
    assert found.plan.learning_rate == bench().plan.learning_rate


def test_without_held_out_pictures_there_is_nothing_to_judge_by(tmp_path: Path) -> None:
    whole = bench()
    blind = Bench(**{**vars(whole), "held": whole.held[:0]})

    assert "no held-out pictures" in str(searched(tmp_path, on=blind).plan.search)


@pytest.mark.parametrize("done_before", [1, 2])
def test_a_killed_search_goes_on_to_the_same_end(tmp_path: Path, done_before: int) -> None:
    whole = searched(tmp_path / "whole")
    calls: list[int] = []

    def kill(done: int, _total: int) -> None:
        calls.append(done)
        if calls.count(done_before) > 5:
            raise Killed

    with pytest.raises(Killed):
        searched(tmp_path / "cut", progress=kill)
    with (tmp_path / "cut" / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code":4,"wor')  # a line that the killed process did not finish
    after: list[int] = []
    again = searched(tmp_path / "cut", progress=lambda done, total: after.append(done))

    assert min(after) == done_before
    assert len(again.trials) == len(whole.trials)
    for one, other in zip(again.trials, whole.trials, strict=True):
        assert one["settings"] == pytest.approx(other["settings"])
        assert one["nll"] == pytest.approx(other["nll"], abs=1e-3)

    searched(tmp_path / "cut", progress=lambda done, total: pytest.fail("it is done"))


def test_the_recipe_searches_once_and_a_replay_never(tmp_path: Path) -> None:
    texts: list[str] = []
    wanted: dict[str, Any] = {"settings": {"train.search_trials": 2}}
    wanted["progress"] = lambda values: texts.append(values["text"])

    def kill(values: Any) -> None:
        wanted["progress"](values)
        if values["text"] == "training":
            raise Killed

    with pytest.raises(Killed):
        finetune(small.material(tmp_path / "first", **{**wanted, "progress": kill}))
    assert "searching settings" in texts
    texts.clear()
    trained = finetune(small.material(tmp_path / "first", **wanted))
    assert "searching settings" not in texts, "what was found is kept"
    assert len(trained.figures["search"]) == 2
    assert trained.plan["search"]["trials"] == 2

    again = finetune(small.material(tmp_path / "again", plan=trained.plan, budget=Budget(0.0), **wanted))

    assert "searching settings" not in texts
    assert again.plan == trained.plan
    assert "search" not in again.figures


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("ray_installed")
def test_a_cluster_finds_what_this_machine_finds() -> None:
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "search_program.py"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)

    assert len(told["here"]["trials"]) == len(told["cluster"]["trials"]) == 4
    for here, there in zip(told["here"]["trials"], told["cluster"]["trials"], strict=True):
        assert there["settings"] == here["settings"]
        assert there["nll"] == pytest.approx(here["nll"], abs=1e-6)
    plans = [{**told[place]["plan"], "search": None} for place in ("here", "cluster")]
    assert plans[0] == plans[1]
