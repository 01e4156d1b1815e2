"""Moderation: a picture is approved, or blocked for the reasons that are ticked; it is blurred until somebody looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepsight.errors import AnnotationError
from keepsight.tasks import moderation
from keepsight.web import label_sets
from keepsight.web.label_sets import Choice

VEILED = True
KEY = "flags"
BLOCK = "block"


@dataclass(frozen=True)
class Said:
    """What the model would do, for which reasons, and how sure it is that this needs no correction."""

    block: bool
    reasons: str
    share: float


@dataclass(frozen=True)
class Editor:
    """What the template shows: ``said`` is None where the model's answer must not be seen."""

    said: Said | None
    choices: list[Choice]


def words(value: Mapping[str, Any]) -> str:
    """The flags, or "allowed"."""
    return moderation.summary(value)


def editor(
    prediction: Mapping[str, Any] | None,
    classes: Mapping[str, int],
    *,
    size: tuple[int, int],  # noqa: ARG001 - the answer is about the whole picture
) -> Editor:
    """The flags as reasons to tick."""
    said = None
    if prediction is not None and "confidence" in prediction:
        flags = moderation.classes(prediction)
        said = Said(bool(flags), label_sets.in_words(flags), float(prediction["confidence"]))
    return Editor(said, label_sets.choices(prediction, classes, key=KEY))


def read(form: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """No flags where the picture was approved, else the ticked ones and the new one that was typed.

    Raises:
        AnnotationError: It was blocked for no reason.
    """
    if form.get("decision") != BLOCK:
        return {KEY: []}, False
    flags, new = label_sets.ticked(form)
    if not flags:
        raise AnnotationError(
            "The picture is to be blocked, but no reason is ticked.",
            expected="at least one reason.",
            do="Tick what is wrong with the picture, or type a new reason; or approve it.",
        )
    return {KEY: flags}, new
