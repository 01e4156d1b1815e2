import json

import numpy as np
import pytest

from keepsight.errors import BadInputError
from keepsight.monitoring.accuracy import AccuracyMonitor, Verdict, estimate


def audits(right: int, wrong: int, probability: float = 0.05) -> list[Verdict]:
    return [Verdict(True, "audit", probability)] * right + [Verdict(False, "audit", probability)] * wrong


def test_before_the_first_audit_nothing_is_known() -> None:
    unknown = estimate([Verdict(None, "audit", 0.05)] * 3 + [Verdict(True, "feedback", 1.0)] * 50)
    assert (unknown.value, unknown.low, unknown.high) == (None, 0.0, 1.0)
    assert (unknown.n_answered, unknown.n_unanswered) == (0, 3)


def test_the_interval_is_wilsons() -> None:
    # Newcombe (1998), table I: 81 of 263, method 3.
    measured = estimate(audits(81, 263 - 81))
    assert measured.value == pytest.approx(81 / 263)
    assert measured.low == pytest.approx(0.2553, abs=5e-5)
    assert measured.high == pytest.approx(0.3662, abs=5e-5)


def test_customers_who_report_nothing_but_errors_leave_it_unmoved() -> None:
    before = estimate(audits(90, 10))
    complaints = [Verdict(False, "feedback", 1.0)] * 500
    queue = [Verdict(False, "uncertain", 1.0), Verdict(True, "risky", 1.0)] * 50
    assert estimate(complaints + audits(90, 10) + queue) == before


def test_customers_who_report_nothing_but_errors_raise_no_alarm() -> None:
    monitor = AccuracyMonitor(release_accuracy=0.9)
    before = monitor.current()
    for _ in range(500):
        assert monitor.update(Verdict(False, "feedback", 1.0)) == before


def test_a_rarely_audited_slice_counts_with_its_full_traffic() -> None:
    # 900 of 1,000 pictures by day are right, 100 of 1,000 by night; nights are audited ten times as often.
    verdicts = audits(90, 10, 0.1) + audits(100, 900, 1.0)
    measured = estimate(verdicts)
    assert measured.value == pytest.approx(0.5)
    assert measured.low < 0.5 < measured.high
    # The 100 daytime audits carry half of the weight, so the interval is wider than that of 1,100 equal audits.
    assert measured.high - measured.low > 1.5 * 2 * 1.96 * np.sqrt(0.25 / 1100)


def test_unanswered_audits_widen_the_interval_to_both_sides() -> None:
    verdicts = audits(90, 10)
    missing = [Verdict(None, "audit", 0.05)] * 25
    known, partly = estimate(verdicts), estimate(verdicts + missing)
    assert partly.value == known.value
    assert partly.low < 90 / 125 < known.low
    assert partly.high > 115 / 125 > known.value  # type: ignore[operator]
    assert partly.n_unanswered == 25


@pytest.mark.parametrize("accuracy", [0.7, 0.93])
def test_the_interval_covers_the_truth_with_unequal_probabilities(accuracy: float) -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(400):
        share = np.where(rng.random(2000) < 0.3, 0.3, 0.05)
        drawn = share[rng.random(2000) < share]
        right = rng.random(drawn.size) < accuracy
        measured = estimate(Verdict(bool(ok), "audit", float(p)) for ok, p in zip(right, drawn, strict=True))
        covered += measured.low <= accuracy <= measured.high
    # Three standard errors below 95 %.
    assert covered / 400 > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize("probability", [0.0, -0.1, 1.5, float("nan")])
def test_an_audit_without_a_usable_probability_is_refused(probability: float) -> None:
    with pytest.raises(BadInputError, match="inclusion probability"):
        estimate([Verdict(True, "audit", probability)])


def test_an_unknown_reason_of_selection_is_refused() -> None:
    with pytest.raises(BadInputError, match="selected by"):
        estimate([Verdict(True, "mood", 1.0)])  # type: ignore[arg-type]


def run(monitor: AccuracyMonitor, right: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> int | None:
    for ok in right:
        state = monitor.update(Verdict(bool(ok), "audit", 1.0))
        if state.alarm:
            return state.alarmed_at
    return None


def test_false_alarms_stay_below_alpha_at_the_threshold_itself() -> None:
    rng = np.random.default_rng(12)
    alarms = sum(
        run(AccuracyMonitor(release_accuracy=0.9, tolerance=0.05, alpha=0.05), rng.random(600) < 0.85) is not None
        for _ in range(200)
    )
    # At most 5 % of 200, and 10 more is beyond three standard errors.
    assert alarms <= 20


def test_a_fall_is_found_early_and_after_a_long_good_time() -> None:
    rng = np.random.default_rng(13)
    early, late = [], []
    for _ in range(20):
        early.append(run(AccuracyMonitor(release_accuracy=0.9), rng.random(400) < 0.6))
        good = rng.random(1000) < 0.9
        found = run(AccuracyMonitor(release_accuracy=0.9), np.concatenate([good, rng.random(400) < 0.6]))
        late.append(None if found is None else found - 1000)
    assert None not in early
    assert None not in late
    assert np.median(np.array(early, float)) <= 60
    assert np.median(np.array(late, float)) <= 90


def test_an_alarm_stays() -> None:
    monitor = AccuracyMonitor(release_accuracy=0.9)
    at = run(monitor, np.zeros(100, bool))
    for _ in range(300):
        state = monitor.update(Verdict(True, "audit", 1.0))
    assert state.alarm
    assert state.alarmed_at == at
    assert state.evidence < state.limit


def test_over_audited_errors_raise_no_alarm_by_their_number() -> None:
    # Traffic is right in 95 %; the part where it is right in half is audited ten times as often.
    rng = np.random.default_rng(14)
    monitor = AccuracyMonitor(release_accuracy=0.95, tolerance=0.05, audit_share=0.1)
    for _ in range(20_000):
        hard = rng.random() < 0.08
        probability = 1.0 if hard else 0.1
        if rng.random() < probability:
            monitor.update(Verdict(bool(rng.random() < (0.5 if hard else 0.99)), "audit", probability))
    assert not monitor.current().alarm


def test_a_restored_monitor_goes_on_exactly() -> None:
    right = np.random.default_rng(15).random(120) < 0.75
    whole, first = AccuracyMonitor(release_accuracy=0.9), AccuracyMonitor(release_accuracy=0.9)
    for ok in right[:50]:
        whole.update(Verdict(bool(ok), "audit", 1.0))
        first.update(Verdict(bool(ok), "audit", 1.0))
    second = AccuracyMonitor.restore(json.loads(json.dumps(first.state())))
    for ok in right[50:]:
        verdict = Verdict(bool(ok), "audit", 1.0)
        assert second.update(verdict) == whole.update(verdict)


@pytest.mark.parametrize("settings", [{"release_accuracy": 0.04}, {"release_accuracy": 1.2}, {"audit_share": 0.0}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(BadInputError, match="accuracy alarm"):
        AccuracyMonitor(**{"release_accuracy": 0.9, **settings})


def test_an_audit_share_lowered_behind_the_monitors_back_is_refused() -> None:
    with pytest.raises(BadInputError, match="below the monitor's"):
        AccuracyMonitor(release_accuracy=0.9, audit_share=0.05).update(Verdict(True, "audit", 0.01))


def test_a_state_that_is_none_is_refused() -> None:
    state = AccuracyMonitor(release_accuracy=0.9).state()
    for broken in ({}, {**state, "capital": [[1.0]]}, {**state, "log_scale": "x"}):
        with pytest.raises(BadInputError, match="accuracy monitor"):
            AccuracyMonitor.restore(broken)
