"""What a document says: lines, and the values of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepsight.runtime.outputs.ocr.fields import FieldValue
from keepsight.runtime.outputs.ocr.text import summary


@dataclass(frozen=True)
class Line:
    """One line of text.

    Attributes:
        text: What it says.
        box: (x1, y1, x2, y2) in pixels of the upright picture.
        confidence: Mean probability of its signs.
        weakest: Probability of the least sure sign.
    """

    text: str
    box: tuple[float, float, float, float]
    confidence: float
    weakest: float

    def as_dict(self) -> dict[str, Any]:
        """``{"text", "box", "confidence"}``."""
        return {
            "text": self.text,
            "box": [round(float(side), 1) for side in self.box],
            "confidence": round(self.confidence, 4),
        }


@dataclass(frozen=True)
class OcrOutput:
    """The answer to one picture.

    Attributes:
        lines: In reading order.
        fields: What was found, by name; empty where no fields were learned.
        confidence: Calibrated chance that all fields are right; where there are none, that all lines are.
        top_k: How many values of a field are listed.
    """

    lines: tuple[Line, ...]
    fields: Mapping[str, FieldValue]
    confidence: float
    top_k: int

    @property
    def label(self) -> str:
        """The fields or the first line in short."""
        return summary(self._content())

    def as_dict(self) -> dict[str, Any]:
        """``{"label", "confidence", "lines": [...], "fields": {name: text}, "found": {name: {...}}, ...}``.

        ``found`` has confidence and line of each field, ``alternatives`` the next probable values of the fields.
        """
        return {
            "label": self.label,
            "confidence": self.confidence,
            **self._content(),
            "found": {
                name: {"confidence": round(value.confidence, 4), "line": value.line}
                for name, value in self.fields.items()
            },
            "alternatives": [
                {"field": name, "text": text, "confidence": round(share, 4)}
                for name, value in self.fields.items()
                for text, share in value.alternatives[: max(0, self.top_k - 1)]
            ],
        }

    def _content(self) -> dict[str, Any]:
        return {
            "lines": [line.as_dict() for line in self.lines],
            "fields": {name: value.text for name, value in self.fields.items()},
        }
