"""The auto recipe: keeps the better model by held-out pictures, and always has one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepsight.errors import ExecutorError, MissingExtraError, StorageError, TrainingError
from keepsight.training.automatic import better_of
from keepsight.training.recipes import HeldOut, Material, Recipe, Trained
from tests.tiny import DIMENSIONS, material

N = 400


def made(folder: Path, plan: dict[str, Any] | None = None) -> Material:
    labels = (np.arange(N) % 2).astype(np.int64)
    return material(np.zeros((N, DIMENSIONS), np.float32), labels, folder=folder, plan=plan)


def recipe(name: str, right: float, calls: list[str], *, judged: slice = slice(None)) -> Recipe:
    """A recipe whose model is right on this share of the held-out pictures."""

    def train(given: Material) -> Trained:
        calls.append(name)
        known = np.arange(N) < right * N
        answer = np.where(known, given.labels, 1 - given.labels)
        held_out = np.zeros(N, np.bool_)
        held_out[judged] = True
        return Trained(
            model=name.encode(),
            temperature=1.0,
            held_out=HeldOut.of_probabilities(np.eye(2)[answer], given.labels, held_out),
            features=given.features,
            frozen=name == "head",
            plan={"recipe": name, "asked": given.plan},
            figures={"accuracy": right},
        )

    return train


@pytest.mark.parametrize(("quick", "thorough", "chosen"), [(0.7, 0.9, "finetune"), (0.9, 0.7, "head")])
def test_the_better_one_on_the_same_pictures_is_kept(
    tmp_path: Path, quick: float, thorough: float, chosen: str
) -> None:
    calls: list[str] = []
    recipes = {"head": recipe("head", quick, calls), "finetune": recipe("finetune", thorough, calls)}
    kept = better_of(made(tmp_path), recipes)
    assert calls == ["head", "finetune"]
    assert kept.model == chosen.encode()
    assert kept.plan["chosen"] == chosen
    assert "20.0%" in kept.plan["why"]
    assert kept.figures["candidates"]["head"]["accuracy"] == quick


def test_models_are_compared_on_what_both_were_judged_by(tmp_path: Path) -> None:
    calls: list[str] = []
    # On the pictures that the second was judged by, the first is always right and the second not.
    recipes = {
        "head": recipe("head", 0.6, calls),
        "finetune": recipe("finetune", 0.3, calls, judged=slice(0, 200)),
    }
    assert better_of(made(tmp_path), recipes).plan["chosen"] == "head"


def test_nothing_is_spent_where_nothing_can_be_gained(tmp_path: Path) -> None:
    calls: list[str] = []
    recipes = {"head": recipe("head", 1.0, calls), "finetune": recipe("finetune", 1.0, calls)}
    kept = better_of(made(tmp_path), recipes)
    assert calls == ["head"]
    assert "nothing to gain" in kept.plan["why"]


@pytest.mark.parametrize(
    "setback",
    [
        TrainingError("The budget is 20 s.", expected="time for one epoch.", do="Allow 3 minutes."),
        MissingExtraError("torch is not installed.", expected="it.", do="pip install keepsight[train]"),
        StorageError("The disk is full.", expected="room.", do="Make room."),
        ExecutorError("The cluster is away.", expected="a cluster.", do="Start it."),
    ],
)
def test_a_setback_costs_the_gain_and_not_the_run(tmp_path: Path, setback: Exception) -> None:
    def fails(given: Material) -> Trained:
        raise setback

    kept = better_of(made(tmp_path), {"head": recipe("head", 0.8, []), "finetune": fails})
    assert kept.model == b"head"
    assert str(getattr(setback, "do", "")) in kept.plan["why"]


def test_a_replay_repeats_the_chosen_one_alone(tmp_path: Path) -> None:
    calls: list[str] = []
    recipes = {"head": recipe("head", 0.7, calls), "finetune": recipe("finetune", 0.9, calls)}
    first = better_of(made(tmp_path), recipes)
    calls.clear()
    again = better_of(replace(made(tmp_path), plan=first.plan), recipes)
    assert calls == ["finetune"]
    assert (again.model, again.plan) == (first.model, first.plan)
