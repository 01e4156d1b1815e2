"""How a person sees and corrects one kind of vision job: one widget for each task, found by the task's name.

A widget is a module here with the functions of ``Widget``, a template of the same name with the macros
``over(editor)`` (laid over the picture), ``said(editor)``, ``choose(editor)`` and ``add()``, and a script of the same
name where it needs one. A structured answer travels in a hidden input ``value`` as JSON. Tasks of installed packages
bring theirs as ``widget.py``, ``widget.html`` and ``widget.js`` (see ``keepsight.plugins``).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

from keepsight import plugins
from keepsight.errors import KeepsightError, NotFoundError

HERE = Path(__file__).resolve().parent


class Widget(Protocol):
    """What a widget's module offers."""

    def words(self, value: Mapping[str, Any]) -> str:
        """A prediction or an annotation in a few words."""

    def editor(self, prediction: Mapping[str, Any] | None, classes: Mapping[str, int], *, size: tuple[int, int]) -> Any:
        """What the template shows.

        Args:
            prediction: What the model said, or, where a label is corrected, the annotation as it is (which has no
                "confidence"); None where nothing is to be seen.
            classes: How many labels each class has, by name.
            size: Width and height of the picture in pixels, upright; places of annotations are in these.
        """

    def read(self, form: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """The raw annotation that a form holds, and whether its class is meant as a new one."""


def names() -> list[str]:
    """The tasks that have a widget, those of installed packages included.

    Raises:
        PluginError: A package brings a task that is there already.
    """
    own = _own()
    return sorted((*own, *plugins.names(own=own)))


def get(task: str) -> Widget:
    """The widget of a task.

    Raises:
        NotFoundError: There is none.
        PluginError: It comes from a package that cannot be loaded, or a package brings a task that is there already.
    """
    if task not in names():
        raise NotFoundError.among("widget for the task", task, names())
    if task in _own():
        return cast(Widget, importlib.import_module(f"{__name__}.{task}"))
    return cast(Widget, plugins.module(task, "widget"))


def script(task: str) -> str | None:
    """The widget's script, as ``static`` takes it, or None where it needs none."""
    return f"widgets/{task}.js" if file(task, "js") is not None else None


def veiled(task: str) -> bool:
    """Whether pictures stay blurred until somebody asks to see them: where the widget has a true ``VEILED``."""
    try:
        return bool(getattr(get(task), "VEILED", False))
    except KeepsightError:
        # Whatever is wrong with a widget is told where it is used.
        return False


def file(task: str, kind: str) -> Path | None:
    """The widget's template (``html``) or script (``js``); None where there is no such task or file."""
    if task not in names():
        return None
    path = HERE / f"{task}.{kind}" if task in _own() else plugins.folder(task) / f"widget.{kind}"
    return path if path.is_file() else None


@cache
def _own() -> tuple[str, ...]:
    return tuple(path.stem for path in HERE.glob("*.html"))
