"""What ``train`` tells at its end."""

from __future__ import annotations

from typing import Any

import pytest

from keepsight.cli.follow import told_run
from keepsight.loop.runs import RunRow


def ended(**record: Any) -> RunRow:
    return RunRow(
        id="r1", seq=1, project="shop", trigger="hand", reason="", actor="ana", trace_id="t", status="done", step=None,
        progress=None, outcome="deployed", params={}, created_at=0.0, started_at=0.0, finished_at=9.0,
        dataset_version=1, record={"duration_s": 9.0, "metrics": {}, **record}, gate=None, model_number=1, error=None,
    )  # fmt: skip


@pytest.mark.parametrize(("by_itself", "told"), [(False, True), (True, False), (None, False)])
def test_a_model_that_asks_about_every_picture_is_told_so(by_itself: bool | None, told: bool) -> None:
    text = told_run(ended() if by_itself is None else ended(answers_by_itself=by_itself))
    assert "Released" in text
    assert ("Every picture goes to review" in text) is told


def test_what_failed_after_the_release_is_told_beside_it() -> None:
    warning = {
        "code": "storage_error",
        "found": "The disk is full.",
        "expected": "room.",
        "do": "Free some.",
        "step": "robustness",
    }
    text = told_run(ended(warnings=[warning]))
    assert "Released: it is the live model now." in text
    assert "Warning (robustness): The disk is full. What to do: Free some." in text
