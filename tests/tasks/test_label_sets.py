"""Annotations that are sets of labels, and the figures of such answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from keepsight.errors import AnnotationError, DataError
from keepsight.tasks import moderation, multilabel

NAMES = ("person", "plate")


def prediction(shares: Sequence[float], *, key: str = "flags", threshold: float = 0.5) -> dict[str, Any]:
    items: list[dict[str, Any]] = [
        {"label": name, "confidence": share, "threshold": threshold} for name, share in zip(NAMES, shares, strict=False)
    ]
    given = [item for item in items if item["confidence"] >= threshold]
    return {
        "label": ", ".join(item["label"] for item in given) or "allowed",
        "confidence": float(np.prod([max(share, 1 - share) for share in shares])),
        key: given,
        "alternatives": [item for item in items if item not in given],
    }


@pytest.mark.parametrize(
    ("raw", "flags"),
    [
        ("plate|person", ["person", "plate"]),
        ({"flags": ["plate", "plate", " person "]}, ["person", "plate"]),
        (["plate"], ["plate"]),
        ({"label": "plate"}, ["plate"]),
        ("allowed", []),
        ({"flags": []}, []),
        (prediction([0.9, 0.1]), ["person"]),
    ],
)
def test_what_is_meant(raw: Any, flags: list[str]) -> None:
    assert moderation.parse(raw) == {"flags": flags}


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (None, "no flags"),
        (7, "flags are a int"),
        ({"boxes": []}, "no flags"),
        ({"flags": [7]}, "flag is a int"),
        ("plate|", "empty"),
        ("", "empty"),
        ({"flags": ["a|b"]}, "called"),
        ({"flags": ["allowed", "plate"]}, "called"),
        ({"flags": [f"flag {n}" for n in range(300)]}, "300 flags"),
    ],
)
def test_what_means_nothing_is_refused(raw: Any, told: str) -> None:
    with pytest.raises(AnnotationError, match=told):
        moderation.parse(raw)


def test_an_unknown_flag_names_the_nearest() -> None:
    with pytest.raises(AnnotationError) as caught:
        moderation.validate({"flags": ["plat"]}, NAMES)
    assert 'Did you mean "plate"' in caught.value.do


def test_labels_have_their_own_key_and_their_own_word_for_none() -> None:
    assert multilabel.parse("b|a") == {"labels": ["a", "b"]}
    assert multilabel.parse("(none)") == {"labels": []}
    assert multilabel.summary({"labels": ["a", "b"]}) == "a, b"
    assert moderation.summary({"flags": []}) == "allowed"


def test_score_and_right() -> None:
    said = prediction([0.9, 0.8])
    assert moderation.score(said, {"flags": ["person"]}) == pytest.approx(2 / 3)
    assert not moderation.right(said, {"flags": ["person"]})
    assert moderation.right(said, {"flags": ["plate", "person"]})
    assert moderation.score(prediction([0.1, 0.1]), {"flags": []}) == 1


def test_uncertainty_grows_towards_the_threshold() -> None:
    far, near, at = (moderation.uncertainty(prediction([0.01, share], threshold=0.1)) for share in (0.01, 0.08, 0.1))
    assert far < near < at == pytest.approx(1.0)


def test_something_must_be_there_to_learn() -> None:
    moderation.check_trainable("shop", [{"flags": ["a"]}, {"flags": []}])
    nothing: tuple[list[dict[str, Any]], ...] = ([{"flags": []}], [{"flags": ["a"]}] * 3, [])
    for values in nothing:
        with pytest.raises(DataError, match="shop has"):
            moderation.check_trainable("shop", values)


def sample(seed: int, n: int = 200) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    true = rng.random((n, 2)) < (0.3, 0.1)
    # Rounded, so that chances are equal here and there.
    shares = np.clip(true * 0.3 + rng.random((n, 2)) * 0.7, 0.01, 0.99).round(2)
    values: list[dict[str, Any]] = [
        {"flags": [name for name, there in zip(NAMES, row, strict=True) if there]} for row in true
    ]
    return [prediction(list(row)) for row in shares], values


def test_figures_are_those_of_scikit_learn() -> None:
    predictions, values = sample(3)
    found = moderation.evaluate(predictions, values, names=NAMES, seed=0).as_dict()
    true = np.array([[name in value["flags"] for name in NAMES] for value in values])
    items = [{item["label"]: item for item in (*row["flags"], *row["alternatives"])} for row in predictions]
    shares = np.array([[row[name]["confidence"] for name in NAMES] for row in items])
    told = shares >= 0.5
    for place, name in enumerate(NAMES):
        figures = found["per_class"][name]
        assert figures["auc"]["value"] == pytest.approx(metrics.roc_auc_score(true[:, place], shares[:, place]))
        assert figures["ap"]["value"] == pytest.approx(
            metrics.average_precision_score(true[:, place], shares[:, place])
        )
        assert figures["f1"]["value"] == pytest.approx(metrics.f1_score(true[:, place], told[:, place]))
        assert figures["precision"]["value"] == pytest.approx(metrics.precision_score(true[:, place], told[:, place]))
        alarms, recalls, _ = metrics.roc_curve(true[:, place], shares[:, place], drop_intermediate=False)
        assert figures["recall_at_5_percent_false_alarms"]["value"] == pytest.approx(recalls[alarms <= 0.05].max())
        assert figures["false_alarms"]["value"] == pytest.approx(told[~true[:, place], place].mean())
        for figure in (*figures.values(), found["f1"], found["auc"], found["ece"]):
            if isinstance(figure, dict):
                assert figure["low"] <= figure["value"] <= figure["high"]
    assert found["f1"]["value"] == pytest.approx(metrics.f1_score(true, told, average="macro"))
    assert found["right"]["value"] == pytest.approx(metrics.accuracy_score(true, told))
    harmless = np.flatnonzero(~true.any(axis=1))
    assert found["blocked"]["value"] == pytest.approx(told[harmless].any(axis=1).mean())
    assert found["blocked"]["n"] == len(harmless)


def test_a_picture_that_cannot_be_read_is_wrong_and_found_nothing() -> None:
    predictions, values = sample(4, n=40)
    flagged = next(place for place, value in enumerate(values) if "person" in value["flags"])
    before = moderation.evaluate(predictions, values, names=NAMES, seed=0).as_dict()
    broken = [*predictions[:flagged], None, *predictions[flagged + 1 :]]
    after = moderation.evaluate(broken, values, names=NAMES, seed=0).as_dict()
    assert after["per_class"]["person"]["auc"]["value"] < before["per_class"]["person"]["auc"]["value"]
    assert after["right"]["n"] == 40


def test_few_pictures_told_apart_are_no_certainty() -> None:
    predictions = [prediction([0.9, 0.1])] * 5 + [prediction([0.1, 0.1])] * 5
    values: list[dict[str, Any]] = [{"flags": ["person"]}] * 5 + [{"flags": []}] * 5
    found = moderation.evaluate(predictions, values, names=NAMES, seed=0).as_dict()
    assert found["recall_at_5_percent_false_alarms"]["value"] == found["auc"]["value"] == 1
    assert found["recall_at_5_percent_false_alarms"]["low"] < 0.8
    assert found["per_class"]["person"]["auc"]["low"] < 0.8
    # Nothing is known of a flag that no picture has.
    assert found["absent"] == ["plate"]
    assert found["per_class"]["plate"]["recall"]["value"] is None


def test_groups_widen_and_nothing_gives_nothing() -> None:
    predictions, values = sample(5)
    alone = moderation.evaluate(predictions, values, names=NAMES, seed=0).as_dict()
    grouped = moderation.evaluate(
        predictions * 3, values * 3, names=NAMES, groups=list(range(200)) * 3, seed=0
    ).as_dict()
    assert grouped["right"]["value"] == pytest.approx(alone["right"]["value"])
    assert grouped["right"]["low"] == pytest.approx(alone["right"]["low"], abs=0.02)
    empty = moderation.evaluate([], [], names=NAMES, seed=0).as_dict()
    assert empty["recall_at_5_percent_false_alarms"] == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


def test_multilabel_measures_exact_matches_and_the_mean_average_precision() -> None:
    predictions, values = sample(6)
    named = [{**row, "labels": row["flags"]} for row in predictions]
    found = multilabel.evaluate(named, [{"labels": value["flags"]} for value in values], names=NAMES, seed=1).as_dict()
    parts = [found["per_class"][name]["ap"]["value"] for name in NAMES]
    assert found["ap"]["value"] == pytest.approx(np.mean(parts))
    exact = [
        {item["label"] for item in row["labels"]} == set(value["flags"])
        for row, value in zip(named, values, strict=True)
    ]
    assert found["right"]["value"] == pytest.approx(np.mean(exact))
