"""Each check says pass, fail or cannot tell, with the numbers behind it, and what is missing is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from keepsight.training import gate
from keepsight.training.gate import Check, Evidence, Int8Answers, Judged
from keepsight.training.slices import Slice
from tests.training.gate.settings import settings

EVERYWHERE = np.ones(400, np.bool_)


def first(n: int, count: int, start: int = 0) -> np.ndarray:
    """bool (n,), so many from a place on."""
    return (np.arange(n) >= start) & (np.arange(n) < start + count)


def figure(value: float | None, low: float, high: float, n: int = 400) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


def evidence(**values: Any) -> Evidence:
    """400 test pictures, all answered rightly by both models, in two cameras."""
    test = Judged(
        classes=[("knife",), ("spoon",)] * 200,
        challenger=EVERYWHERE,
        champion=EVERYWHERE,
        slices=(Slice("camera", "door", first(400, 100)), Slice("camera", "shelf", first(400, 300, 100))),
    )
    given: dict[str, Any] = {"trigger": "hand", "test": test, "licences": ("MIT",), "known_licences": ("MIT",)}
    return Evidence(**(given | values))


def judge(found: Evidence, **values: Any) -> tuple[str, dict[str, Check]]:
    result = gate.decide(found, settings(**values))
    json.dumps(result.as_dict(), allow_nan=False)
    return result.decision, {check.name: check for check in result.checks}


def with_wrong(
    found: Evidence, *, champion: np.ndarray | None = None, challenger: np.ndarray | None = None
) -> Evidence:
    """The same evidence where each model is wrong on these test pictures."""
    nowhere = ~EVERYWHERE
    new, old = ~(nowhere if challenger is None else challenger), ~(nowhere if champion is None else champion)
    return replace(found, test=replace(found.test, challenger=new, champion=old))


def test_without_settings_only_the_live_model_counts() -> None:
    decision, checks = judge(evidence())
    assert decision == "deploy"
    assert {name for name, check in checks.items() if check.binding} == {"test", "licences"}
    assert checks["test"].evidence == {"champion": 1.0, "challenger": 1.0, "gained": 0, "lost": 0}


def test_too_few_pictures_ask_a_person() -> None:
    decision, checks = judge(evidence(), min_pictures=500)
    assert (decision, checks["pictures"].status) == ("ask", "cannot_tell")
    assert checks["pictures"].evidence["pictures_needed"] == 500
    assert judge(evidence(), min_pictures=400)[0] == "deploy"


@pytest.mark.parametrize(
    ("name", "least", "status"),
    [
        ("f1", 0.8, "pass"),
        ("f1", 0.89, "cannot_tell"),
        ("f1", 0.95, "fail"),
        ("recall of knife", 0.6, "pass"),
        ("recall of knife", 0.9, "fail"),
        ("f2", 0.5, "cannot_tell"),
        ("recall of fork", 0.5, "cannot_tell"),
        ("ece", 0.5, "cannot_tell"),
        ("precision", 0.1, "cannot_tell"),
    ],
)
def test_named_metrics_by_their_intervals(name: str, least: float, status: str) -> None:
    metrics = {
        "f1": figure(0.9, 0.87, 0.93),
        "ece": figure(0.05, 0.03, 0.07),
        "precision": figure(None, 0.0, 1.0, 0),
        "per_class": {"knife": {"recall": figure(0.8, 0.7, 0.88, 100)}},
        "names": ["knife"],
    }
    decision, checks = judge(evidence(metrics=metrics), min_metric={name: least})
    assert checks[name].status == status
    assert decision == {"pass": "deploy", "fail": "reject", "cannot_tell": "ask"}[status]
    if name in ("f2", "recall of fork", "ece"):
        assert checks[name].evidence["names"] == ["f1", "precision"]
        assert "those there are: f1, precision, and of a class such as recall of knife" in checks[name].reason


def test_a_slice_that_does_not_exist_names_those_that_do() -> None:
    decision, checks = judge(evidence(), min_slice={"camera=roof": 0.5, "camera=door": 0.9}, min_recall={"fork": 0.5})
    assert decision == "ask"
    assert "those there are: camera=door, camera=shelf" in checks["slice camera=roof"].reason
    assert '"fork"; the classes there are: knife, spoon' in checks["recall of fork"].reason
    assert checks["slice camera=door"].status == "pass"
    assert checks["slice camera=door"].n == 100
    worse = with_wrong(evidence(), challenger=first(400, 20))
    assert judge(worse, min_slice={"camera=door": 0.9})[1]["slice camera=door"].status == "fail"


def test_a_slice_that_falls_is_found_though_the_whole_improves() -> None:
    found = with_wrong(evidence(), challenger=first(400, 15), champion=first(400, 40, 300))
    decision, checks = judge(found, max_slice_drop=0.05)
    assert checks["test"].status == "pass"
    assert (decision, checks["slices"].status) == ("reject", "fail")
    assert "camera=door from 100.0% to 85.0% (100 pictures)" in checks["slices"].reason
    rows = checks["slices"].evidence["parts"]
    assert [(row["name"], row["status"]) for row in rows] == [("camera=door", "fail"), ("camera=shelf", "pass")]
    assert judge(found, max_slice_drop=0.2)[0] == "deploy"


def test_a_small_slice_that_looks_worse_asks_and_chance_is_told() -> None:
    small = Slice("camera", "roof", first(400, 12))
    found = evidence()
    many = tuple(Slice("shelf", str(place), first(400, 30, 100 + 30 * place)) for place in range(10))
    found = replace(found, test=replace(found.test, slices=(small, *many)))
    decision, checks = judge(with_wrong(found, challenger=first(400, 5)), max_slice_drop=0.05)
    assert (decision, checks["slices"].status) == ("ask", "cannot_tell")
    assert "camera=roof from 100.0% to 58.3% (12 pictures)" in checks["slices"].reason
    decision, checks = judge(with_wrong(found, challenger=first(400, 1)), max_slice_drop=0.05)
    assert decision == "deploy"
    assert "By chance or not: camera=roof from 100.0% to 91.7% (12 pictures)." in checks["slices"].reason
    assert "so large a fall cannot be ruled out" in checks["slices"].reason


def test_without_a_live_model_no_slice_can_fall() -> None:
    found = evidence()
    found = replace(found, test=replace(found.test, champion=None))
    assert "slices" not in judge(found, max_slice_drop=0.05)[1]
    bare = evidence(test=Judged(["a"] * 3, np.ones(3, np.bool_), np.ones(3, np.bool_)))
    assert judge(bare, max_slice_drop=0.05)[1]["slices"].status == "cannot_tell"


def test_models_that_are_equal_are_hardly_ever_rejected_for_a_slice() -> None:
    random = np.random.default_rng(0)
    sizes = [20, 30, 40, 60, 80, 120, 30, 50, 25, 35]
    rejected = 0
    for _ in range(400):
        n = sum(sizes)
        draw = random.random(n)
        bounds = np.cumsum([0, *sizes])
        slices = tuple(
            Slice("s", str(place), first(n, size, int(start)))
            for place, (size, start) in enumerate(zip(sizes, bounds[:-1], strict=True))
        )
        test = Judged([("a",)] * n, draw > 0.08, (draw < 0.08) | (draw > 0.16), None, slices)
        _, checks = judge(evidence(test=test), max_slice_drop=0.05, margin=1.0)
        rejected += checks["slices"].status == "fail"
    assert rejected / 400 < 0.05


@pytest.mark.parametrize(
    ("low", "high", "most", "status"),
    [(0.01, 0.04, 0.05, "pass"), (0.01, 0.09, 0.05, "cannot_tell"), (0.07, 0.12, 0.05, "fail")],
)
def test_calibration_by_its_interval(low: float, high: float, most: float, status: str) -> None:
    metrics = {"ece": figure(min(high, 0.08), low, high)}
    assert judge(evidence(metrics=metrics), max_ece=most)[1]["calibration"].status == status
    assert judge(evidence(), max_ece=most)[0] == "ask"


def robust(**kept: float) -> Mapping[str, Any]:
    return {
        "robustness": [
            {
                "name": name,
                "n": 200,
                "clean": figure(0.9, 0.85, 0.94, 200),
                "accuracy": figure(0.9 * share, 0.9 * share - 0.06, 0.9 * share + 0.05, 200),
                "kept": share,
            }
            for name, share in kept.items()
        ]
    }


def test_the_worst_disturbance_decides() -> None:
    decision, checks = judge(evidence(evaluation=robust(darker=0.95, half_size=0.4)), min_robustness=0.6)
    assert decision == "reject"
    assert "keeps 40.0% when pictures are half size, the worst of 2" in checks["robustness"].reason
    assert [row["name"] for row in checks["robustness"].evidence["disturbances"]] == ["half_size", "darker"]
    assert judge(evidence(evaluation=robust(darker=0.63)), min_robustness=0.6)[0] == "ask"
    assert judge(evidence(evaluation=robust(darker=0.9)), min_robustness=0.6)[0] == "deploy"
    # An evaluation that is missing, or empty, shows nothing.
    nothing: list[dict[str, Any] | None] = [None, {}, {"robustness": []}, {"robustness": None}]
    for missing in nothing:
        assert judge(evidence(evaluation=missing), min_robustness=0.6)[0] == "ask"


def test_time_and_size() -> None:
    found = evidence(latency_ms=12.0, size_bytes=5_000_000)
    assert judge(found, max_latency_ms=15, max_size_mb=6)[0] == "deploy"
    decision, checks = judge(found, max_latency_ms=10, max_size_mb=4)
    assert decision == "reject"
    assert "5.0 MB; at most 4 MB are allowed" in checks["size"].reason
    assert judge(evidence(), max_size_mb=4)[0] == "ask"


@pytest.mark.parametrize(("variant", "decision"), [("float", "deploy"), ("int8", "reject")])
def test_the_8_bit_network_decides_where_it_is_served(variant: str, decision: str) -> None:
    spoons = np.arange(400) % 2 == 1
    int8 = Int8Answers(float_scores=EVERYWHERE, int8_scores=~(spoons & first(400, 60)))
    said, checks = judge(evidence(variant=variant, int8=int8))
    assert said == decision
    assert (checks["int8"].status, checks["int8"].binding) == ("fail", variant == "int8")
    assert "spoon from 100.0% to 85.0% (200 pictures)" in checks["int8"].reason
    assert judge(evidence(variant=variant, int8=Int8Answers(EVERYWHERE, EVERYWHERE)))[1]["int8"].status == "pass"


def test_an_8_bit_network_that_is_wanted_and_missing_asks() -> None:
    assert judge(evidence(variant="int8"))[0] == "ask"
    assert "int8" not in judge(evidence())[1]


@pytest.mark.parametrize(
    ("stated", "allowed", "decision", "status"),
    [
        (("mit",), [], "deploy", "pass"),
        (("MIT", "CC-BY-NC-4.0"), [], "reject", "fail"),
        (("CC-BY-NC-4.0",), ["cc-by-nc-4.0"], "deploy", "pass"),
        (("MIT",), ["Apache-2.0"], "reject", "fail"),
        (("LicenseRef-unknown",), [], "deploy", "cannot_tell"),
        (("LicenseRef-unknown",), ["MIT"], "ask", "cannot_tell"),
        ((), ["MIT"], "ask", "cannot_tell"),
    ],
)
def test_licences_of_the_weights(stated: tuple[str, ...], allowed: list[str], decision: str, status: str) -> None:
    said, checks = judge(evidence(licences=stated), licences=allowed)
    assert (said, checks["licences"].status) == (decision, status)


def test_consent_that_nobody_can_show_blocks_where_it_is_required() -> None:
    decision, checks = judge(evidence())
    assert (decision, checks["consent"].status, checks["consent"].binding) == ("deploy", "cannot_tell", False)
    decision, checks = judge(evidence(), **{"privacy.consent": "required"})
    assert (decision, checks["consent"].status, checks["consent"].binding) == ("ask", "cannot_tell", True)
    assert judge(evidence(without_consent=3), **{"privacy.consent": "required"})[0] == "reject"
    assert judge(evidence(without_consent=0), **{"privacy.consent": "required"})[0] == "deploy"


def test_what_stands_in_the_way_is_told_failures_first() -> None:
    found = gate.decide(
        evidence(size_bytes=9_000_000, latency_ms=None), settings(max_size_mb=4, max_latency_ms=5, min_pictures=500)
    ).as_dict()
    assert [check["name"] for check in gate.open_checks(found)] == ["size", "pictures", "latency"]
    assert gate.open_reasons(found).startswith("The network has 9.0 MB")
    # Results of older versions have neither evidence nor binding.
    old = {"decision": "ask", "checks": [{"name": "test", "status": "cannot_tell", "reason": "Too few."}]}
    assert gate.open_reasons(old) == "Too few."


def test_a_score_of_several_things_is_no_recall_of_one() -> None:
    found = evidence()
    graded = replace(found, test=replace(found.test, challenger=np.full(400, 0.95), champion=None))
    decision, checks = judge(graded, min_recall={"knife": 0.9})
    assert decision == "ask"
    assert "gate.min_metric" in checks["recall of knife"].reason
