"""Reading documents: an annotation has lines of text with their places, or named fields, or both.

``{"lines": [{"text": "TOTAL 9.00", "box": [x1, y1, x2, y2]}], "fields": {"total": "9.00"}}``, boxes in pixels of the
upright picture. The classes of a project of this task are the names of its fields. Values of fields are compared as
`keepsight.runtime.outputs.ocr.text.normalised` has them: letters and digits count, and the signs ``.,/-:`` directly
between two digits; case, spaces and other punctuation do not. Texts of lines count as they are, but for runs of blanks.
"""

from __future__ import annotations

import difflib
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from keepsight.errors import AnnotationError, DataError
from keepsight.runtime.outputs.ocr.text import summary
from keepsight.tasks.ocr.metrics import OcrMetrics, evaluate, right, score

__all__ = [
    "FIGURES", "FIXED_PLACES", "HEADLINE", "OcrMetrics", "canonical", "check_trainable", "classes", "evaluate", "fits",
    "parse", "right", "score", "stratum", "summary", "uncertainty", "validate",
]  # fmt: skip

HEADLINE = "score"
FIXED_PLACES = True
FIGURES = {
    "score": "right fields, or characters",
    "fields": "fields exactly right",
    "right": "documents with nothing to correct",
    "cer": "wrong characters",
    "cer_caseless": "wrong characters, but for case",
    "wer": "wrong words",
    "found": "lines found",
}
"""The figures in words, in the order to read them."""
LONGEST_TEXT = 2000
LONGEST_NAME = 60

_EXAMPLE = '{"lines": [{"text": "TOTAL 9.00", "box": [20, 310, 180, 335]}], "fields": {"total": "9.00"}}'


def parse(raw: Any) -> dict[str, Any]:
    """The lines and fields in a mapping, or in a JSON text of one; further keys, as predictions have, are dropped.

    Raises:
        AnnotationError: there is neither, or a text or a box is not what it should be.
    """
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError as error:
            raise _wrong("The annotation is a text that is not JSON.") from error
    if not isinstance(raw, Mapping):
        raise _wrong(f"The annotation is a {type(raw).__name__}.")
    if not any(key in raw for key in ("lines", "fields")):
        raise _wrong("The annotation has neither lines nor fields.")
    value = {key: raw[key] for key in ("lines", "fields") if raw.get(key) is not None}
    return canonical(value)


def canonical(value: Mapping[str, Any]) -> dict[str, Any]:
    """Texts in composed form (NFC) with single blanks, boxes as numbers with one decimal, fields by name.

    A field without a value is left out, as is a line without a text; the order of lines is kept, for it is the order
    of reading.

    Raises:
        AnnotationError: a text, a name or a box is not what it should be, or nothing is left.
    """
    result: dict[str, Any] = {}
    lines, fields = value.get("lines"), value.get("fields")
    if lines is not None:
        if isinstance(lines, (str, Mapping)) or not isinstance(lines, Sequence):
            raise _wrong(f"The lines are a {type(lines).__name__}.")
        given = [_line(line, number=number) for number, line in enumerate(lines, start=1)]
        result["lines"] = [line for line in given if line["text"]]
    if fields is not None:
        if not isinstance(fields, Mapping):
            raise _wrong(f"The fields are a {type(fields).__name__}.")
        named = {_name(name): _text(text, what=f'The field "{name}"') for name, text in fields.items()}
        result["fields"] = {name: named[name] for name in sorted(named) if named[name]}
    if not any(result.values()):
        raise _wrong("The annotation is empty: it has no line with a text and no field with a value.")
    return {key: content for key, content in result.items() if content}


def _line(line: Any, *, number: int) -> dict[str, Any]:
    if not isinstance(line, Mapping) or "text" not in line or "box" not in line:
        raise _wrong(f"Line {number} has no text or no box.")
    box = line["box"]
    numbers = isinstance(box, Sequence) and not isinstance(box, str) and len(box) == 4
    if not numbers or not all(isinstance(side, (int, float)) and math.isfinite(side) for side in box):
        raise _wrong(f"The box of line {number} is {json.dumps(box, default=str)[:60]}.")
    x1, y1, x2, y2 = (round(float(side), 1) for side in box)
    if x2 <= x1 or y2 <= y1:
        raise _wrong(f"The box of line {number} is empty: {[x1, y1, x2, y2]}.")
    return {"text": _text(line["text"], what=f"Line {number}"), "box": [x1, y1, x2, y2]}


def _text(text: Any, *, what: str) -> str:
    if text is None:
        return ""
    if not isinstance(text, (str, int, float)) or isinstance(text, bool):
        raise _wrong(f"{what} is a {type(text).__name__}.")
    plain = " ".join(unicodedata.normalize("NFC", str(text)).split())
    if len(plain) > LONGEST_TEXT or any(unicodedata.category(sign) == "Cc" for sign in plain):
        raise _wrong(f"{what} is longer than {LONGEST_TEXT} characters or has control characters.")
    return plain


def _name(name: Any) -> str:
    plain = " ".join(unicodedata.normalize("NFC", str(name)).split())
    if not plain or len(plain) > LONGEST_NAME:
        raise _wrong(f'A field has the name "{plain[:40]}".')
    return plain


def validate(value: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Makes sure that the annotation is one, and that its fields are among ``labels``.

    Raises:
        AnnotationError: it is not; names the nearest field.
    """
    for name in classes(parse(value)):
        if name in labels:
            continue
        near = difflib.get_close_matches(name, labels, n=1)
        raise AnnotationError(
            f'There is no field "{name}".',
            expected=f"one of: {', '.join(labels[:20])}." if labels else "a known field; there is none yet.",
            do=f'Did you mean "{near[0]}"? Else add the field.' if near else "Correct it, or add the field first.",
            label=name,
            nearest=near[0] if near else None,
        )


def fits(value: Mapping[str, Any], size: tuple[int, int]) -> None:
    """Makes sure that every box lies in a picture of ``size`` (width, height), give or take a pixel.

    Raises:
        AnnotationError: one does not; tells which.
    """
    for number, line in enumerate(value.get("lines") or (), start=1):
        x1, y1, x2, y2 = line["box"]
        if min(x1, y1) < -1 or x2 > size[0] + 1 or y2 > size[1] + 1:
            raise AnnotationError(
                f'The box {line["box"]} of line {number} ("{line["text"][:40]}") lies outside the picture.',
                expected=f"corners within {size[0]} x {size[1]} pixels.",
                do="Correct the box; boxes are pixels of the upright picture, before it is scaled.",
                line=number,
            )


def classes(value: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the fields, sorted."""
    return tuple(sorted(value.get("fields") or ()))


def stratum(value: Mapping[str, Any]) -> str:
    """The set of fields that a document has."""
    return ", ".join(classes(value))


def uncertainty(prediction: Mapping[str, Any]) -> float:
    """The chance that something needs correcting, 0..1."""
    return min(1.0, max(0.0, 1.0 - float(prediction["confidence"])))


def check_trainable(project: str, values: Sequence[Mapping[str, Any]]) -> None:
    """Makes sure that there is something to learn from or to judge by.

    Raises:
        DataError: No annotated documents.
    """
    if not values:
        raise DataError(
            f"{project} has no annotated documents in train or val.",
            expected="documents with lines or fields.",
            do=f"Import some: `keepsight data import {project} DOCUMENTS/`, a JSON file for each picture.",
        )


def _wrong(found: str) -> AnnotationError:
    return AnnotationError(found, expected=f"an annotation as in {_EXAMPLE}.", do="Correct the annotation.")
