"""Boxes: each thing in the picture has a rectangle with its class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepsight.runtime.outputs.detection import summary

# So many classes have a key each.
KEYS = "1234567890"
# Colours that the style sheet has for classes; further classes begin again.
COLOURS = 10
# Possibilities below this chance are not even offered.
_LEAST = 0.1
# How sure the model is, in words, from these probabilities on.
_SURE = ((0.95, "is sure of all of it"), (0.7, "is quite sure"), (0.0, "is not sure of everything"))


@dataclass(frozen=True)
class Choice:
    """One class to give a box; ``key`` is empty where no key gives it."""

    label: str
    key: str
    colour: int


@dataclass(frozen=True)
class Said:
    """What the model said, in words."""

    label: str
    share: float
    sure: str


@dataclass(frozen=True)
class Editor:
    """What the template shows.

    Attributes:
        said: None where the model's answer must not be seen, or nobody said anything.
        boxes: Corners and classes as they are now.
        choices: The classes.
        width, height: Of the picture in pixels.
        state: Boxes, doubtful boxes and classes as JSON, for the script.
        value: What is saved as long as nothing is changed, as JSON.
    """

    said: Said | None
    boxes: list[dict[str, Any]]
    choices: list[Choice]
    width: int
    height: int
    state: str
    value: str


def words(value: Mapping[str, Any]) -> str:
    """How many of which class."""
    return summary(item["label"] for item in value["boxes"])


def editor(prediction: Mapping[str, Any] | None, classes: Mapping[str, int], *, size: tuple[int, int]) -> Editor:
    """The model's boxes, or those of an annotation, to be corrected; none at all where they must not be seen."""
    given = prediction or {"boxes": [], "alternatives": []}
    choices = [
        Choice(label, KEYS[place] if place < len(KEYS) else "", place % COLOURS) for place, label in enumerate(classes)
    ]
    boxes = [{"label": item["label"], "box": item["box"]} for item in given["boxes"]]
    maybe = [
        {"label": item["label"], "box": item["box"]}
        for item in given.get("alternatives") or ()
        if item["confidence"] >= _LEAST
    ]
    state = {"boxes": boxes, "maybe": maybe, "classes": [choice.label for choice in choices]}
    return Editor(
        said=_said(given) if "confidence" in given else None,
        boxes=boxes,
        choices=choices,
        width=size[0],
        height=size[1],
        state=json.dumps(state),
        value=json.dumps({"boxes": boxes}),
    )


def read(form: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The boxes as they were seen when they were saved, and whether a class was added for them."""
    text = str(form.get("value", ""))
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        value = {}
    return value if isinstance(value, dict) else {}, form.get("new_class") == "yes"


def _said(prediction: Mapping[str, Any]) -> Said:
    share = float(prediction["confidence"])
    sure = next(text for least, text in _SURE if share >= least)
    return Said(str(prediction["label"]), share, sure)
