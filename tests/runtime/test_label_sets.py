"""Answers that are sets of labels: chances, thresholds, and how sure the whole is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from keepsight.errors import BundleError
from keepsight.runtime import label_sets
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.outputs import moderation, multilabel
from keepsight.runtime.preprocess import Preprocessing

INFO = BundleInfo(
    task="moderation",
    labels=("plate", "person", "logo"),
    preprocessing=Preprocessing(size=8),
    created_at="2026-01-01T00:00:00+00:00",
    thresholds={"auto": 0.9, "label person": 0.2},
)


def logits(*rows: tuple[float, ...]) -> dict[str, np.ndarray]:
    shares = np.array(rows)
    return {"logits": np.log(shares / (1 - shares)).astype(np.float32)}


def test_a_label_is_given_from_its_own_threshold_on() -> None:
    (answer,) = moderation.decode(logits((0.3, 0.3, 0.7)), info=INFO, top_k=5)
    assert answer.label == "logo, person"
    assert answer.action == "block"
    assert [flag.label for flag in answer.flags] == ["logo", "person"]
    assert answer.flags[1].threshold == 0.2
    assert answer.confidence == pytest.approx(0.7 * 0.3 * 0.7)
    assert json.loads(json.dumps(answer.as_dict()))["alternatives"] == [
        {"label": "plate", "confidence": pytest.approx(0.3, abs=1e-6), "threshold": 0.5}
    ]


def test_no_flag_means_allowed_and_is_as_sure_as_the_absence_of_each() -> None:
    (answer,) = moderation.decode(logits((0.1, 0.1, 0.1)), info=INFO, top_k=2)
    assert (answer.label, answer.action) == ("allowed", "allow")
    assert answer.confidence == pytest.approx(0.9**3)
    assert len(answer.alternatives) == 2


def test_where_errors_come_together_the_least_sure_label_decides() -> None:
    info = replace(INFO, thresholds={"together": 1.0})
    (answer,) = moderation.decode(logits((0.1, 0.2, 0.1)), info=info, top_k=5)
    assert answer.confidence == pytest.approx(0.8)


def test_given_labels_are_listed_however_few_are_asked_for() -> None:
    (answer,) = multilabel.decode(logits((0.9, 0.8, 0.7)), info=INFO, top_k=1)
    assert answer.label == "logo, person, plate"
    assert answer.alternatives == ()
    (nothing,) = multilabel.decode(logits((0.1, 0.1, 0.1)), info=INFO, top_k=1)
    assert nothing.label == "(none)"


def test_all_combinations_are_counted_while_they_are_few() -> None:
    assert moderation.summaries(replace(INFO, labels=("b", "a"))) == ("allowed", "a", "b", "a, b")
    assert moderation.summaries(replace(INFO, labels=tuple("abcde"))) == ()


def test_chances_are_exact_at_the_ends() -> None:
    found = label_sets.chances(np.array([-800.0, -36.0, 0.0, 36.0, 800.0]))
    assert found[2] == 0.5
    assert 0 == found[0] < found[1] < 1e-15
    assert found[-1] == 1.0


@pytest.mark.parametrize("tensor", [np.zeros((1, 2), np.float32), np.full((1, 3), np.nan, np.float32)])
def test_logits_that_do_not_fit_are_refused(tensor: np.ndarray) -> None:
    with pytest.raises(BundleError):
        moderation.decode({"logits": tensor}, info=INFO, top_k=5)
