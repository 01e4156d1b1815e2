"""Tables, times, intervals and who is recorded."""

from __future__ import annotations

import getpass
import io
import sys

import pytest

from keepsight.cli import common
from keepsight.errors import NotFoundError


def test_a_table_is_aligned_and_has_no_trailing_blanks() -> None:
    told = common.table(("model", "status"), [(1, "champion"), (12, "")], empty="nothing")
    assert told == "model  status\n1      champion\n12"
    assert common.table(("model",), [], empty="No models yet.") == "No models yet."


def test_times_are_utc_and_may_be_missing() -> None:
    assert common.when(0.0) == "1970-01-01 00:00:00"
    assert common.when(None) == ""


def test_an_interval_is_never_shown_without_its_value() -> None:
    assert common.interval({"value": 0.912, "low": 0.89, "high": 0.93}) == "0.912 (0.890 to 0.930)"
    assert common.interval({"value": None, "low": 0.0, "high": 1.0}) == "unknown"
    assert common.interval(None) == "unknown"


def test_the_actor_is_the_person_at_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "maria")
    assert common.actor() == "maria"

    def unknown() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert common.actor().startswith("uid ")


def test_results_go_to_stdout_and_errors_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    common.show({"größe": 1}, as_json=False, text=lambda: "one\n")
    common.tell_error(NotFoundError.among("project", "shpo", ["shop"]), as_json=False)
    printed = capsys.readouterr()
    assert printed.out == "one\n"
    assert printed.err.splitlines() == [
        'There is no project "shpo".',
        "  Expected: one of: shop.",
        '  What to do: Did you mean "shop"?',
    ]


def test_progress_draws_nothing_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    with common.progress_bar(quiet=False) as on_progress:
        on_progress({"text": "importing", "done": 1, "total": 2})
    assert told.getvalue() == ""
