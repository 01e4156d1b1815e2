import json
import math

import numpy as np
import pytest

from keepsight.errors import BadInputError
from keepsight.monitoring.latency import HIGHEST_MS, LOWEST_MS, LatencyHistogram


def filled(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> LatencyHistogram:
    histogram = LatencyHistogram()
    for value in values:
        histogram.observe(float(value))
    return histogram


@pytest.mark.parametrize("spread", [0.01, 0.5, 2.0])
@pytest.mark.parametrize("percent", [1, 50, 95, 99, 100])
def test_percentiles_are_within_five_percent(spread: float, percent: int) -> None:
    values = np.exp(np.random.default_rng(3).normal(math.log(20), spread, 5000))
    exact = np.percentile(values, percent, method="inverted_cdf")
    measured = filled(values).percentile(percent)
    assert measured is not None
    assert abs(measured / exact - 1) <= 0.05


def test_a_value_on_each_bucket_edge_is_within_five_percent() -> None:
    for index in range(1, 7 * 24):
        value = 0.1 * 10 ** (index / 24)
        measured = filled(np.array([value])).percentile(50)
        assert measured is not None
        assert abs(measured / value - 1) <= 0.05


def test_nothing_measured_has_no_percentiles() -> None:
    assert LatencyHistogram().summary() == {"count": 0, "mean_ms": None, "p50_ms": None, "p95_ms": None, "p99_ms": None}


def test_values_outside_the_range_count_at_the_ends() -> None:
    histogram = filled(np.array([0.0, 0.01, 5e9]))
    assert histogram.percentile(50) == LOWEST_MS
    assert histogram.percentile(100) == HIGHEST_MS
    assert histogram.count == 3


def test_two_servers_add_up_to_one() -> None:
    values = np.random.default_rng(5).exponential(30, 2000)
    both = filled(values[:700]).merge(filled(values[700:]))
    together = filled(values)
    assert both.summary() == pytest.approx(together.summary())
    assert both.prometheus_buckets() == together.prometheus_buckets()


def test_prometheus_buckets_count_exactly_and_end_at_infinity() -> None:
    values = np.random.default_rng(6).exponential(30, 2000)
    buckets = filled(values).prometheus_buckets()
    assert buckets[-1] == (math.inf, 2000)
    assert [le for le, _ in buckets] == sorted({le for le, _ in buckets})
    exact = {0.001, 0.01, 0.1, 1.0, 10.0}
    assert exact < {le for le, _ in buckets}
    for le, count in buckets:
        if le in exact:
            assert count == int((values <= le * 1000).sum())


def test_an_edge_belongs_to_the_bucket_that_it_ends() -> None:
    counts = dict(filled(np.array([10.0, 100.0, 1000.0])).prometheus_buckets())
    assert (counts[0.01], counts[0.1], counts[1.0]) == (1, 2, 3)


def test_state_survives_json() -> None:
    histogram = filled(np.random.default_rng(7).exponential(30, 500))
    restored = LatencyHistogram.restore(json.loads(json.dumps(histogram.state())))
    assert restored.summary() == histogram.summary()
    assert restored.state() == histogram.state()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"scale": [1, 2, 3], "counts": {}, "sum_ms": 0},
        {"scale": [0.1, 7, 24], "counts": {"999": 1}, "sum_ms": 0},
        {"scale": [0.1, 7, 24], "counts": {"1": -1}, "sum_ms": 0},
        {"scale": [0.1, 7, 24], "counts": 5, "sum_ms": 0},
    ],
)
def test_a_state_that_is_none_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(BadInputError, match="latency histogram"):
        LatencyHistogram.restore(state)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_latency_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(BadInputError, match="latency of"):
        LatencyHistogram().observe(value)


def test_a_percentile_beyond_100_is_refused() -> None:
    with pytest.raises(BadInputError, match="Percentile 101"):
        LatencyHistogram().percentile(101)
