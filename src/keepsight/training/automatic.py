"""The ``auto`` recipe: a quick model first, so that there always is one, then a thorough one where that can gain.

Both are judged on the same held-out pictures of train and val, never on test, and the better one is kept. Whatever
keeps the thorough recipe from ending well (no torch, too little time, a full disk) costs its gain, not the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from keepsight.errors import (
    BudgetError,
    ExecutorError,
    KeepsightError,
    MissingExtraError,
    StorageError,
    TrainingError,
)
from keepsight.tasks.intervals import wilson
from keepsight.training.recipes import Material, Recipe, Trained

# Where fewer answers than this can be wrong (95 % sure), minutes of training have nothing to win.
SMALLEST_ERROR = 0.01
SETBACKS = (BudgetError, ExecutorError, MissingExtraError, StorageError, TrainingError)


def better_of(material: Material, recipes: Mapping[str, Recipe]) -> Trained:
    """The better of two recipes, the quick one first in ``recipes``.

    The plan that comes out names the chosen recipe and why, with the plans of both; a replay repeats the chosen alone.
    """
    quick_name, thorough_name = recipes
    if material.plan is not None:
        chosen = material.plan["chosen"]
        again = recipes[chosen](replace(material, plan=material.plan[chosen]))
        return replace(again, plan=dict(material.plan), figures=again.figures)
    quick = recipes[quick_name](material)
    plans: dict[str, Any] = {quick_name: quick.plan, thorough_name: None}
    figures: dict[str, Any] = {quick_name: quick.figures, thorough_name: None}
    kept, name = quick, quick_name
    why = _no_room(material, quick)
    if not why:
        material.progress({"text": f"{quick_name}: {_mean_score(quick)} of held-out pictures; now {thorough_name}"})
        try:
            thorough = recipes[thorough_name](material)
        except SETBACKS as error:
            why = f"{thorough_name} could not be done: {_told(error)}"
        else:
            plans[thorough_name], figures[thorough_name] = thorough.plan, thorough.figures
            gain, n = _gain(quick, thorough)
            if gain > 0:
                kept, name = thorough, thorough_name
            why = (
                f"{thorough_name} is {abs(gain):.1%} {'better' if gain > 0 else 'worse' if gain < 0 else 'different'} "
                f"on {n} held-out pictures"
            )
    return replace(
        kept,
        plan={"recipe": "auto", "chosen": name, "why": why, **plans},
        figures={**kept.figures, "candidates": figures},
    )


def _no_room(material: Material, quick: Trained) -> str:
    """Why more training cannot gain, or an empty text."""
    judged = quick.held_out.judged
    found = wilson(quick.held_out.score[judged], groups=material.groups[judged])
    if found.value is not None and 1 - found.low < SMALLEST_ERROR:
        return f"{found.value:.1%} of {found.n} held-out pictures are right already: nothing to gain"
    return ""


def _gain(quick: Trained, thorough: Trained) -> tuple[float, int]:
    """How much larger the thorough model's mean score is, on the pictures that both were judged by."""
    both = quick.held_out.judged & thorough.held_out.judged
    if not both.any():
        return 0.0, 0
    first, second = (model.held_out.score[both] for model in (quick, thorough))
    return float(np.mean(second) - np.mean(first)), int(both.sum())


def _mean_score(trained: Trained) -> str:
    judged = trained.held_out.judged
    return f"{trained.held_out.score[judged].mean():.1%}" if judged.any() else "an unknown share"


def _told(error: KeepsightError) -> str:
    return f"{error.found} {error.do}"
