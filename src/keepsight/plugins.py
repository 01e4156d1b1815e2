"""All extension points of Keepsight: what a package from outside can bring, and how it is found.

There is one so far: a kind of vision job. An installed distribution names it in its metadata::

    [project.entry-points."keepsight.tasks"]
    counting = "keepsight_counting"

The value is a package whose modules are the ones that a task of ours has, one for each floor that knows it:

=============  ========================================================================================================
module         what it offers
=============  ========================================================================================================
``outputs``    Output type and decoding of the network's tensors: ``keepsight.runtime.outputs.OutputModule``. It runs in
               containers and on cameras, so it imports numpy, onnxruntime, simplejpeg and Pillow only.
``task``       Annotations and figures: ``keepsight.tasks.Task``. No web framework, no torch.
``recipes``    ``RECIPES``, functions of ``keepsight.training.recipes.Material`` that give ``Trained``, by name.
``widget``     How a person sees and corrects an answer: ``keepsight.web.widgets.Widget``, with ``widget.html`` beside
               it and, where it needs one, ``widget.js``.
=============  ========================================================================================================

A module is imported when its floor first asks for it, so the package's ``__init__`` imports none of them. Names of our
own tasks are taken; of two distributions that bring one name neither is used. ``docs/extending.md`` builds a small one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

from keepsight.errors import NotFoundError, PluginError

GROUP = "keepsight.tasks"
PARTS = ("outputs", "task", "recipes", "widget")

# A task's name stands in addresses, file names and templates.
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def names(*, own: Iterable[str]) -> tuple[str, ...]:
    """The tasks that installed packages bring, sorted.

    Args:
        own: The names that the caller's own package has.

    Raises:
        PluginError: A name is brought twice, is one of ``own``, or cannot be the name of a task.
    """
    found = _found()
    taken = set(own)
    for name, points in found.items():
        if len(points) > 1 or name in taken:
            bringers = [_bringer(point) for point in points]
            raise PluginError(
                f'The task "{name}" is brought by {" and ".join(["Keepsight itself"] * (name in taken) + bringers)}.',
                expected="one bringer of every task.",
                do=f"Uninstall {bringers[-1].partition(' ')[0]}, or rename its entry point in the group {GROUP}.",
                name=name,
                distributions=bringers,
            )
        if not _NAME.fullmatch(name):
            raise PluginError(
                f'{_bringer(points[0])} brings a task called "{name}".',
                expected="a name of small letters, digits and underscores that starts with a letter.",
                do=f"Rename its entry point in the group {GROUP}.",
                name=name,
            )
    return tuple(found)


def module(task: str, part: str) -> ModuleType:
    """One module of a task from outside; ``part`` is one of ``PARTS``.

    Raises:
        NotFoundError: No installed package brings the task, or its package lacks this part.
        PluginError: The module cannot be imported.
    """
    point = _point(task)
    name = f"{point.value}.{part}"
    try:
        there = importlib.util.find_spec(name) is not None
    except ImportError as error:
        raise _broken(point, error) from error
    if not there:
        raise NotFoundError(
            f'The task "{task}" has no {part}: {_bringer(point)} has no module {name}.',
            expected=f"the modules {', '.join(PARTS)} in {point.value}.",
            do="Ask its author, or do without: see docs/extending.md.",
            task=task,
            part=part,
        )
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _broken(point, error) from error


def folder(task: str) -> Path:
    """The folder of the package that brings a task; its templates and scripts stand there.

    Raises:
        NotFoundError: No installed package brings the task.
        PluginError: The package cannot be found.
    """
    point = _point(task)
    try:
        spec = importlib.util.find_spec(point.value)
    except ImportError as error:
        raise _broken(point, error) from error
    if spec is None or not spec.submodule_search_locations:
        raise _broken(point, ImportError(f"there is no package {point.value}"))
    return Path(next(iter(spec.submodule_search_locations)))


def look_again() -> None:
    """Forgets what was found, for a process in which packages come or go."""
    _found.cache_clear()


@cache
def _found() -> dict[str, tuple[EntryPoint, ...]]:
    """The entry points by name, sorted. Reading all distributions' metadata takes milliseconds, so once a process."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    points = importlib.metadata.entry_points(group=GROUP)
    # One distribution may be seen twice, in a path that is listed twice.
    for point in sorted(points, key=lambda point: (point.name, _bringer(point))):
        before = found.get(point.name, ())
        if all((_bringer(point), point.value) != (_bringer(other), other.value) for other in before):
            found[point.name] = (*before, point)
    return found


def _point(task: str) -> EntryPoint:
    points = _found().get(task)
    if points is None:
        raise NotFoundError.among("task from outside", task, _found())
    return points[0]


def _bringer(point: EntryPoint) -> str:
    """The distribution of an entry point, with its version."""
    distribution = point.dist
    return point.value if distribution is None else f"{distribution.name} {distribution.version}"


def _broken(point: EntryPoint, error: ImportError) -> PluginError:
    return PluginError(
        f'The task "{point.name}" of {_bringer(point)} cannot be loaded: {error}.',
        expected=f"a package {point.value} that can be imported here.",
        do="Install what it asks for, or uninstall it.",
        name=point.name,
    )
