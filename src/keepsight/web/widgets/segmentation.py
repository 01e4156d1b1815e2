"""A segmentation: the mask of the foreground, painted and erased on the picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepsight.errors import AnnotationError
from keepsight.runtime.outputs.segmentation import GOOD
from keepsight.tasks import segmentation

# How sure the model is of a good mask, in words, from these chances on.
SURE = ((0.95, "is sure of its mask"), (0.8, "is quite sure of its mask"), (0.0, "is not sure of its mask"))


@dataclass(frozen=True)
class Said:
    """What the model said, in words; ``share`` is the chance that nothing needs correcting."""

    words: str
    share: float
    sure: str


@dataclass(frozen=True)
class Editor:
    """What the template shows.

    Attributes:
        width, height: Of the picture in pixels, which the mask has, too.
        value: The mask to begin with as JSON, the hidden input's text; empty for none.
        said: What the model said; None where that must not be seen, or a label is corrected.
    """

    width: int
    height: int
    value: str
    said: Said | None


def words(value: Mapping[str, Any]) -> str:
    """How much of the picture is foreground."""
    return f"{segmentation.summary(value)} of the picture"


def editor(
    prediction: Mapping[str, Any] | None,
    classes: Mapping[str, int],  # noqa: ARG001 - a mask names no class
    *,
    size: tuple[int, int],
) -> Editor:
    """The mask on the picture, and what the model said of it.

    A mask of another size than the picture's cannot be laid over it and is left out.
    """
    width, height = size
    value, said = "", None
    if prediction is not None and prediction["mask"]["size"] == [height, width]:
        value = json.dumps({"mask": prediction["mask"]})
        if "confidence" in prediction:
            chance = float(prediction["confidence"])
            sure = next(text for least, text in SURE if chance >= least)
            said = Said(words(prediction), chance, sure)
    return Editor(width, height, value, said)


def read(form: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The mask that was on the picture when it was saved.

    Raises:
        AnnotationError: The form holds none.
    """
    try:
        value = json.loads(form.get("value", ""))
    except (TypeError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise AnnotationError(
            "Nothing is painted on the picture.",
            expected="a mask: what is to be kept.",
            do="Paint what is to be kept, then save; or skip the picture.",
        )
    return value, False


__all__ = ["GOOD", "Editor", "Said", "editor", "read", "words"]
