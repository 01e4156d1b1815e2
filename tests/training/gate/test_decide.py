"""Releases that are worse do not pass, releases that are as good do, and too little evidence asks a person."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from keepsight.training import gate
from keepsight.training.gate import Check, Evidence, GateResult, Judged, paired_difference
from tests.training.gate.settings import settings


def judged(
    challenger: np.ndarray | None,
    champion: np.ndarray | None,
    *,
    labels: Sequence[str] | None = None,
    groups: np.ndarray | None = None,
) -> Judged:
    new = answers(0, 0) if challenger is None else challenger
    return Judged([(name,) for name in (["a"] * len(new) if labels is None else labels)], new, champion, groups)


def decide(
    *,
    challenger_test: np.ndarray | None,
    champion_test: np.ndarray | None = None,
    challenger_recent: np.ndarray | None = None,
    champion_recent: np.ndarray | None = None,
    test_labels: Sequence[str] | None = None,
    test_groups: np.ndarray | None = None,
    trigger: str,
    latency_ms: float | None = None,
    min_accuracy: float | None = None,
    min_recall: Mapping[str, float] | None = None,
    max_latency_ms: float | None = None,
) -> GateResult:
    """What the gate says where nobody asks about licences or consent."""
    result = gate.decide(
        Evidence(
            trigger=trigger,
            test=judged(challenger_test, champion_test, labels=test_labels, groups=test_groups),
            recent=judged(challenger_recent, champion_recent),
            latency_ms=latency_ms,
        ),
        settings(min_accuracy=min_accuracy, min_recall=min_recall or {}, max_latency_ms=max_latency_ms),
    )
    return GateResult(result.decision, tuple(check for check in result.checks if check.binding))


def answers(n: int, right: int) -> np.ndarray:
    return np.arange(n) < right


def check(result: GateResult, name: str) -> Check:
    return next(item for item in result.checks if item.name == name)


def pairs(random: np.random.Generator, n: int, *, gained: float, lost: float) -> tuple[np.ndarray, np.ndarray]:
    """Answers of champion and challenger that differ as often as said."""
    draw = random.random(n)
    champion = random.random(n) < 0.8
    champion = np.where(draw < gained, False, np.where(draw < gained + lost, True, champion))
    challenger = np.where(draw < gained, True, np.where(draw < gained + lost, False, champion))
    return champion, challenger


def test_difference_of_a_known_table() -> None:
    # 20 gained, 10 lost of 200: the adjusted Wald bounds by hand.
    champion = np.r_[np.zeros(20, bool), np.ones(10, bool), np.ones(170, bool)]
    challenger = np.r_[np.ones(20, bool), np.zeros(10, bool), np.ones(170, bool)]
    found = paired_difference(champion, challenger)
    half = 1.6448536 * np.sqrt((31 / 202 - (10 / 202) ** 2) / 202)
    assert found.value == pytest.approx(0.05)
    assert found.low == pytest.approx(10 / 202 - half)
    assert found.high == pytest.approx(10 / 202 + half)
    assert found.n == 200


def test_models_that_never_differ_are_not_certain() -> None:
    same = answers(100, 90)
    found = paired_difference(same, same)
    assert found.value == 0
    assert found.low == pytest.approx(-0.016, abs=0.002)
    assert paired_difference(same[:0], same[:0]).low == -1


@pytest.mark.parametrize("grouped", [False, True])
def test_a_release_that_is_too_much_worse_rarely_passes(grouped: bool) -> None:
    random = np.random.default_rng(0)
    passed = 0
    for _ in range(600):
        n = 100 if grouped else 400
        champion, challenger = pairs(random, n, gained=0.03, lost=0.05)
        groups = None
        if grouped:  # four photos of each scene, answered alike
            champion, challenger, groups = champion.repeat(4), challenger.repeat(4), np.arange(n).repeat(4)
        passed += paired_difference(champion, challenger, groups=groups).low > -0.02
    # The truth is exactly at the margin, so 5 % may pass.
    assert passed / 600 < 0.075


def test_groups_widen_the_bounds_and_single_ones_do_not() -> None:
    random = np.random.default_rng(1)
    champion, challenger = pairs(random, 200, gained=0.1, lost=0.05)
    plain = paired_difference(champion, challenger)
    alone = paired_difference(champion, challenger, groups=np.arange(200))
    assert alone.low == pytest.approx(plain.low, abs=0.002)
    many = paired_difference(champion.repeat(4), challenger.repeat(4), groups=np.arange(200).repeat(4))
    assert many.low == pytest.approx(plain.low, abs=0.01)
    assert paired_difference(champion.repeat(4), challenger.repeat(4)).low > many.low + 0.01
    assert paired_difference(champion, challenger, groups=np.zeros(200)).low == -1


def test_as_good_as_before_is_deployed() -> None:
    result = decide(
        challenger_test=answers(600, 560),
        champion_test=answers(600, 558),
        challenger_recent=answers(150, 140),
        champion_recent=answers(150, 140),
        trigger="labels",
    )
    assert result.decision == "deploy"
    assert [item.status for item in result.checks] == ["pass", "pass"]
    told = check(result, "test").reason
    assert "600 test pictures" in told
    assert "93.3%" in told
    assert "0.3 points better" in told
    json.dumps(result.as_dict())


def test_worse_is_rejected_and_unsure_asks() -> None:
    worse = decide(challenger_test=answers(600, 520), champion_test=answers(600, 558), trigger="labels")
    assert worse.decision == "reject"
    assert "6.3 points worse" in check(worse, "test").reason
    unsure = decide(challenger_test=answers(40, 37), champion_test=answers(40, 37), trigger="labels")
    assert unsure.decision == "ask"
    assert check(unsure, "test").status == "cannot_tell"
    assert "too few pictures" in check(unsure, "test").reason
    assert "would do" in check(unsure, "test").reason
    none = decide(challenger_test=answers(0, 0), champion_test=answers(0, 0), trigger="labels")
    assert none.decision == "ask"


def test_one_failure_outweighs_doubts() -> None:
    result = decide(
        challenger_test=answers(40, 37),
        champion_test=answers(40, 37),
        trigger="labels",
        max_latency_ms=20,
        latency_ms=31.5,
    )
    assert [item.status for item in result.checks] == ["cannot_tell", "fail"]
    assert result.decision == "reject"
    assert "31.5 ms" in check(result, "latency").reason


def test_after_drift_it_must_be_better_on_recent_pictures() -> None:
    test: dict[str, Any] = {"challenger_test": answers(600, 545), "champion_test": answers(600, 558)}
    better = decide(**test, challenger_recent=answers(100, 85), champion_recent=answers(100, 40), trigger="drift")
    assert better.decision == "deploy"
    assert check(better, "recent").threshold == 0
    assert check(better, "test").threshold == pytest.approx(-0.05)
    # The same loss on test is too much where nothing has drifted.
    assert decide(**test, trigger="labels").decision != "deploy"
    equal = decide(**test, challenger_recent=answers(100, 40), champion_recent=answers(100, 40), trigger="drift")
    assert equal.decision == "reject"
    hardly = decide(**test, challenger_recent=answers(100, 41), champion_recent=answers(100, 40), trigger="drift")
    assert hardly.decision == "ask"


def test_recent_pictures_are_asked_for_by_drift_only() -> None:
    test: dict[str, Any] = {"challenger_test": answers(600, 560), "champion_test": answers(600, 558)}
    empty: dict[str, Any] = {"challenger_recent": answers(0, 0), "champion_recent": answers(0, 0)}
    assert decide(**test, **empty, trigger="schedule").decision == "deploy"
    drifted = decide(**test, **empty, trigger="drift")
    assert drifted.decision == "ask"
    assert check(drifted, "recent").value is None


def test_the_first_model_only_meets_the_thresholds() -> None:
    assert decide(challenger_test=answers(50, 5), trigger="hand") == GateResult("deploy", ())
    good = decide(challenger_test=answers(600, 560), trigger="hand", min_accuracy=0.9)
    assert good.decision == "deploy"
    assert check(good, "accuracy").low == pytest.approx(0.914, abs=0.002)
    assert decide(challenger_test=answers(600, 545), trigger="hand", min_accuracy=0.9).decision == "ask"
    assert decide(challenger_test=answers(600, 500), trigger="hand", min_accuracy=0.9).decision == "reject"
    assert decide(challenger_test=None, trigger="hand", min_accuracy=0.9).decision == "ask"


def test_recall_of_named_classes() -> None:
    labels = ["knife"] * 100 + ["spoon"] * 100
    right = np.r_[answers(100, 97), answers(100, 60)]
    result = decide(
        challenger_test=right,
        test_labels=labels,
        test_groups=np.arange(200),
        trigger="hand",
        min_recall={"knife": 0.9, "spoon": 0.9, "fork": 0.5},
    )
    assert check(result, "recall of knife").status == "pass"
    assert check(result, "recall of spoon").status == "fail"
    assert check(result, "recall of fork").status == "cannot_tell"
    assert '"fork"' in check(result, "recall of fork").reason
    assert result.decision == "reject"


def test_latency_must_have_been_measured() -> None:
    assert decide(challenger_test=None, trigger="hand", max_latency_ms=20, latency_ms=12).decision == "deploy"
    assert decide(challenger_test=None, trigger="hand", max_latency_ms=20).decision == "ask"


def test_answers_to_different_pictures_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="same pictures"):
        paired_difference(answers(3, 1), answers(4, 1))
