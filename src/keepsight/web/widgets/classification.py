"""A classification: one class for the whole picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# So many classes have a key each; with more of them, the keys belong to a short list and a box finds the others.
KEYS = "1234567890"
SHORT = 9
# How sure the model is, in words, from these probabilities on.
SURE = ((0.95, "is sure"), (0.8, "is quite sure"), (0.5, "is not sure"), (0.0, "is guessing"))


@dataclass(frozen=True)
class Choice:
    """One class to choose; ``key`` is empty where no key chooses it."""

    label: str
    key: str
    suggested: bool


@dataclass(frozen=True)
class Said:
    """What the model said, in words."""

    label: str
    share: float
    sure: str


@dataclass(frozen=True)
class Editor:
    """What the template shows: ``said`` is None where the model's answer must not be seen."""

    said: Said | None
    choices: list[Choice]
    many: bool


def words(value: Mapping[str, Any]) -> str:
    """The class's name."""
    return str(value["label"])


def editor(
    prediction: Mapping[str, Any] | None,
    classes: Mapping[str, int],
    *,
    size: tuple[int, int],  # noqa: ARG001 - a class has no place
) -> Editor:
    """The classes in an order that hands can learn.

    Up to ten classes always stand in the same place, whatever the model said. With more, a short list comes first: the
    model's own alternatives, or where these must not be seen, the classes that occur most.
    """
    labels = list(classes)
    if prediction is not None and "confidence" not in prediction:
        prediction = None  # an annotation that is corrected: nothing was said of it
    said = None if prediction is None else _said(prediction)
    if len(labels) <= len(KEYS):
        digits = all(label in list(KEYS) for label in labels)
        keys = {label: label if digits else KEYS[place] for place, label in enumerate(labels)}
        return Editor(said, [Choice(label, keys[label], suggested=False) for label in labels], many=False)
    short = _short_list(prediction, classes)
    first = [Choice(label, KEYS[place], suggested=True) for place, label in enumerate(short)]
    rest = [Choice(label, "", suggested=False) for label in labels if label not in short]
    return Editor(said, first + rest, many=True)


def read(form: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The class that was clicked, or the new one that was typed."""
    new = str(form.get("new_label", "")).strip()
    label = str(form.get("label", "")).strip()
    return ({"label": label}, False) if label else ({"label": new}, True)


def _said(prediction: Mapping[str, Any]) -> Said:
    share = float(prediction["confidence"])
    sure = next(text for least, text in SURE if share >= least)
    return Said(str(prediction["label"]), share, sure)


def _short_list(prediction: Mapping[str, Any] | None, classes: Mapping[str, int]) -> list[str]:
    common = sorted(classes, key=lambda label: -classes[label])
    given = [] if prediction is None else [str(item["label"]) for item in prediction.get("alternatives", [])]
    # The model's first answer has a button of its own above.
    said = None if prediction is None else str(prediction["label"])
    order = dict.fromkeys([label for label in (*given, *common) if label in classes and label != said])
    return list(order)[:SHORT]
