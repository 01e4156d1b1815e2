"""The head for sets of labels, its thresholds, and that its graph answers what it computed."""

from __future__ import annotations

import numpy as np
import pytest

from keepsight.runtime.label_sets import chances
from keepsight.runtime.session import open_session
from keepsight.training import label_sets
from keepsight.training.head import normalise
from keepsight.training.onnxhead import merge
from tests import tiny

N, D = 240, 12


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Features in which two labels stand in directions of their own, and a third in none."""
    rng = np.random.default_rng(0)
    present = rng.random((N, 3)) < (0.4, 0.2, 0.3)
    features = rng.normal(0, 1, (N, D)) + 2
    features[:, 0] += 3 * present[:, 0]
    features[:, 1] += 3 * present[:, 1]
    return features.astype(np.float32), present


def fitted(features: np.ndarray, present: np.ndarray) -> label_sets.SetHead:
    return label_sets.fit(
        features,
        present,
        np.arange(len(features)),
        names=[f"label {place}" for place in range(present.shape[1])],
        validation=np.zeros(len(features), bool),
        seed=0,
        on_progress=lambda _share: None,
    )


def test_each_label_is_learned_by_itself_and_its_chance_is_calibrated(rows: tuple[np.ndarray, np.ndarray]) -> None:
    features, present = rows
    head = fitted(features, present)
    assert head.judged.all()
    found = chances(normalise(features, power=head.power) @ head.weight.T + head.bias)
    for place in (0, 1):
        assert ((found[:, place] > 0.5) == present[:, place]).mean() > 0.9
    # Held out, a label that the features do not show is as likely as it is frequent.
    assert abs(head.chances[:, 2].mean() - present[:, 2].mean()) < 0.06
    assert np.ptp(head.chances[:, 2]) < 0.5


def test_a_label_on_all_pictures_or_none_costs_the_others_nothing(rows: tuple[np.ndarray, np.ndarray]) -> None:
    features, present = rows
    stuck = np.column_stack([present[:, 0], np.ones(N, bool), np.zeros(N, bool)])
    head = fitted(features, stuck)
    assert not head.judged[:, 1:].any()
    assert (head.chances[:, 1] > 0.99).all()
    assert (head.chances[:, 2] < 0.01).all()
    np.testing.assert_array_equal(head.weight[0], fitted(features, present[:, :1]).weight[0])


def test_the_graph_answers_the_chances_of_the_head() -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(0, 1, (60, 3, tiny.SIDE, tiny.SIDE)).astype(np.float32)
    features = images.reshape(60, -1)
    head = fitted(features, rng.random((60, 2)) < 0.5)
    session = open_session(merge(tiny.backbone().onnx, head))
    (logits,) = session.run(["logits"], {"image": images})
    np.testing.assert_allclose(logits, normalise(features, power=head.power) @ head.weight.T + head.bias, atol=1e-4)


def test_little_time_means_fewer_axes(rows: tuple[np.ndarray, np.ndarray]) -> None:
    assert label_sets.affordable_axes(3000, 40, seconds=300) == label_sets.FEW_AXES
    assert label_sets.affordable_axes(3000, 4, seconds=300) == label_sets.AXES
    features, present = rows
    few = label_sets.fit(
        features, present[:, :1], np.arange(N), names=["a"], validation=np.zeros(N, bool), seed=0, most_axes=4,
        on_progress=lambda _share: None,
    )  # fmt: skip
    assert few.plan["axes"] == few.plan["labels"]["a"]["rank"] == 4


def test_a_threshold_keeps_the_stated_rate_on_new_pictures() -> None:
    rng = np.random.default_rng(2)
    rates = []
    for _ in range(300):
        held = rng.random(60)
        threshold = label_sets.threshold_for(held, np.zeros(60, bool), rate=0.1)
        rates.append(1 - threshold)
    assert np.mean(rates) <= 0.1
    assert np.mean(rates) > 0.06


def test_a_threshold_lies_in_the_gap_where_there_is_one() -> None:
    held = np.array([0.01, 0.02, 0.03, 0.9, 0.95])
    true = np.array([False, False, False, True, True])
    assert 0.3 < label_sets.threshold_for(held, true, rate=0.05) < 0.4
    # Nothing was found: the flag is raised for what is surer than all harmless pictures.
    assert label_sets.threshold_for(held, ~true, rate=0.05) == pytest.approx(0.95)


def test_a_whole_set_is_right_as_often_as_it_is_said_to_be() -> None:
    rng = np.random.default_rng(3)
    limits = np.full(4, 0.5)
    apart = rng.random((4000, 4)) < 0.2
    together = np.repeat(rng.random((4000, 1)) < 0.2, 4, axis=1)
    shares = np.full((4000, 4), 0.2)
    assert label_sets.togetherness(shares, apart, limits) == pytest.approx(0.0, abs=0.1)
    # All four are right or wrong at once: the chance is 0.8, not 0.8 to the power of 4.
    assert label_sets.togetherness(shares, together, limits) == pytest.approx(1.0, abs=0.1)


def test_the_threshold_for_f1_is_half_of_the_best_f1() -> None:
    rng = np.random.default_rng(4)
    held = rng.random(20_000) ** 3
    true = rng.random(20_000) < held
    found = label_sets.threshold_for_f1(held, true)

    def f1(threshold: float) -> float:
        given = held >= threshold
        return float(2 * (given & true).sum() / (given.sum() + true.sum()))

    best = max(np.linspace(0.05, 0.95, 91), key=f1)
    assert found == pytest.approx(best, abs=0.04)
    assert label_sets.threshold_for_f1(held[:10], np.zeros(10, bool)) == 0.5
