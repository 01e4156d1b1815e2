"""The comparison in words: what gets better, what gets worse, and how sure that is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from keepsight.training import gate
from keepsight.training.gate import Evidence, Judged, story
from keepsight.training.slices import Slice
from tests.training.gate.settings import settings


def compared() -> Evidence:
    """The new model gains 30 of 100 knives and loses 2 of 100 spoons."""
    place = np.arange(200)
    return Evidence(
        trigger="hand",
        test=Judged(
            classes=[("knife",)] * 100 + [("spoon",)] * 100,
            challenger=~np.isin(place, [150, 151]),
            champion=place >= 30,
            slices=(Slice("camera", "door", place % 2 == 0), Slice("camera", "new", place < 3)),
        ),
        latency_ms=8.0,
        champion_latency_ms=16.0,
        size_bytes=5_000_000,
        champion_size_bytes=5_010_000,
    )


def stored(evidence: Evidence) -> dict[str, object]:
    """As it stands in the run."""
    told = {**gate.decide(evidence, settings()).as_dict(), "sides": gate.side_by_side(evidence)}
    read: dict[str, object] = json.loads(json.dumps(told, allow_nan=False))
    return read


def test_both_models_on_the_same_pictures() -> None:
    assert story.summary(stored(compared())) == [
        "Of the test pictures (200) the new model gets 99.0% right and the live one 85.0%: 14.0 points better. "
        "It is better on 30 pictures and worse on 2.",
        "A picture takes 8.0 ms instead of 16.0 ms.",
        "The network has 5.0 MB, as with the live model.",
    ]


def test_gains_and_losses_by_class_and_slice() -> None:
    found = stored(compared())
    better = story.better(found)
    assert [(row["kind"], row["name"], row["champion"], row["challenger"]) for row in better] == [
        ("class", "knife", 70, 100),
        ("slice", "camera=door", 85, 99),
    ]
    assert better[0]["text"] == '"knife": 100 of 100 pictures right instead of 70'
    (lost,) = story.worse(found)
    assert lost["text"] == '"spoon": 98 of 100 pictures right instead of 100 (may be chance)'


def test_a_first_model_has_nothing_to_be_compared_with() -> None:
    alone = compared()
    alone = replace(alone, test=replace(alone.test, champion=None), champion_latency_ms=None, champion_size_bytes=None)
    found = stored(alone)
    assert story.summary(found) == [
        "The new model is right on 99.0% of the test pictures (200).",
        "A picture takes 8.0 ms.",
        "The network has 5.0 MB.",
    ]
    assert story.better(found) == story.worse(found) == []


def test_checks_by_status_name_how_many_pictures_would_do() -> None:
    few = Evidence(trigger="hand", test=Judged(["a"] * 40, np.ones(40, np.bool_), np.ones(40, np.bool_)))
    (check,) = story.checks(stored(few), "cannot_tell")
    assert check["name"] == "test"
    assert check["pictures_needed"] > 40
    assert [item["name"] for item in story.checks(stored(few), "cannot_tell", binding=False)] == ["licences", "consent"]


def test_results_of_older_versions_have_no_story() -> None:
    assert story.summary({"decision": "ask", "checks": []}) == []
    assert story.better({}) == []
