"""What networks' tensors mean: one module for each task, found by the task's name.

A module ``keepsight.runtime.outputs.<task>`` has the members of `OutputModule`. Nothing else in the runtime knows which
tasks exist; further ones come from installed packages (see `keepsight.plugins`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from keepsight import plugins
from keepsight.errors import NotFoundError
from keepsight.runtime.manifest import BundleInfo


class Output(Protocol):
    """A model's answer to one picture."""

    @property
    def label(self) -> str:
        """The answer in short, as lists and slices show it."""

    @property
    def confidence(self) -> float:
        """Calibrated probability that the answer is right, 0 to 1; decides between "auto" and "review"."""

    def as_dict(self) -> dict[str, Any]:
        """The whole answer as JSON takes it."""


class OutputModule(Protocol):
    """What a module of this package offers; a task of several networks has an ``open_engine`` besides.

    See `keepsight.runtime.engine`.
    """

    TENSORS: tuple[str, ...]
    """Names of the network's outputs that `decode` needs (besides ``features``, which every network has)."""

    def summaries(self, info: BundleInfo) -> tuple[str, ...]:
        """All that `Output.label` can be, in a fixed order; empty where that is free text or too much to list."""

    def decode(
        self,
        tensors: Mapping[str, NDArray[np.float32]],
        *,
        info: BundleInfo,
        top_k: int,
        sizes: Sequence[tuple[int, int]],
    ) -> Sequence[Output]:
        """One answer for each of the n pictures in `tensors` (first axis), with up to `top_k` possibilities each.

        Args:
            tensors: By the names of `TENSORS`.
            info: The bundle's manifest.
            top_k: How many possibilities an answer lists; what is beyond those that it is given with stands under
                "alternatives".
            sizes: Width and height of each upright picture; places are answered in these pixels.

        Raises:
            BundleError: The tensors do not fit what the bundle says.
        """


def tasks() -> tuple[str, ...]:
    """The tasks that can be run, by name, those of installed packages included.

    Raises:
        PluginError: A package brings a task that is there already.
    """
    own = _own()
    return tuple(sorted((*own, *plugins.names(own=own))))


def output_module(task: str) -> OutputModule:
    """The output module of a task.

    Raises:
        NotFoundError: There is no such task; names those that exist.
        PluginError: It comes from a package that cannot be loaded, or a package brings a task that is there already.
    """
    if task not in tasks():
        raise NotFoundError.among("task", task, tasks())
    if task in _own():
        return cast(OutputModule, importlib.import_module(f"{__name__}.{task}"))
    return cast(OutputModule, plugins.module(task, "outputs"))


@cache
def _own() -> tuple[str, ...]:
    return tuple(item.name for item in pkgutil.iter_modules(__path__) if not item.name.startswith("_"))
