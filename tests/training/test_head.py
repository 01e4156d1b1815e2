"""The head learns, says how sure it is, repeats to the bit, and survives small and odd data sets."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from keepsight.errors import DataError
from keepsight.training.head import Head, Search, fit_head, normalise, softmax

QUICK = Search(shrinkages=(0.3,), strengths=(1e-3, 1e-4))


def pictures(
    *, classes: int, per_class: int, seed: int, spread: float = 1.0, light: float = 3.0, d: int = 48
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Non-negative features: a class's pattern, and light and distance that vary inside classes and tell nothing."""
    fixed = np.random.default_rng(0)
    patterns = fixed.normal(size=(classes, d))
    nuisance = fixed.normal(size=(4, d))
    random = np.random.default_rng(seed)
    labels = np.arange(classes).repeat(per_class)
    raw = patterns[labels] + light * random.normal(size=(len(labels), 4)) @ nuisance
    raw += spread * random.normal(size=raw.shape)
    return np.maximum(raw + 1, 0).astype(np.float32), labels


def accuracy(head: Head, features: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float(np.mean(head.logits(features).argmax(axis=1) == labels))


def test_it_learns_and_beats_what_ignores_the_nuisance() -> None:
    features, labels = pictures(classes=12, per_class=30, seed=1)
    new, truth = pictures(classes=12, per_class=40, seed=2)
    head = fit_head(features, labels, np.arange(len(labels)), n_classes=12, seed=0)
    rows = normalise(features, power=0.5)
    means = np.stack([rows[labels == name].mean(axis=0) for name in range(12)])
    nearest = np.mean(np.argmax(normalise(new, power=0.5) @ means.T - 0.5 * (means**2).sum(1), axis=1) == truth)
    assert accuracy(head, new, truth) > nearest + 0.05
    assert abs(accuracy(head, new, truth) - (head.oof.accuracy or 0)) < 0.08


def test_confidence_is_calibrated_by_held_out_pictures() -> None:
    features, labels = pictures(classes=6, per_class=60, seed=1, spread=2.5)
    new, truth = pictures(classes=6, per_class=300, seed=2, spread=2.5)
    head = fit_head(features, labels, np.arange(len(labels)), n_classes=6, seed=0)
    found = head.probabilities(new)
    assert np.allclose(found.sum(axis=1), 1)
    right = found.argmax(axis=1) == truth
    assert 0.3 < right.mean() < 0.97
    assert (
        abs(found.max(axis=1).mean() - right.mean()) < 0.08
    )  # a little too modest: the refit saw more pictures than the folds did


def test_equal_inputs_give_equal_bits() -> None:
    features, labels = pictures(classes=5, per_class=12, seed=1)
    groups = np.arange(len(labels)) // 2
    one, two = (fit_head(features, labels, groups, n_classes=5, seed=7, search=QUICK) for _ in range(2))
    assert one.weight.tobytes() == two.weight.tobytes()
    assert one.bias.tobytes() == two.bias.tobytes()
    assert one.temperature == two.temperature
    assert one.plan == two.plan


def test_copies_in_other_groups_do_not_make_it_sure() -> None:
    # Labels by chance, each picture three times under three groups: who learns copies by heart is right on them only.
    random = np.random.default_rng(0)
    features = np.abs(random.normal(size=(60, 64))).repeat(3, axis=0).astype(np.float32)
    features += np.float32(0.001) * random.random(features.shape, dtype=np.float32)
    labels = random.integers(0, 2, size=60).repeat(3)
    head = fit_head(features, labels, np.arange(180), n_classes=2, seed=0, search=QUICK)
    assert head.oof.accuracy is not None
    assert head.oof.accuracy < 0.7
    assert head.plan["groups"] == 60


def test_two_classes_and_ten_pictures() -> None:
    features, labels = pictures(classes=2, per_class=5, seed=3, light=0.5, d=400)
    head = fit_head(features, labels, np.arange(10), n_classes=2, seed=0)
    new, truth = pictures(classes=2, per_class=50, seed=4, light=0.5, d=400)
    assert accuracy(head, new, truth) > 0.8
    # Ten right answers are no reason to be certain.
    assert head.probabilities(new).max() < 0.9999


def test_a_class_with_one_picture_and_one_in_a_single_group() -> None:
    features, labels = pictures(classes=5, per_class=10, seed=1, light=0.5)
    kept = np.r_[np.arange(41)]  # the last class has one picture
    groups = np.where(labels == 3, 999, np.arange(50))
    head = fit_head(features[kept], labels[kept], groups[kept], n_classes=5, seed=0, search=QUICK)
    assert not head.oof.judged[labels[kept] >= 3].any()
    assert head.oof.judged[labels[kept] < 3].all()
    assert accuracy(head, features, labels) > 0.8
    new, truth = pictures(classes=5, per_class=20, seed=9, light=0.5)
    assert np.mean(head.logits(new).argmax(axis=1)[truth == 4] == 4) > 0.2


def test_nothing_to_hold_out_still_gives_a_model() -> None:
    features, labels = pictures(classes=3, per_class=1, seed=1)
    head = fit_head(features, labels, np.arange(3), n_classes=3, seed=0)
    assert head.oof.accuracy is None
    assert not head.oof.judged.any()
    assert accuracy(head, features, labels) == 1
    one_group = fit_head(*pictures(classes=3, per_class=8, seed=1), np.zeros(24), n_classes=3, seed=0)
    assert one_group.plan["held_out_by"] == "nothing"


def test_a_class_without_pictures_is_never_the_answer() -> None:
    features, labels = pictures(classes=3, per_class=10, seed=1)
    labels = np.array([0, 2, 3])[labels]
    head = fit_head(features, labels, np.arange(30), n_classes=5, seed=0, search=QUICK)
    assert np.all(head.probabilities(features)[:, [1, 4]] < 1e-30)
    assert np.all(np.isfinite(head.logits(features)))


@pytest.mark.parametrize("n", [0, 4])
def test_one_class_is_an_error(n: int) -> None:
    with pytest.raises(DataError):
        fit_head(np.ones((n, 8), np.float32), np.zeros(n, np.int64), np.arange(n), n_classes=2, seed=0)


def test_features_that_show_nothing_leave_the_frequencies() -> None:
    labels = np.repeat([0, 1], [45, 15])
    head = fit_head(np.ones((60, 16), np.float32), labels, np.arange(60), n_classes=2, seed=0)
    assert head.probabilities(np.ones((1, 16), np.float32))[0, 0] == pytest.approx(0.75, abs=0.08)


def test_a_rare_class_keeps_its_rarity_in_the_confidence() -> None:
    features, labels = pictures(classes=2, per_class=600, seed=1, spread=6.0)
    kept = np.r_[np.arange(600), 600 + np.arange(40)]
    head = fit_head(features[kept], labels[kept], np.arange(640), n_classes=2, seed=0, search=QUICK)
    assert head.prior > 0
    assert head.probabilities(features[kept])[:, 1].mean() == pytest.approx(40 / 640, abs=0.03)


def test_further_views_train_but_are_not_judged() -> None:
    features, labels = pictures(classes=4, per_class=15, seed=1)
    both = np.concatenate([features, features * np.float32(1.1) + np.float32(0.05)])
    first = np.arange(120) < 60
    groups = np.tile(np.arange(60), 2)
    head = fit_head(both, np.tile(labels, 2), groups, n_classes=4, seed=0, search=QUICK, first_view=first)
    assert head.oof.judged[:60].all()
    assert not head.oof.judged[60:].any()
    assert head.plan["pictures"] == 60


def test_a_validation_split_that_shows_half_of_the_classes_is_held_out() -> None:
    features, labels = pictures(classes=4, per_class=20, seed=1)
    validation = np.arange(80) % 5 == 0
    head = fit_head(features, labels, np.arange(80), n_classes=4, seed=0, search=QUICK, validation=validation)
    assert head.plan["held_out_by"] == "validation"
    assert np.array_equal(head.oof.judged, validation)
    for known, held_out_by in ((2, "validation"), (1, "folds")):
        part = validation & (labels < known)
        partly = fit_head(features, labels, np.arange(80), n_classes=4, seed=0, search=QUICK, validation=part)
        assert partly.plan["held_out_by"] == held_out_by


def test_progress_reaches_one_and_can_stop_the_work() -> None:
    features, labels = pictures(classes=3, per_class=8, seed=1)
    shares: list[float] = []
    fit_head(features, labels, np.arange(24), n_classes=3, seed=0, on_progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1

    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_head(features, labels, np.arange(24), n_classes=3, seed=0, on_progress=stop)


def test_normalising_keeps_signs_and_zeros() -> None:
    found = normalise(np.array([[4.0, -9.0, 0.0], [0.0, 0.0, 0.0]]), power=0.5)
    assert np.allclose(found, np.array([[2, -3, 0], [0, 0, 0]]) / np.sqrt(13))
    assert np.allclose(softmax(np.array([1000.0, 1000.0])), 0.5)
