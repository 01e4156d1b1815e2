"""A document: its lines on the picture, and its fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepsight.errors import AnnotationError
from keepsight.tasks import ocr as task
from keepsight.web.widgets.classification import SURE

KEYS = "123456789"
# A field whose chance of being right is lower is marked.
_UNSURE = 0.8


@dataclass(frozen=True)
class Said:
    """How sure the model is, in words."""

    share: float
    sure: str


@dataclass(frozen=True)
class Field:
    """One field: ``key`` jumps to it, and is empty where no key does; ``unsure`` marks a doubtful value."""

    name: str
    text: str
    key: str
    unsure: bool


@dataclass(frozen=True)
class Editor:
    """What the template shows.

    Attributes:
        said: None where the model's answer must not be seen, or a label is corrected.
        fields: All fields of the project.
        lines: ``{"text", "box"}`` of each line, as JSON.
        value: What is saved where nothing is changed, as JSON.
        width, height: Of the picture.
        checked: Whether the lines are saved, too: those of a prediction only once somebody has looked at them.
    """

    said: Said | None
    fields: list[Field]
    lines: str
    value: str
    width: int
    height: int
    checked: bool


def words(value: Mapping[str, Any]) -> str:
    """Its fields, or how its lines begin."""
    return task.summary(value)


def editor(prediction: Mapping[str, Any] | None, classes: Mapping[str, int], *, size: tuple[int, int]) -> Editor:
    """The lines and fields as they stand now; a blind check begins with empty fields and without lines."""
    given = prediction or {}
    lines = [{"text": line["text"], "box": line["box"]} for line in given.get("lines") or ()]
    values: Mapping[str, str] = given.get("fields") or {}
    found = given.get("found") or {}
    said = None
    if "confidence" in given:
        share = float(given["confidence"])
        said = Said(share, next(text for least, text in SURE if share >= least))
    names = sorted({*classes, *values})
    checked = bool(lines) and (not names or said is None)
    value: dict[str, Any] = {"fields": dict(values)} if values else {}
    if checked:
        value["lines"] = lines
    return Editor(
        said=said,
        fields=[
            Field(
                name,
                values.get(name, ""),
                KEYS[place] if place < len(KEYS) else "",
                unsure=said is not None and found.get(name, {}).get("confidence", 0.0) < _UNSURE,
            )
            for place, name in enumerate(names)
        ],
        lines=json.dumps(lines, ensure_ascii=False),
        value=json.dumps(value, ensure_ascii=False),
        width=size[0],
        height=size[1],
        checked=checked,
    )


def read(form: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The lines and fields as they were seen, and whether a field is meant as a new one.

    Raises:
        AnnotationError: The form holds none.
    """
    try:
        raw = json.loads(str(form.get("value", "")))
    except ValueError as error:
        raise AnnotationError(
            "The answer has no text.", expected="fields or lines of the document.", do="Fill in a field, or skip it."
        ) from error
    return task.parse(raw), str(form.get("new_fields", "")) == "yes"
