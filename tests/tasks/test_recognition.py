"""Recognition: annotations, how answers are matched to them, and the figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keepsight import tasks
from keepsight.errors import AnnotationError, DataError
from keepsight.tasks import recognition as task
from keepsight.tasks.recognition.matching import matched

BOX = [10.0, 20.0, 50.0, 70.0]
OTHER = [100.0, 20.0, 150.0, 80.0]


def said(label: str, *, box: list[float] | None = None, others: dict[str, float] | None = None) -> dict[str, Any]:
    found = {"label": label, "similarity": 0.8, "confidence": 0.9}
    found["alternatives"] = [{"label": name, "similarity": value} for name, value in (others or {}).items()]
    return found if box is None else {**found, "box": box}


def answer(*subjects: dict[str, Any]) -> dict[str, Any]:
    return {
        "label": task.summary({"subjects": list(subjects)}),
        "confidence": 0.9,
        "subjects": list(subjects),
        "alternatives": [],
    }


def test_it_is_a_task() -> None:
    assert "recognition" in tasks.names()
    assert tasks.get("recognition").HEADLINE == "identification"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("Anna", {"subjects": [{"label": "Anna"}]}),
        ({"label": " Anna  B. "}, {"subjects": [{"label": "Anna B."}]}),
        ({"subjects": []}, {"subjects": []}),
        ({"subjects": ["Unknown"]}, {"subjects": [{"label": "unknown"}]}),
        (
            {"subjects": [{"label": "B", "box": OTHER, "confidence": 1}, {"label": "A", "box": tuple(BOX)}]},
            {"subjects": [{"label": "A", "box": BOX}, {"label": "B", "box": OTHER}]},
        ),
        (answer(said("A", box=BOX)), {"subjects": [{"label": "A", "box": BOX}]}),
    ],
)
def test_what_is_meant(raw: Any, value: Any) -> None:
    assert task.parse(raw) == value
    assert task.canonical(task.parse(raw)) == value


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({}, "The annotation is empty"),
        (None, "The annotation is empty"),
        ({"subjects": "Anna"}, "without subjects"),
        ({"subjects": [{"box": BOX}]}, "has no name"),
        ({"subjects": [{"label": " "}]}, "A name is empty"),
        ({"subjects": [{"label": "A\x00"}]}, "control characters"),
        ({"subjects": [{"label": 7}]}, "of type int"),
        ({"subjects": [{"label": "A", "box": [5, 5, 5, 9]}]}, "A box is"),
        ({"subjects": [{"label": "A", "box": [0, 0, "wide", 9]}]}, "A box is"),
        ({"subjects": [{"label": "A", "box": [-5, 0, 5, 9]}]}, "A box is"),
        ({"subjects": [{"label": "A"}] * 201}, "201 subjects"),
    ],
)
def test_what_means_nothing_is_told(raw: Any, found: str) -> None:
    with pytest.raises(AnnotationError, match=found) as caught:
        task.parse(raw)
    assert caught.value.do


def test_an_unknown_identity_names_the_nearest() -> None:
    task.validate({"subjects": [{"label": "Anna"}, {"label": "unknown"}]}, ["Anna"])
    with pytest.raises(AnnotationError, match='Did you mean "Anna"'):
        task.validate({"subjects": [{"label": "Ana"}]}, ["Anna", "Ben"])
    with pytest.raises(AnnotationError, match="nobody is known yet"):
        task.validate({"subjects": [{"label": "Ana"}]}, [])


def test_in_words_and_classes() -> None:
    value = task.parse({"subjects": ["Ben", "Anna", "unknown", "unknown"]})
    assert task.summary(value) == "Anna, Ben, 2 unknown"
    assert task.classes(value) == ("Anna", "Ben")
    assert task.stratum(value) == "Anna, Ben"
    assert task.summary({"subjects": []}) == "nobody"


def test_boxes_decide_where_both_have_them() -> None:
    pairs = matched([said("A", box=OTHER), said("B", box=BOX)], [{"label": "A", "box": BOX}])
    assert [(one and one["label"], true and true["label"]) for one, true in pairs] == [("B", "A"), ("A", None)]
    apart = matched([said("A", box=OTHER)], [{"label": "A", "box": BOX}])
    assert [bool(one) and bool(true) for one, true in apart] == [False, False]


def test_names_decide_where_there_are_no_boxes() -> None:
    pairs = matched([said("A", box=BOX), said("B", box=OTHER)], [{"label": "B"}, {"label": "C"}])
    assert [(one and one["label"], true and true["label"]) for one, true in pairs] == [("B", "B"), ("A", "C")]


def test_scores() -> None:
    value = {"subjects": [{"label": "A", "box": BOX}, {"label": "B", "box": OTHER}]}
    assert task.score(answer(said("A", box=BOX), said("B", box=OTHER)), value) == 1.0
    assert task.score(answer(said("A", box=BOX), said("unknown", box=OTHER)), value) == 0.5
    assert task.score(answer(said("A", box=BOX)), value) == pytest.approx(2 / 3)
    assert task.score(answer(), {"subjects": []}) == 1.0
    assert task.right(answer(), {"subjects": []})
    assert not task.right(answer(said("A")), {"subjects": []})
    assert task.uncertainty(answer(said("A"))) == pytest.approx(0.1)


def test_somebody_has_to_have_a_name() -> None:
    task.check_trainable("door", [{"subjects": [{"label": "A"}]}])
    with pytest.raises(DataError, match="no picture of anybody"):
        task.check_trainable("door", [{"subjects": [{"label": "unknown"}]}, {"subjects": []}])


def test_figures_of_known_ones_and_strangers() -> None:
    predictions = [
        answer(said("A", others={"B": 0.2, "C": 0.1})),
        answer(said("B", others={"A": 0.7, "C": 0.1})),
        answer(said("unknown", others={"B": 0.4, "A": 0.1})),
        answer(said("unknown", others={"A": 0.3, "B": 0.1})),
        answer(said("A", others={"B": 0.1})),
        None,
        answer(),
    ]
    values = [task.parse(name) for name in ("A", "A", "B", "stranger", "unknown", "C", "A")]
    metrics = task.evaluate(predictions, values, names=["A", "B", "C"], seed=0).as_dict()
    assert metrics["counts"] == {
        "pictures": 7, "known": 5, "identified": 1, "misnamed": 1, "not_found": 2, "strangers": 2,
        "strangers_accepted": 1,
    }  # fmt: skip
    assert metrics["identification"]["value"] == pytest.approx(1 / 5)
    assert metrics["rank1"]["value"] == pytest.approx(2 / 5)
    assert metrics["rejection"]["value"] == pytest.approx(1 / 2)
    assert metrics["false_accepts"]["value"] == pytest.approx(1 / 2)
    assert metrics["right"]["value"] == pytest.approx(2 / 7)
    assert metrics["per_class"]["A"]["recall"]["value"] == pytest.approx(1 / 3)
    assert 0 <= metrics["verification_auc"]["low"] <= metrics["verification_auc"]["value"]


def test_the_verification_curve_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    names = [f"n{number}" for number in range(12)]
    predictions, values, true, scores = [], [], [], []
    for number in range(150):
        name = names[number % 12]
        similar = {other: float(random.normal(0.6 if other == name else 0.2, 0.2)) for other in names}
        first = max(similar, key=lambda other: similar[other])
        subject = {"label": first, "similarity": similar[first]}
        subject["alternatives"] = [
            {"label": other, "similarity": value} for other, value in similar.items() if other != first
        ]
        predictions.append(answer(subject))
        values.append(task.parse(name))
        true += [other == name for other in names]
        scores += list(similar.values())
    metrics = task.evaluate(predictions, values, names=names, seed=0).as_dict()
    area = metrics["verification_auc"]
    assert area["value"] == pytest.approx(roc_auc_score(true, scores))
    assert area["low"] < area["value"] < area["high"]
    wrong = np.sort([score for score, same in zip(scores, true, strict=True) if not same])
    threshold = wrong[int(np.ceil(0.99 * len(wrong))) - 1]
    accepted = np.mean([score > threshold for score, same in zip(scores, true, strict=True) if same])
    assert metrics["accepted_at_0.01"]["value"] == pytest.approx(accepted, abs=0.02)
    assert "accepted_at_0.001" not in metrics, "1,650 pairs are too few for it"


def test_nothing_to_measure() -> None:
    metrics = task.evaluate([], [], names=["A"], seed=0).as_dict()
    assert metrics["identification"]["value"] is None
    assert metrics["verification_auc"]["value"] is None
