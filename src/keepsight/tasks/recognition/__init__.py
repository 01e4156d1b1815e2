"""Recognition: an annotation says who or what is in the picture, ``{"subjects": [{"label": "Anna", "box": [...]}]}``.

Boxes are (x1, y1, x2, y2) in pixels of the original upright picture. A subject without a box is what the whole picture
shows. The label "unknown" means somebody whom nobody knows; no subjects at all mean that nobody is to be seen.
"""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from keepsight.errors import AnnotationError, DataError
from keepsight.tasks.recognition.matching import UNKNOWN, matched
from keepsight.tasks.recognition.metrics import RecognitionMetrics, measure

__all__ = ["FIXED_PLACES", "GALLERY", "HEADLINE", "UNKNOWN", "RecognitionMetrics"]

HEADLINE = "identification"
FIXED_PLACES = True
GALLERY = True
LONGEST_LABEL = 200
MOST_SUBJECTS = 200
NOBODY = "nobody"
Value = dict[str, Any]


def parse(raw: Any) -> Value:
    """The annotation in such a mapping, in ``{"label": "Anna"}`` or in a bare name.

    Raises:
        AnnotationError: It names nobody, or its subjects are not what they should be.
    """
    if isinstance(raw, str):
        raw = {"subjects": [{"label": raw}]}
    if isinstance(raw, Mapping) and "subjects" not in raw and "label" in raw:
        raw = {"subjects": [{"label": raw["label"]}]}
    if (
        not isinstance(raw, Mapping)
        or not isinstance(raw.get("subjects"), Sequence)
        or isinstance(raw["subjects"], str)
    ):
        raise AnnotationError(
            "The annotation is empty." if not raw else f"The annotation is a {type(raw).__name__} without subjects.",
            expected='subjects, as in {"subjects": [{"label": "Anna"}]}.',
            do='Name who or what is in the picture; for somebody whom nobody knows, give the name "unknown".',
        )
    return canonical(raw)


def canonical(value: Mapping[str, Any]) -> Value:
    """Names in Unicode's composed form (NFC) without needless blanks, boxes as numbers, subjects from left to right.

    Raises:
        AnnotationError: A name is empty, overlong or has control characters; a box is none; there are too many.
    """
    subjects = value["subjects"]
    if len(subjects) > MOST_SUBJECTS:
        raise AnnotationError(
            f"The annotation has {len(subjects)} subjects.",
            expected=f"at most {MOST_SUBJECTS}.",
            do="Annotate the ones that matter.",
        )
    taken = [_subject(item) for item in subjects]
    return {"subjects": sorted(taken, key=lambda item: (item.get("box") or [], item["label"]))}


def validate(value: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Makes sure that every subject has a name, and one of ``labels`` or "unknown".

    Raises:
        AnnotationError: One has not; names the nearest.
    """
    for label in classes(parse(value)):
        if label in labels:
            continue
        near = difflib.get_close_matches(label, labels, n=1)
        shown = ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
        raise AnnotationError(
            f'Nobody called "{label}" is known.',
            expected=f'"{UNKNOWN}" or one of: {shown}.' if labels else f'"{UNKNOWN}"; nobody is known yet.',
            do=f'Did you mean "{near[0]}"? Else add the name.' if near else "Correct the name, or add it first.",
            label=label,
            nearest=near[0] if near else None,
        )


def classes(value: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in an annotation, each once, sorted; somebody unknown has none."""
    return tuple(sorted({str(item["label"]) for item in value["subjects"]} - {UNKNOWN}))


def summary(value: Mapping[str, Any]) -> str:
    """Who it is in a few words.

    >>> summary({"subjects": [{"label": "Ben"}, {"label": "unknown"}]})
    'Ben, 1 unknown'
    """
    labels = [str(item["label"]) for item in value["subjects"]]
    strangers = labels.count(UNKNOWN)
    told = sorted(set(labels) - {UNKNOWN})
    if strangers:
        told.append(UNKNOWN if strangers == 1 and not told else f"{strangers} {UNKNOWN}")
    return ", ".join(told) or NOBODY


def stratum(value: Mapping[str, Any]) -> str:
    """What splits are balanced by: the names."""
    return ", ".join(classes(value))


def uncertainty(prediction: Mapping[str, Any]) -> float:
    """How much a prediction needs a person, 0 (not at all) to 1."""
    return min(1.0, max(0.0, 1.0 - float(prediction["confidence"])))


def score(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> float:
    """How right an answer is, 0 to 1: the F1 of subjects that are found and named as they should be."""
    pairs = matched(prediction["subjects"], value["subjects"])
    total = len(prediction["subjects"]) + len(value["subjects"])
    hits = sum(1 for said, true in pairs if said and true and said["label"] == true["label"])
    return 2 * hits / total if total else 1.0


def right(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether nothing needs correcting."""
    return score(prediction, value) == 1.0


def check_trainable(project: str, values: Sequence[Mapping[str, Any]]) -> None:
    """Makes sure that there is somebody to enrol.

    Raises:
        DataError: No picture names anybody.
    """
    if not any(classes(value) for value in values):
        raise DataError(
            f"{project} has no picture of anybody with a name in train or val.",
            expected="at least one.",
            do=f"Enrol somebody (`keepsight enrol {project} NAME PICTURE`), or import a folder with a folder for each.",
        )


def evaluate(
    predictions: Sequence[Mapping[str, Any] | None],
    values: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    groups: ArrayLike | None = None,
    seed: int,
) -> RecognitionMetrics:
    """The figures of answers against the truth.

    Args:
        predictions: The answers with everybody in the gallery among their alternatives; None: the picture could not
            be read, so that nobody in it was found.
        values: The annotations.
        names: Who is in the gallery. A subject with another name is a stranger, who should be "unknown".
        groups: Of pictures that are not independent.
        seed: Of the bootstrap.
    """
    return measure(predictions, values, names=names, groups=groups, seed=seed)


def _subject(item: Any) -> dict[str, Any]:
    label = item.get("label") if isinstance(item, Mapping) else item
    if not isinstance(label, str):
        raise AnnotationError(
            f"A subject has a name of type {type(label).__name__}." if label is not None else "A subject has no name.",
            expected='a name, as in {"label": "Anna"}, or "unknown".',
            do="Name who or what it is.",
        )
    label = " ".join(unicodedata.normalize("NFC", label).split())
    if not label or len(label) > LONGEST_LABEL or any(unicodedata.category(sign) == "Cc" for sign in label):
        raise AnnotationError(
            f'The name "{label[:40]}" is too long or has control characters.' if label else "A name is empty.",
            expected=f"a name of 1 to {LONGEST_LABEL} printable characters.",
            do="Name who or what it is.",
        )
    taken: dict[str, Any] = {"label": UNKNOWN if label.lower() == UNKNOWN else label}
    box = item.get("box") if isinstance(item, Mapping) else None
    if box is not None:
        taken["box"] = _box(box)
    return taken


def _box(box: Any) -> list[float]:
    try:
        x1, y1, x2, y2 = (float(side) for side in box)
        good = all(math.isfinite(side) for side in (x1, y1, x2, y2)) and 0 <= x1 < x2 and 0 <= y1 < y2
    except (TypeError, ValueError):
        good = False
    if not good:
        raise AnnotationError(
            f"A box is {str(box)[:60]}.",
            expected="[x1, y1, x2, y2] in pixels, x1 below x2 and y1 below y2.",
            do="Draw the box around the face again, or leave it out.",
        )
    return [round(x1, 1), round(y1, 1), round(x2, 1), round(y2, 1)]
