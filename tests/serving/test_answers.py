"""Decisions, the audit sample and traces."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from keepsight.runtime.predictor import Predictor
from keepsight.runtime.quality import QualityLimits
from keepsight.serving.answers import decide, select, trace_of
from keepsight.serving.events import Event, Feedback, Served, ServingSettings


def ids(count: int) -> list[str]:
    return [hashlib.md5(str(number).encode()).hexdigest() for number in range(count)]


def test_the_audit_is_the_share_that_was_asked_for_and_does_not_depend_on_the_answer() -> None:
    sure = {item for item in ids(20_000) if select(item, uncertain=False, share=0.05)[0] == "audit"}
    unsure = {item for item in ids(20_000) if select(item, uncertain=True, share=0.05)[0] == "audit"}
    assert sure == unsure
    assert 0.045 < len(sure) / 20_000 < 0.055
    # A larger share only adds: an alarm widens the same sample.
    more = {item for item in ids(20_000) if select(item, uncertain=False, share=0.25)[0] == "audit"}
    assert sure < more


def test_each_selection_knows_its_probability() -> None:
    found = {select(item, uncertain=uncertain, share=0.2) for item in ids(200) for uncertain in (False, True)}
    assert found == {("audit", 0.2), ("uncertain", 1.0), (None, 0.2)}
    assert select("f" * 32, uncertain=False, share=0.0) == (None, 0.0)
    assert select("f" * 32, uncertain=True, share=1.0) == ("audit", 1.0)


@pytest.mark.parametrize(("least", "codes"), [(None, ["low_confidence"]), (0.1, []), (1.0, ["low_confidence"])])
def test_a_set_confidence_replaces_the_learned_threshold(
    make_bundle: Any, picture: Any, least: float | None, codes: list[str]
) -> None:
    bundle = make_bundle(threshold=0.9999)
    served = Served("shop", 1, bundle.digest, Predictor(bundle), ServingSettings(min_confidence=least))
    reasons = decide(served.predictor.predict(picture()), served=served)
    assert [item["code"] for item in reasons] == codes


def test_bad_quality_is_a_reason_in_plain_words(make_bundle: Any, picture: Any) -> None:
    bundle = make_bundle(limits=QualityLimits(min_brightness=200.0, min_blur=0, min_contrast=0))
    served = Served("shop", 1, bundle.digest, Predictor(bundle), ServingSettings())
    assert decide(served.predictor.predict(picture("blue")), served=served) == [
        {"code": "too_dark", "text": "The picture is too dark."}
    ]


def test_only_well_formed_traces_are_taken() -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    assert trace_of(f"00-{trace}-00f067aa0ba902b7-01") == trace
    for bad in (None, "", trace, f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{trace.upper()}-00f067aa0ba902b7-01"):
        assert trace_of(bad) == ""


def test_events_have_exactly_the_columns_of_the_table() -> None:
    from dataclasses import fields

    from keepsight.store import schema

    for kind, table in ((Event, schema.event), (Feedback, schema.feedback)):
        assert {item.name for item in fields(kind)} == {column.name for column in table.columns} - {"seq"}
