"""Recipes: ways to train a model for a task. A recipe names its task by the module it stands in; tasks know no recipe.

A module ``keepsight.training.recipes.<task>`` has ``RECIPES``, a map from a recipe's name to a function of
:class:`Material` that gives :class:`Trained`. Tasks of installed packages bring theirs (see ``keepsight.plugins``).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight import plugins, tasks
from keepsight.config import ProjectSettings
from keepsight.errors import NotFoundError
from keepsight.executors import Executor
from keepsight.runtime.preprocess import Preprocessing
from keepsight.training.budget import Budget
from keepsight.zoo.backbone import Backbone

PRETRAINED = "pretrained"
"""The recipe that takes a model as it is: it needs no labelled pictures, and no pictures at all."""


@dataclass(frozen=True)
class Material:
    """What a recipe works with: the labelled train and val pictures of a dataset version, never test or recent.

    Attributes:
        task: What the annotations are of.
        backbone: The pretrained network.
        values: The annotation of each picture.
        sizes: Width and height of each picture in pixels, int64 (n, 2).
        features: Index vectors, float32 (n, d).
        labels: The first class of each picture as an index into ``names``, int64 (n,); -1 where there is none.
        groups: Pictures of one group never stand in two folds, int64 (n,).
        validation: bool (n,), the pictures of the given val split.
        names: All classes that the annotations name, sorted.
        read: The stored bytes of the picture at a place; None where it cannot be read any more.
        settings: The project's settings.
        seed: Of everything random.
        budget: What the recipe may take; it stops by itself before that, with the best that it has.
        folder: For checkpoints and caches. It outlives a killed attempt and is removed when the run has ended.
        plan: What an earlier run resolved: replay exactly this, without a look at the clock. None: decide.
        progress: Takes dicts with ``text``, ``done`` and ``total``.
        executor: Opens the place where a search makes its trials; None for the recipe's own process.
        keys: The sample id of each picture, for what has to be found again when the picture is erased.
    """

    task: str
    backbone: Backbone
    values: Sequence[tasks.Value]
    sizes: NDArray[np.int64]
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
    keys: Sequence[str] = ()


@dataclass(frozen=True)
class HeldOut:
    """What a model answered to pictures of the material that it had not learned from, one row for each picture.

    Attributes:
        judged: bool (n,), the rows that count: they were held out, and what they show was learned without them.
        confidence: Calibrated, float64 (n,), 0 to 1.
        right: bool (n,), whether nothing needed correcting.
        score: float64 (n,), how right the answer was, 0 to 1.
        predicted: int64 (n,), the answer's place among the output module's ``summaries``; 0 where it has none.
    """

    judged: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]
    score: NDArray[np.float64]
    predicted: NDArray[np.int64]

    @classmethod
    def nothing(cls, n: int) -> HeldOut:
        """Of n pictures none was held out."""
        return cls(
            judged=np.zeros(n, np.bool_),
            confidence=np.zeros(n, np.float64),
            right=np.zeros(n, np.bool_),
            score=np.zeros(n, np.float64),
            predicted=np.zeros(n, np.int64),
        )

    @classmethod
    def of_probabilities(
        cls, probabilities: NDArray[np.float64], labels: NDArray[np.int64], judged: NDArray[np.bool_]
    ) -> HeldOut:
        """Of a classifier: calibrated probabilities (n, k), the true classes (n,), and which rows count."""
        predicted = probabilities.argmax(axis=1)
        right = predicted == labels
        return cls(judged, probabilities.max(axis=1), right, right.astype(np.float64), predicted)


@dataclass(frozen=True)
class Trained:
    """What a recipe gives.

    Attributes:
        model: ONNX network: input ``image``, outputs ``features`` and those of the task.
        held_out: Answers to held-out pictures, from which the threshold of "auto" and the drift reference are made.
        features: float32 (n, d), the model's own ``features`` of the material, of which the judged rows count; d = 0:
            they are computed with the model when they are needed.
        frozen: Whether ``features`` are the backbone's index vectors.
        plan: Resolved choices (recipe, strengths, folds, steps), JSON-able; with the seed they replay the run.
        figures: Figures on held-out pictures of the material, JSON-able: the task's headline and ``pictures``.
        temperature: Of the calibration, from held-out predictions.
        labels: What the network tells apart; None: the material's ``names``.
        preprocessing: How pictures become its input; None: as for the backbone.
        thresholds: What the task decides by, besides "auto".
        parts: What the task needs besides the network, by name (see ``Bundle.create``).
        extra: Further facts for the bundle, JSON-able.
        licences: Of the weights that it was made from; None: the backbone's.
        from_backbone: Whether it was trained from the project's backbone.
    """

    model: bytes
    held_out: HeldOut
    features: NDArray[np.float32]
    frozen: bool
    plan: dict[str, Any]
    figures: dict[str, Any]
    temperature: float = 1.0
    labels: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, bytes] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    licences: tuple[str, ...] | None = None
    from_backbone: bool = True


Recipe = Callable[[Material], Trained]


def get(task: str, name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        NotFoundError: The task has no recipes, or none of that name; names those that exist.
        PluginError: It comes from a package that cannot be loaded, or a package brings a task that is there already.
    """
    recipes = _of(task)
    if name not in recipes:
        raise NotFoundError.among(f"recipe for {task}", name, recipes)
    return recipes[name]


def names(task: str) -> tuple[str, ...]:
    """What recipes a task has.

    Raises:
        NotFoundError, PluginError: See ``get``.
    """
    return tuple(_of(task))


def _of(task: str) -> dict[str, Recipe]:
    own = [item.name for item in pkgutil.iter_modules(__path__)]
    known = sorted((*own, *plugins.names(own=own)))
    if task not in known:
        raise NotFoundError.among("task with recipes", task, known)
    module = importlib.import_module(f"{__name__}.{task}") if task in own else plugins.module(task, "recipes")
    recipes: dict[str, Recipe] = module.RECIPES
    return recipes
