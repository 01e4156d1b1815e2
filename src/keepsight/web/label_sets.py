"""How a person ticks any number of labels: what the widgets of such tasks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# So many labels have a key each.
KEYS = "123456789"
TICK = "label:"
NEW = "new_label"


@dataclass(frozen=True)
class Choice:
    """One label to tick; ``key`` is empty where no key ticks it, ``share`` None where the model said nothing of it."""

    label: str
    key: str
    ticked: bool
    share: float | None


def choices(prediction: Mapping[str, Any] | None, classes: Mapping[str, int], *, key: str) -> list[Choice]:
    """All labels; those that the model gives (or an annotation has) are ticked.

    While each has a key they always stand in the same place, whatever the model said. Of more, those that the model
    finds likely come first, or where its answer must not be seen, those that occur most.

    Args:
        prediction: What the model said, or an annotation; None where it must not be seen.
        classes: How many pictures have each label.
        key: Where the labels of an answer stand.
    """
    said = {} if prediction is None else {_label(item): _share(item) for item in prediction.get(key, ())}
    others = [] if prediction is None else prediction.get("alternatives", ())
    shares = {**said, **{_label(item): _share(item) for item in others}}
    labels = list(dict.fromkeys((*classes, *said)))
    if len(labels) > len(KEYS):
        common = sorted(labels, key=lambda label: -classes.get(label, 0))
        likely = [label for label in shares if label in labels]
        first = list(dict.fromkeys((*likely, *common)))[: max(len(KEYS), len(said))]
        labels = first + [label for label in labels if label not in first]
    return [
        Choice(label, KEYS[place] if place < len(KEYS) else "", ticked=label in said, share=shares.get(label))
        for place, label in enumerate(labels)
    ]


def ticked(form: Mapping[str, Any]) -> tuple[list[str], bool]:
    """The labels that a form holds, and whether one of them was typed as a new one."""
    labels = [name.removeprefix(TICK) for name in form if name.startswith(TICK)]
    new = str(form.get(NEW, "")).strip()
    return ([*labels, new], True) if new else (labels, False)


def in_words(labels: Sequence[str]) -> str:
    """Labels as a person says them: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(labels[:-1]), labels[-1]))) if labels else ""


def _label(item: Any) -> str:
    return str(item["label"] if isinstance(item, Mapping) else item)


def _share(item: Any) -> float | None:
    return float(item["confidence"]) if isinstance(item, Mapping) else None
