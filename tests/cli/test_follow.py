"""What ``train`` tells at its end."""

from __future__ import annotations

import pytest

from keepsight.cli.follow import told_run
from keepsight.loop.runs import RunRow


@pytest.mark.parametrize(("by_itself", "told"), [(False, True), (True, False), (None, False)])
def test_a_model_that_asks_about_every_picture_is_told_so(by_itself: bool | None, told: bool) -> None:
    record = {"duration_s": 9.0, "metrics": {}} | ({} if by_itself is None else {"answers_by_itself": by_itself})
    row = RunRow(
        id="r1", seq=1, project="shop", trigger="hand", reason="", actor="ana", trace_id="t", status="done", step=None,
        progress=None, outcome="deployed", params={}, created_at=0.0, started_at=0.0, finished_at=9.0,
        dataset_version=1, record=record, gate=None, model_number=1, error=None,
    )  # fmt: skip
    text = told_run(row)
    assert "Released" in text
    assert ("Every picture goes to review" in text) is told
