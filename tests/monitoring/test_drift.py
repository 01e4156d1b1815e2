import io
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from keepsight.errors import BadInputError, BundleError, ConflictError, DataError
from keepsight.monitoring.betting import PRIOR, Bets, fixed_densities
from keepsight.monitoring.conformal import Ranks, bins_of, uniforms
from keepsight.monitoring.drift import DriftBudget, DriftMonitor, DriftState, Figures, Reference

CLASSES = 12
DIMENSIONS = 96


@cache
def world() -> tuple["np.ndarray[tuple[int, int], np.dtype[np.float64]]", ...]:
    """Class centres and a mixing matrix: 96 features around 12 centres, correlated as a network's are."""
    rng = np.random.default_rng(0)
    return rng.gamma(0.5, 1.0, (CLASSES, DIMENSIONS)), rng.normal(0, 0.12, (24, DIMENSIONS))


def pictures(
    rng: np.random.Generator,
    count: int,
    *,
    darker: float = 1.0,
    along: float = 0.0,
    classes: tuple[int, ...] = tuple(range(CLASSES)),
    doubt: float = 0.0,
) -> Figures:
    centres, mixing = world()
    predicted = rng.choice(np.array(classes), count)
    features = centres[predicted] + rng.normal(0, 1, (count, 24)) @ mixing + rng.normal(0, 0.03, (count, DIMENSIONS))
    # Half a standard deviation in each of twelve of the 24 ways in which pictures differ anyway.
    features += along * 0.5 * mixing[:12].sum(axis=0)
    quality = np.column_stack(
        [rng.lognormal(6, 0.6, count), darker * rng.normal(120, 25, count), rng.normal(50, 10, count)]
    )
    confidence = 1 / (1 + np.exp(-rng.normal(2.5 - doubt, 1, count)))
    return Figures(features.astype(np.float32), quality, confidence, predicted)


@cache
def fitted() -> Reference:
    rng = np.random.default_rng(1)
    return Reference.build(pictures(rng, 400), pictures(rng, 150), classes=CLASSES, seed=0)


def reference(rng: np.random.Generator, count: int = 150) -> Reference:
    return fitted().with_heldout(pictures(rng, count))


def watch(monitor: DriftMonitor, stream: Figures) -> list[DriftState]:
    return [
        monitor.update(
            stream.features[i],
            stream.quality[i],
            confidence=float(stream.confidence[i]),
            predicted=int(stream.predicted[i]),
        )
        for i in range(len(stream))
    ]


@cache
def quadrature() -> tuple["np.ndarray[tuple[int], np.dtype[np.float64]]", ...]:
    """Points and weights on (0, 1) that integrate bets with poles at both ends: p = t^5 / 2, mirrored."""
    t = (np.arange(20_000) + 0.5) / 20_000
    half, weight = t**5 / 2, 2.5 * t**4 / t.size
    return np.concatenate([half, np.minimum(1 - half, 1 - 2.0**-53)]), np.concatenate([weight, weight])


def test_each_fixed_bet_pays_one_on_average() -> None:
    p, weight = quadrature()
    np.testing.assert_allclose(weight @ fixed_densities(p), 1.0, atol=2e-3)
    assert PRIOR.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("restarting", [False, True])
def test_whatever_came_before_the_next_unit_pays_one_on_average(restarting: bool) -> None:
    p, weight = quadrature()
    for past in ([], [0.5], [0.01] * 30, list(np.random.default_rng(2).random(60)), [0.2, 0.9] * 40):
        one, many = Bets(np.array([restarting])), Bets(np.full(p.size, restarting))
        before = 0.0
        for value in past:
            before = float(np.exp(one.step(np.array([value]))[0]))
        many.load({name: np.repeat(array, p.size, axis=0) for name, array in one.arrays().items()})
        after = float(weight @ np.exp(many.step(p)))
        # A restarting bettor adds one unit of capital before each bet: an e-detector; the other is a martingale.
        assert after == pytest.approx(before + 1.0 if restarting else before if past else 1.0, rel=2e-3)


def test_p_values_are_uniform_whatever_the_scores_and_ties() -> None:
    rng = np.random.default_rng(3)
    streams, found = 400, []
    ranks = Ranks(streams)
    for row in range(streams):
        ranks.fill(row, bins_of(rng.poisson(2.0, 12).astype(float)))
    for index in range(30):
        found.append(ranks.add(bins_of(rng.poisson(2.0, streams).astype(float)), uniforms(4, index, streams)))
    p = np.array(found)
    counts = np.histogram(p, 20, (0, 1))[0]
    # Chi-squared with 19 degrees of freedom: 43.8 is its 99.9 % point.
    assert ((counts - p.size / 20) ** 2 / (p.size / 20)).sum() < 43.8
    assert abs(np.corrcoef(p[:-1].ravel(), p[1:].ravel())[0, 1]) < 4 / np.sqrt(p.size)


@pytest.mark.parametrize("budget", [DriftBudget(alpha=0.05), DriftBudget("arl", one_in=1200)])
def test_quiet_streams_raise_no_more_false_alarms_than_the_budget(budget: DriftBudget) -> None:
    # Both budgets allow at most 5 % within these 120 units: alpha, or 120 / (2 * 1,200). 200 streams in all.
    rng = np.random.default_rng(5)
    alarms = 0
    for index in range(100):
        monitor = DriftMonitor(reference(rng, 40), seed=index, budget=budget)
        alarms += watch(monitor, pictures(rng, 120))[-1].alarm
    # The 99.9 % point of a binomial of 100 at 5 %.
    assert alarms <= 13


CHANGES = {
    "darker": ({"darker": 0.7}, "pictures are darker than usual", 35),
    "less sure": ({"doubt": 2.0}, "the model is less sure than usual", 25),
    "fewer classes": ({"classes": (0, 5, 11)}, "the mix of predicted classes changed", 60),
    "another lens": ({"along": 1.0}, "pictures differ from the reference in one consistent way", 60),
}


@pytest.mark.parametrize("mode", ["ever", "arl"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_soon_and_named(name: str, mode: str) -> None:
    change, words, within = CHANGES[name]
    delays, told = [], []
    for index in range(5):
        rng = np.random.default_rng([6, index])
        budget = DriftBudget("arl" if mode == "arl" else "ever", one_in=5000)
        monitor = DriftMonitor(reference(rng, 200), seed=index, budget=budget)
        assert not watch(monitor, pictures(rng, 60))[-1].alarm
        state = watch(monitor, pictures(rng, 120, **change))[-1]  # type: ignore[arg-type]
        assert state.alarmed_at is not None
        delays.append(state.alarmed_at - 60)
        told.append([why.text for why in monitor.explain()])
    assert np.median(delays) <= within
    assert sum(words in texts[:2] for texts in told) >= 4, told


def test_an_alarm_stays_and_its_shares_add_up() -> None:
    rng = np.random.default_rng(7)
    monitor = DriftMonitor(reference(rng), seed=1)
    at = watch(monitor, pictures(rng, 40, darker=0.5))[-1].alarmed_at
    state = watch(monitor, pictures(rng, 300))[-1]
    assert state.alarm
    assert state.alarmed_at == at
    assert monitor.current() == state
    reasons = monitor.explain()
    assert 0.5 < sum(why.share for why in reasons) <= 1.0
    assert [why.share for why in reasons] == sorted((why.share for why in reasons), reverse=True)


def test_brighter_and_darker_are_told_apart() -> None:
    rng = np.random.default_rng(8)
    monitor = DriftMonitor(reference(rng), seed=1)
    watch(monitor, pictures(rng, 40, darker=1.5))
    assert monitor.explain()[0].text == "pictures are brighter than usual"


def test_a_new_monitor_has_nothing_to_tell() -> None:
    monitor = DriftMonitor(fitted(), seed=1)
    assert monitor.explain() == []
    state = monitor.current()
    assert (state.units, state.alarm, state.alarmed_at, state.progress) == (0, False, None, 0.0)


@pytest.mark.parametrize("mode", ["ever", "arl"])
def test_a_restored_monitor_goes_on_exactly(mode: str) -> None:
    rng = np.random.default_rng(9)
    budget = DriftBudget("arl" if mode == "arl" else "ever")
    stream = pictures(rng, 90, along=0.5)
    whole, first = (DriftMonitor(fitted(), seed=5, budget=budget) for _ in range(2))
    expected = watch(whole, stream)
    watch(first, stream.rows(np.arange(41)))
    second = DriftMonitor.restore(first.state(), Reference.from_arrays(fitted().to_arrays()))
    assert watch(second, stream.rows(np.arange(41, 90))) == expected[41:]
    assert second.explain() == whole.explain()
    assert second.state() == whole.state()


def test_a_state_does_not_grow_with_the_stream() -> None:
    rng = np.random.default_rng(10)
    monitor = DriftMonitor(fitted(), seed=5)
    watch(monitor, pictures(rng, 200))
    early = len(monitor.state())
    watch(monitor, pictures(rng, 800))
    assert len(monitor.state()) < 1.5 * early


def test_a_state_of_another_reference_is_refused() -> None:
    state = DriftMonitor(fitted(), seed=5).state()
    other = reference(np.random.default_rng(11))
    with pytest.raises(ConflictError, match="another reference"):
        DriftMonitor.restore(state, other)


@pytest.mark.parametrize("cut", [0, 10, 500])
def test_a_damaged_state_is_refused(cut: int) -> None:
    with pytest.raises(BadInputError, match="monitoring state"):
        DriftMonitor.restore(DriftMonitor(fitted(), seed=5).state()[:cut], fitted())


def test_a_bad_unit_is_refused_and_leaves_the_state_as_it_was() -> None:
    monitor = DriftMonitor(fitted(), seed=5)
    good = pictures(np.random.default_rng(12), 1)
    watch(monitor, good)
    before = monitor.state()
    features, quality = good.features[0], good.quality[0]
    for vector, figures, confidence, predicted in (
        (features[:5], quality, 0.5, 0),
        (features, quality[:1], 0.5, 0),
        (features * np.nan, quality, 0.5, 0),
        (features, quality, float("nan"), 0),
        (features, quality, 0.5, CLASSES),
        (features, quality, 0.5, -1),
    ):
        with pytest.raises(BadInputError):
            monitor.update(vector, figures, confidence=confidence, predicted=predicted)
    assert monitor.state() == before


def test_a_reference_survives_a_file_without_pickle() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **fitted().to_arrays())  # type: ignore[arg-type]
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as arrays:
        again = Reference.from_arrays(dict(arrays))
    assert again.digest == fitted().digest
    assert again.quality_names == ("blur", "brightness", "contrast")


def test_a_reference_of_600_pictures_of_1280_features_is_below_two_megabytes() -> None:
    rng = np.random.default_rng(13)

    def wide(count: int) -> Figures:
        return replace(pictures(rng, count), features=rng.gamma(0.5, 1.0, (count, 1280)).astype(np.float32))

    built = Reference.build(wide(700), wide(600), classes=CLASSES, seed=0)
    assert sum(array.nbytes for array in built.to_arrays().values()) < 2_000_000


def test_building_twice_gives_the_same_reference() -> None:
    rng = np.random.default_rng(1)
    again = Reference.build(pictures(rng, 400), pictures(rng, 150), classes=CLASSES, seed=0)
    assert again.digest == fitted().digest


def test_an_erased_picture_leaves_the_reference() -> None:
    rng = np.random.default_rng(14)
    made = fitted().with_heldout(pictures(rng, 20), keys=[f"s{i}" for i in range(20)])
    less = made.without({"s3", "s19", "unknown"})
    assert less.keys == tuple(f"s{i}" for i in range(20) if i not in (3, 19))
    np.testing.assert_array_equal(less.heldout, np.delete(made.heldout, [3, 19], axis=0))
    assert made.without({"unknown"}) is made
    with pytest.raises(ConflictError, match="which sample"):
        fitted().without({"s3"})


def test_normalised_constant_features_and_few_pictures_are_no_drift() -> None:
    # Rounding noise in a figure that is constant must not look like a change, nor a tiny training set.
    rng = np.random.default_rng(15)

    def unit(count: int, dtype: type) -> Figures:
        made = pictures(rng, count)
        features = made.features / np.linalg.norm(made.features.astype(dtype), axis=1, keepdims=True)
        return replace(made, features=features.astype(np.float32), quality=np.full((count, 3), 7.0))

    for index in range(5):
        built = Reference.build(unit(20, np.float32), unit(15, np.float32), classes=CLASSES, seed=0)
        monitor = DriftMonitor(built, seed=index)
        assert not watch(monitor, unit(150, np.float64))[-1].alarm


def test_a_figure_that_never_varied_and_now_does_is_found() -> None:
    rng = np.random.default_rng(16)

    def constant(count: int, value: float) -> Figures:
        made = pictures(rng, count)
        return replace(made, quality=np.full((count, 3), value))

    monitor = DriftMonitor(Reference.build(constant(50, 7.0), constant(50, 7.0), classes=CLASSES, seed=0), seed=1)
    assert watch(monitor, constant(40, 9.0))[-1].alarm


def test_own_quality_figures_are_named_in_the_explanation() -> None:
    rng = np.random.default_rng(17)

    def glare(count: int, level: float) -> Figures:
        return replace(pictures(rng, count), quality=rng.normal(level, 1, (count, 1)))

    built = Reference.build(glare(60, 0), glare(60, 0), classes=CLASSES, seed=0, quality_names=["glare"])
    monitor = DriftMonitor(built, seed=1)
    watch(monitor, glare(40, 3))
    assert monitor.explain()[0].text == "glare is higher than usual"


def test_a_thousand_classes_and_a_single_one_work() -> None:
    rng = np.random.default_rng(18)
    for classes in (1, 1500):
        made = [replace(pictures(rng, n), predicted=rng.integers(0, classes, n)) for n in (50, 50, 40)]
        built = Reference.build(made[0], made[1], classes=classes, seed=0)
        assert not watch(DriftMonitor(built, seed=1), made[2])[-1].alarm


def test_too_few_pictures_are_an_error_that_says_so() -> None:
    rng = np.random.default_rng(19)
    with pytest.raises(DataError, match="4 training and 100 held-out"):
        Reference.build(pictures(rng, 4), pictures(rng, 100), classes=CLASSES, seed=0)
    with pytest.raises(DataError, match="new normal"):
        fitted().with_heldout(pictures(rng, 4))


def test_a_broken_reference_is_an_error_that_says_so() -> None:
    arrays = fitted().to_arrays()
    for broken in ({}, {**arrays, "format": np.array(99)}, {**arrays, "heldout": arrays["heldout"][:, 1:]}):
        with pytest.raises(BundleError, match="drift reference"):
            Reference.from_arrays(broken)


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": 1.0}, {"one_in": 0}, {"mode": "never"}])
def test_a_budget_out_of_range_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(BadInputError, match="drift budget"):
        DriftBudget(**settings)  # type: ignore[arg-type]
