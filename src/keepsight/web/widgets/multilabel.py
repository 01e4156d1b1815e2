"""Multi-label classification: the labels that fit are ticked and saved together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepsight.tasks import multilabel
from keepsight.web import label_sets
from keepsight.web.label_sets import Choice

KEY = "labels"


@dataclass(frozen=True)
class Said:
    """What the model said, and how sure it is that this needs no correction."""

    labels: str
    share: float


@dataclass(frozen=True)
class Editor:
    """What the template shows: ``said`` is None where the model's answer must not be seen."""

    said: Said | None
    choices: list[Choice]
    many: bool


def words(value: Mapping[str, Any]) -> str:
    """The labels."""
    return multilabel.summary(value)


def editor(
    prediction: Mapping[str, Any] | None,
    classes: Mapping[str, int],
    *,
    size: tuple[int, int],  # noqa: ARG001 - the answer is about the whole picture
) -> Editor:
    """The labels to tick; a box finds them where they are many."""
    said = None
    if prediction is not None and "confidence" in prediction:
        named = label_sets.in_words(multilabel.classes(prediction)) or "none of the labels"
        said = Said(named, float(prediction["confidence"]))
    found = label_sets.choices(prediction, classes, key=KEY)
    return Editor(said, found, many=len(found) > len(label_sets.KEYS))


def read(form: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The ticked labels and the new one that was typed."""
    labels, new = label_sets.ticked(form)
    return {KEY: labels}, new
