"""Who is in the picture: each face, or what the whole picture shows, with the name that it has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepsight import tasks
from keepsight.errors import AnnotationError

KEYS = "123456789"
UNKNOWN = "unknown"
# How sure the model is, in words, from these probabilities on.
SURE = ((0.95, "is sure"), (0.8, "is quite sure"), (0.5, "is not sure"), (0.0, "is guessing"))


@dataclass(frozen=True)
class Place:
    """A box over the picture, in its pixels; ``number`` counts the subjects from 1."""

    number: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Editor:
    """What the template shows.

    Attributes:
        width, height: Of the picture in pixels.
        sure, share: How sure the model is, in words and as a share; empty and None where it said nothing.
        short: Its answer in a few words.
        blind: Whether nothing is known about who is there, so that names are added.
        single: Whether one click on a name answers.
        value: The subjects as JSON, as they stand when the page is shown.
        nearest: For each subject the names that come first, as JSON.
        places: The boxes.
        names: All names, by the alphabet.
    """

    width: int
    height: int
    sure: str
    share: float | None
    short: str
    blind: bool
    single: bool
    value: str
    nearest: str
    places: list[Place]
    names: list[str]


def words(value: Mapping[str, Any]) -> str:
    """The names."""
    return tasks.get("recognition").summary(value)


def editor(prediction: Mapping[str, Any] | None, classes: Mapping[str, int], *, size: tuple[int, int]) -> Editor:
    """Who the model saw, or, where its answer must not be seen, all names and nobody chosen."""
    said = [] if prediction is None else list(prediction["subjects"])
    subjects = [{name: item[name] for name in ("label", "box") if name in item} for item in said]
    share = None if prediction is None or "confidence" not in prediction else float(prediction["confidence"])
    nearest = [[other["label"] for other in item.get("alternatives", ()) if other["label"] in classes] for item in said]
    return Editor(
        width=size[0],
        height=size[1],
        sure="" if share is None else next(text for least, text in SURE if share >= least),
        share=share,
        short=words({"subjects": subjects}),
        blind=prediction is None,
        single=len(subjects) == 1,
        value=json.dumps({"subjects": subjects}),
        nearest=json.dumps([names[: len(KEYS)] for names in nearest]),
        places=[_place(number, item["box"]) for number, item in enumerate(said, 1) if item.get("box")],
        names=list(classes),
    )


def read(form: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The subjects as they were shown, or the one name that was clicked.

    Raises:
        AnnotationError: The form holds neither.
    """
    label = str(form.get("label", "")).strip()
    new = bool(form.get("new"))
    text = str(form.get("value", ""))
    try:
        value = json.loads(text) if text else None
    except ValueError:
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("subjects"), list):
        if not label:
            raise AnnotationError(
                "The form names nobody.", expected="a name.", do="Choose who it is, or say that nobody knows them."
            )
        return {"label": label}, new
    if label and len(value["subjects"]) <= 1:
        # Without a script, a click on a name says who the one subject is.
        first = value["subjects"][0] if value["subjects"] else {}
        return {"subjects": [{**first, "label": label}]}, new
    return value, new


def _place(number: int, box: list[float]) -> Place:
    x1, y1, x2, y2 = (float(side) for side in box)
    return Place(number, x1, y1, x2 - x1, y2 - y1)
