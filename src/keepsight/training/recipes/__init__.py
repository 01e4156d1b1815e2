"""Recipes: ways to train a model for a task. A recipe names its task by the module it stands in; tasks know no recipe.

A module ``keepsight.training.recipes.<task>`` has ``RECIPES``, a map from a recipe's name to a function of
:class:`Material` that gives :class:`Trained`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.config import ProjectSettings
from keepsight.errors import NotFoundError
from keepsight.executors import Executor
from keepsight.training.budget import Budget
from keepsight.zoo.backbone import Backbone


@dataclass(frozen=True)
class Material:
    """What a recipe works with: the labelled train and val pictures of a dataset version, never test or recent.

    Attributes:
        backbone: The pretrained network.
        features: Index vectors, float32 (n, d).
        labels: Class of each picture as an index into ``names``, int64 (n,).
        groups: Pictures of one group never stand in two folds, int64 (n,).
        validation: bool (n,), the pictures of the given val split.
        names: The classes.
        read: The stored bytes of the picture at a place; None where it cannot be read any more.
        settings: The project's settings.
        seed: Of everything random.
        budget: What the recipe may take; it stops by itself before that, with the best that it has.
        folder: For checkpoints and caches. It outlives a killed attempt and is removed when the run has ended.
        plan: What an earlier run resolved: replay exactly this, without a look at the clock. None: decide.
        progress: Takes dicts with ``text``, ``done`` and ``total``.
        executor: Opens the place where a search makes its trials; None for the recipe's own process.
    """

    backbone: Backbone
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    validation: NDArray[np.bool_]
    names: tuple[str, ...]
    read: Callable[[int], bytes | None]
    settings: ProjectSettings
    seed: int
    budget: Budget
    folder: Path
    plan: Mapping[str, Any] | None
    progress: Callable[[Mapping[str, Any]], None]
    executor: Callable[[], Executor] | None = None


@dataclass(frozen=True)
class Trained:
    """What a recipe gives.

    Attributes:
        model: ONNX network: input ``image``, outputs ``features`` and those of the task.
        temperature: Of the calibration, from out-of-fold predictions.
        probabilities: Out-of-fold, calibrated, float64 (n, k), in the order of the material.
        judged: bool (n,), the rows whose probabilities count: they were held out, and their class was learned without
            them.
        features: float32 (n, d), the model's own ``features`` of the material, of which the judged rows count.
        frozen: Whether ``features`` are the backbone's index vectors.
        plan: Resolved choices (recipe, strengths, folds, steps), JSON-able; with the seed they replay the run.
        figures: Figures on held-out pictures of the material, JSON-able; ``accuracy``, ``nll`` and ``pictures`` are
            what recipes are compared by.
    """

    model: bytes
    temperature: float
    probabilities: NDArray[np.float64]
    judged: NDArray[np.bool_]
    features: NDArray[np.float32]
    frozen: bool
    plan: dict[str, Any]
    figures: dict[str, Any]


Recipe = Callable[[Material], Trained]


def get(task: str, name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        NotFoundError: The task has no recipes, or none of that name; names those that exist.
    """
    tasks = sorted(item.name for item in pkgutil.iter_modules(__path__))
    if task not in tasks:
        raise NotFoundError.among("task with recipes", task, tasks)
    recipes: dict[str, Recipe] = importlib.import_module(f"{__name__}.{task}").RECIPES
    if name not in recipes:
        raise NotFoundError.among(f"recipe for {task}", name, recipes)
    return recipes[name]
