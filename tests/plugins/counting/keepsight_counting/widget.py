"""A number to type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Editor:
    """The number that stands in the box, and whether the model put it there."""

    count: int | None
    said: bool


def words(value: Mapping[str, Any]) -> str:
    """The count."""
    return str(value["count"])


def editor(prediction: Mapping[str, Any] | None, classes: Mapping[str, int], *, size: tuple[int, int]) -> Editor:
    """The box with the model's count, or an empty one where that must not be seen."""
    return Editor(None if prediction is None else int(prediction["count"]), said=prediction is not None)


def read(form: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The number that was typed."""
    return {"count": form.get("count", "")}, False
