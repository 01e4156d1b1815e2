"""Labels in one form, figures as scikit-learn has them, each with an interval."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keepsight import tasks
from keepsight.errors import AnnotationError, NotFoundError
from keepsight.tasks import classification


def predictions(
    *, n: int = 400, k: int = 6, seed: int = 0, sharp: float = 2.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Calibrated probabilities and labels drawn from them."""
    random = np.random.default_rng(seed)
    logits = sharp * random.normal(size=(n, k))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return shares, labels.astype(np.int64)


def names(k: int) -> list[str]:
    return [f"class {number}" for number in range(k)]


def test_tasks_are_found_by_name() -> None:
    assert "classification" in tasks.names()
    assert not {"intervals", "reliability"} & set(tasks.names())
    assert tasks.get("classification").parse("apple") == {"label": "apple"}
    with pytest.raises(NotFoundError, match="classification"):
        tasks.get("classificaton")
    with pytest.raises(NotFoundError):
        tasks.get("intervals")


@pytest.mark.parametrize("raw", ["apple", {"label": "apple"}, {"label": " apple ", "confidence": 0.4}, "\tapple\n"])
def test_labels_come_in_many_forms(raw: Any) -> None:
    assert classification.parse(raw) == {"label": "apple"}


def test_equal_looking_labels_are_equal() -> None:
    assert classification.canonical({"label": "Cafe\u0301  au lait"}) == {"label": "Caf\u00e9 au lait"}


@pytest.mark.parametrize("raw", ["", "   ", None, 7, {"label": None}, {"labels": ["a"]}, ["a"], "x" * 201, "a\x00b"])
def test_what_is_no_label_is_refused(raw: Any) -> None:
    with pytest.raises(AnnotationError) as caught:
        classification.parse(raw)
    assert caught.value.expected
    assert caught.value.do


def test_an_unknown_class_names_the_nearest() -> None:
    classification.validate({"label": "apple"}, ["apple", "pear"])
    with pytest.raises(AnnotationError, match='Did you mean "pear"'):
        classification.validate({"label": "paer"}, ["apple", "pear"])
    with pytest.raises(AnnotationError, match="none yet"):
        classification.validate({"label": "pear"}, [])


def test_close_decisions_are_uncertain() -> None:
    def said(first: float, *others: float) -> float:
        alternatives = [{"label": str(place), "confidence": share} for place, share in enumerate(others)]
        return classification.uncertainty({"label": "a", "confidence": first, "alternatives": alternatives})

    assert said(0.5, 0.5) == 1
    assert said(1.0, 0.0) == 0
    assert said(0.6, 0.3, 0.1) > said(0.6, 0.2, 0.2)
    assert classification.uncertainty({"label": "a", "confidence": 0.9}) == pytest.approx(0.1)


def test_figures_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

    shares, labels = predictions(n=300)
    found = classification.measure(shares, labels, names=names(6), seed=0)
    told = shares.argmax(axis=1)
    assert found.accuracy.value == pytest.approx(accuracy_score(labels, told))
    assert np.array_equal(found.confusion, confusion_matrix(labels, told))
    each = precision_recall_fscore_support(labels, told)
    mean = precision_recall_fscore_support(labels, told, average="macro")
    for number, name in enumerate(found.names):
        figures = found.per_class[name]
        wanted = [column[number] for column in each]
        assert [figures.precision.value, figures.recall.value, figures.f1.value, figures.support] == pytest.approx(
            wanted
        )
    assert [found.precision.value, found.recall.value, found.f1.value] == pytest.approx(mean[:3])


def test_each_figure_lies_in_its_interval_and_it_all_is_json() -> None:
    shares, labels = predictions(n=120, k=9)
    groups = np.arange(120) // 3
    found = classification.measure(shares, labels, names=names(9), groups=groups, seed=0)
    told = json.loads(json.dumps(found.as_dict()))
    intervals = [told[name] for name in ("accuracy", "precision", "recall", "f1", "ece")]
    intervals += [row[name] for row in told["per_class"].values() for name in ("precision", "recall", "f1")]
    for interval in intervals:
        assert set(interval) == {"value", "low", "high", "n"}
        if interval["value"] is not None:
            assert 0 <= interval["low"] <= interval["value"] <= interval["high"] <= 1
    assert told["accuracy"]["low"] < told["accuracy"]["high"]


def test_classes_without_pictures_are_named() -> None:
    shares, labels = predictions(n=50, k=4)
    found = classification.measure(shares[labels != 2], labels[labels != 2], names=names(4), seed=0)
    assert found.absent == ("class 2",)
    assert found.per_class["class 2"].recall.value is None
    # The mean is over the classes that are there.
    recalls = [row.recall.value for name, row in found.per_class.items() if name != "class 2"]
    assert found.recall.value == pytest.approx(np.mean([value for value in recalls if value is not None]))


def test_five_right_answers_do_not_prove_perfection() -> None:
    shares = np.eye(2)[[0] * 5 + [1] * 5]
    found = classification.measure(shares, np.repeat([0, 1], 5), names=["a", "b"], seed=0)
    assert found.per_class["a"].f1.value == 1
    assert found.per_class["a"].f1.low < 0.8
    assert found.accuracy.low < 0.8


def test_photos_of_one_shelf_widen_the_intervals() -> None:
    shares, labels = predictions(n=150)
    repeated = classification.measure(
        shares.repeat(4, axis=0), labels.repeat(4), names=names(6), groups=np.arange(150).repeat(4), seed=0
    )
    once = classification.measure(shares, labels, names=names(6), seed=0)
    for name in ("accuracy", "recall", "f1"):
        wide, plain = getattr(repeated, name), getattr(once, name)
        assert wide.value == pytest.approx(plain.value)
        assert wide.high - wide.low == pytest.approx(plain.high - plain.low, rel=0.25)


def test_intervals_of_calibrated_models_reach_down_to_no_error() -> None:
    shares, labels = predictions(n=2000, seed=5)
    ece = classification.measure(shares, labels, names=names(6), seed=0).ece
    assert ece.low < 0.02
    wrong = np.roll(labels, 1)
    assert classification.measure(shares, wrong, names=names(6), seed=0).ece.low > 0.3


def test_the_bootstrap_repeats() -> None:
    shares, labels = predictions(n=80)
    one, two = (classification.measure(shares, labels, names=names(6), seed=4).as_dict() for _ in range(2))
    assert one == two


def test_no_pictures_give_no_figures_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification.measure(np.zeros((0, 3)), np.zeros(0, np.int64), names=names(3), seed=0)
    assert found.accuracy.value is None
    assert len(found.absent) == 3
    json.dumps(found.as_dict())
