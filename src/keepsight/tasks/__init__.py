"""What kinds of vision jobs exist: one module for each task, found by the task's name.

A module ``keepsight.tasks.<task>`` has the members of :class:`Task`. Nothing else knows which tasks exist.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.errors import NotFoundError

Value = dict[str, Any]
"""An annotation as it is stored: a JSON-able dict whose keys belong to the task."""

# Modules of this package that serve all tasks.
_SHARED = frozenset({"intervals", "reliability"})


class Metrics(Protocol):
    """Figures of a model on labelled pictures, each with its uncertainty."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; figures are ``{"value", "low", "high", "n"}`` at the top level."""


class Task(Protocol):
    """What a module of this package offers."""

    HEADLINE: str
    """The figure of :class:`Metrics` by which two models of the task are told apart first."""

    def parse(self, raw: Any) -> Value:
        """The annotation meant by something from outside (a table's cell, a form, a request).

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

    def uncertainty(self, prediction: Mapping[str, Any]) -> float:
        """How much a prediction (its output's ``as_dict``) needs a person, 0 (not at all) to 1."""

    def evaluate(
        self,
        probabilities: NDArray[np.floating],
        labels: NDArray[np.integer],
        *,
        names: Sequence[str],
        groups: ArrayLike | None = None,
        seed: int,
    ) -> Metrics:
        """The figures of predictions against the truth."""


def names() -> tuple[str, ...]:
    """The tasks that exist."""
    return tuple(sorted(item.name for item in pkgutil.iter_modules(__path__) if item.name not in _SHARED))


def get(name: str) -> Task:
    """The module of a task.

    Raises:
        NotFoundError: there is no such task; names those that exist.
    """
    if name not in names():
        raise NotFoundError.among("task", name, names())
    return cast(Task, importlib.import_module(f"{__name__}.{name}"))
