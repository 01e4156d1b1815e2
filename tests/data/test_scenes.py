"""Equal answers in a row are one segment."""

from __future__ import annotations

from typing import Any

import pytest

from keepsight.data import scenes


def row(second: float, label: str, confidence: float, decision: str = "auto") -> dict[str, Any]:
    return {"second": second, "label": label, "confidence": confidence, "decision": decision}


def test_segments_of_equal_answers() -> None:
    answers = [
        row(0, "shut", 0.9),
        row(1, "shut", 0.7, "review"),
        row(2, "open", 0.8),
        {"second": 3, "error": {}},
        row(4, "open", 0.6),
        row(5, "open", 0.95),
    ]
    first, second, third = scenes.segments(answers, seconds=5.4)
    assert first == {
        "label": "shut",
        "start": 0,
        "end": 2,
        "frames": 2,
        "confidence": pytest.approx(0.8),
        "surest": {"second": 0, "confidence": 0.9},
        "worst": {"second": 1, "confidence": 0.7},
        "decision": "review",
    }
    assert (second["start"], second["end"], second["decision"]) == (2, 3, "auto")
    assert (third["start"], third["end"], third["frames"], third["surest"]["second"]) == (4, 5.4, 2, 5)


def test_no_answers_make_no_segments() -> None:
    assert scenes.segments([], seconds=0) == []
    assert scenes.segments([{"second": 0, "error": {}}], seconds=3) == []
