import numpy as np
import pytest

from keepsight.errors import BadInputError
from keepsight.monitoring.units import UnitFilter


def scene(number: int, jitter: float = 0.0) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    rng = np.random.default_rng(number)
    return rng.normal(size=64) + jitter * np.random.default_rng(number + 10_000).normal(size=64)


def test_one_source_counts_once_in_ten_seconds() -> None:
    units = UnitFilter()
    passed = [units.admit(scene(i), at_s=float(i), source="till") for i in range(31)]
    assert [i for i, ok in enumerate(passed) if ok] == [0, 10, 20, 30]


def test_two_sources_and_unnamed_ones_do_not_wait_for_each_other() -> None:
    units = UnitFilter()
    assert units.admit(scene(1), at_s=0.0, source="a")
    assert units.admit(scene(2), at_s=0.1, source="b")
    assert units.admit(scene(3), at_s=0.2)
    assert units.admit(scene(4), at_s=0.3)
    assert not units.admit(scene(5), at_s=0.4, source="a")


def test_near_duplicates_count_once_whatever_their_scale_and_time() -> None:
    units = UnitFilter()
    assert units.admit(scene(1), at_s=0.0)
    assert not units.admit(3 * scene(1, 0.05), at_s=5000.0, source="a")
    assert units.admit(scene(1, 0.5), at_s=6000.0)


def test_a_scene_older_than_the_window_counts_again() -> None:
    units = UnitFilter(window=3)
    for i in range(4):
        assert units.admit(scene(i), at_s=0.0)
    assert not units.admit(scene(1), at_s=0.0)
    assert units.admit(scene(0), at_s=0.0)


def test_a_restored_filter_goes_on_exactly() -> None:
    rng = np.random.default_rng(1)
    events = [(scene(int(rng.integers(40)), 0.05), float(i), f"camera {rng.integers(5)}") for i in range(200)]
    whole, first = UnitFilter(window=8), UnitFilter(window=8)
    expected = [whole.admit(x, at_s=t, source=s) for x, t, s in events]
    assert 20 < sum(expected) < 180
    for x, t, s in events[:77]:
        first.admit(x, at_s=t, source=s)
    second = UnitFilter.restore(first.state())
    assert [second.admit(x, at_s=t, source=s) for x, t, s in events[77:]] == expected[77:]
    assert UnitFilter.restore(UnitFilter().state()).admit(scene(1), at_s=0.0)


def test_features_of_another_bundle_are_refused() -> None:
    units = UnitFilter()
    units.admit(scene(1), at_s=0.0)
    for wrong in (scene(1)[:10], scene(1) * np.nan, np.zeros((2, 64))):
        with pytest.raises(BadInputError, match="Features of shape"):
            units.admit(wrong, at_s=0.0)


def test_a_damaged_state_is_refused() -> None:
    with pytest.raises(BadInputError, match="monitoring state"):
        UnitFilter.restore(b"no archive")


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(BadInputError, match="unit filter"):
        UnitFilter(window=0)
