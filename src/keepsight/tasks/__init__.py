"""What kinds of vision jobs exist: one module for each task, found by the task's name.

A module ``keepsight.tasks.<task>`` has the members of :class:`Task`. Nothing else knows which tasks exist; further ones
come from installed packages (see ``keepsight.plugins``).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, cast

from numpy.typing import ArrayLike

from keepsight import plugins
from keepsight.errors import NotFoundError

Value = dict[str, Any]
"""An annotation as it is stored: a JSON-able dict whose keys belong to the task."""

# Modules of this package that serve all tasks.
_SHARED = frozenset({"intervals", "label_sets", "reliability", "set_figures"})


class Metrics(Protocol):
    """Figures of a model on labelled pictures, each with its uncertainty."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; figures are ``{"value", "low", "high", "n"}`` at the top level."""


class Task(Protocol):
    """What a module of this package offers."""

    HEADLINE: str
    """The figure of :class:`Metrics` by which two models of the task are told apart first."""

    FIGURES: Mapping[str, str]
    """Names of figures in plain words, in the order in which people read them; others follow under their own."""

    FIXED_PLACES: bool
    """Whether an annotation says where things are, so that it is wrong for a picture that was turned."""

    def parse(self, raw: Any) -> Value:
        """The annotation meant by something from outside (a table's cell, a form, a request, a prediction).

        Raises:
            AnnotationError: it means none.
        """

    def validate(self, value: Mapping[str, Any], labels: Sequence[str]) -> None:
        """Makes sure that an annotation is complete and uses known ``labels`` only.

        Raises:
            AnnotationError: it does not.
        """

    def canonical(self, value: Mapping[str, Any]) -> Value:
        """The one form of an annotation: annotations that mean the same are equal, and so are their hashes."""

    def classes(self, value: Mapping[str, Any]) -> tuple[str, ...]:
        """The classes that an annotation names, each once, sorted; none where the task has no classes."""

    def summary(self, value: Mapping[str, Any]) -> str:
        """An annotation or a prediction in a few words; of a prediction it is the output's ``label``."""

    def stratum(self, value: Mapping[str, Any]) -> str:
        """By what splits are balanced: annotations of one stratum are divided evenly. "" where nothing is to be."""

    def uncertainty(self, prediction: Mapping[str, Any]) -> float:
        """How much a prediction (its output's ``as_dict``) needs a person, 0 (not at all) to 1."""

    def score(self, prediction: Mapping[str, Any], value: Mapping[str, Any]) -> float:
        """How right a prediction is, 0 to 1. Its mean is what gate, slices and robustness compare."""

    def right(self, prediction: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
        """Whether a person would leave a prediction as it is. Its mean is the accuracy in production."""

    def check_trainable(self, project: str, values: Sequence[Mapping[str, Any]]) -> None:
        """Makes sure that there is something to learn from the annotations.

        Raises:
            DataError: there is not.
        """

    def evaluate(
        self,
        predictions: Sequence[Mapping[str, Any] | None],
        values: Sequence[Mapping[str, Any]],
        *,
        names: Sequence[str],
        groups: ArrayLike | None = None,
        seed: int,
    ) -> Metrics:
        """The figures of predictions against the truth.

        Args:
            predictions: One for each picture, with everything that the model considered ("alternatives"); None where
                the picture could not be read, which counts as wrong.
            values: The annotations.
            names: The classes that the model knows.
            groups: (n,) groups of pictures that are not independent.
            seed: Of everything random.
        """


def check_size(task: str, value: Mapping[str, Any], size: tuple[int, int]) -> None:
    """Makes sure that an annotation suits a picture of this width and height.

    Tasks whose annotations say where things are have a function ``fits(value, size)`` for it; any annotation of the
    others does.

    Raises:
        AnnotationError: it does not.
    """
    fits: Callable[[Mapping[str, Any], tuple[int, int]], None] | None = getattr(get(task), "fits", None)
    if fits is not None:
        fits(value, size)


def figures(task: str, metrics: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """The figures of a task's metrics with an interval, as ``(name, words, figure)`` in the order to read them."""
    known: Mapping[str, str] = getattr(get(task), "FIGURES", {})
    intervals = ((name, item) for name, item in metrics.items() if isinstance(item, Mapping))
    found = {name: item for name, item in intervals if {"value", "low", "high"} <= item.keys()}
    order = [*(name for name in known if name in found), *(name for name in found if name not in known)]
    return [(name, known.get(name, name.replace("_", " ")), found[name]) for name in order]


def headline(task: str, metrics: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The figure by which models of the task are told apart first; None where it was not measured."""
    found: Mapping[str, Any] | None = metrics.get(get(task).HEADLINE)
    return found


def right_share(metrics: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The figure that says on which share of the pictures nothing needs correcting; None where there is none."""
    found: Mapping[str, Any] | None = metrics.get("right", metrics.get("accuracy"))
    return found


def names() -> tuple[str, ...]:
    """The tasks that exist, those of installed packages included.

    Raises:
        PluginError: A package brings a task that is there already.
    """
    own = _own()
    return tuple(sorted((*own, *plugins.names(own=own))))


def get(name: str) -> Task:
    """The module of a task.

    Raises:
        NotFoundError: there is no such task; names those that exist.
        PluginError: it comes from a package that cannot be loaded, or a package brings a task that is there already.
    """
    if name not in names():
        raise NotFoundError.among("task", name, names())
    if name in _own():
        return cast(Task, importlib.import_module(f"{__name__}.{name}"))
    return cast(Task, plugins.module(name, "task"))


@cache
def _own() -> tuple[str, ...]:
    return tuple(item.name for item in pkgutil.iter_modules(__path__) if item.name not in _SHARED)
