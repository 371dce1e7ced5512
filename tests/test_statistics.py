from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from xentbench import statistics
from xentbench.spec import Comparison


@pytest.mark.parametrize("count", [8, 9, 20, 101, 1000])
def test_the_order_statistic_interval_keeps_its_confidence_and_no_narrower_one_would(count: int):
    logs = np.arange(count, dtype=float)
    interval = statistics.median_interval(logs)
    k = round(math.log(interval.low)) + 1
    assert 1 - 2 * stats.binom.cdf(k - 1, count, 0.5) >= 0.99
    assert 1 - 2 * stats.binom.cdf(k, count, 0.5) < 0.99


def test_seven_rounds_have_no_99_percent_interval_and_eight_have():
    assert statistics.median_interval(np.zeros(7)).half_width == math.inf
    assert statistics.median_interval(np.zeros(8)).half_width == 0


def test_the_interval_covers_the_median_as_often_as_it_says():
    source = np.random.default_rng(0)
    covered = [
        (interval := statistics.median_interval(source.standard_cauchy(40))).low <= 1 <= interval.high
        for _ in range(1000)
    ]
    assert np.mean(covered) > 0.98


@given(st.lists(st.floats(-2, 2), min_size=8, max_size=60))
def test_an_interval_holds_its_estimate(logs: list[float]):
    interval = statistics.median_interval(np.array(logs))
    assert interval.low <= interval.ratio * (1 + 1e-12)
    assert interval.ratio <= interval.high * (1 + 1e-12)


def test_across_workers_is_the_t_interval():
    medians = np.log([1.0, 1.1, 1.2])
    low, high = stats.t.interval(0.95, 2, loc=medians.mean(), scale=stats.sem(medians))
    interval = statistics.across_workers(medians)
    assert interval.low == pytest.approx(math.exp(low))
    assert interval.high == pytest.approx(math.exp(high))


def test_the_wider_interval_is_reported():
    tight_workers_apart = [[np.full(50, shift)] for shift in (0.0, 0.1, 0.2)]
    assert statistics.combine(tight_workers_apart).half_width > 0.2
    wide_workers_alike = [[np.linspace(-1, 1, 20)] for _ in range(3)]
    pooled = np.concatenate([bursts[0] for bursts in wide_workers_alike])
    assert statistics.combine(wide_workers_alike) == statistics.median_interval(pooled)


def test_a_worker_is_the_median_of_its_bursts_however_many_rounds_one_of_them_has():
    assert statistics.worker_median([np.zeros(1000), np.full(3, 0.5), np.full(3, 0.7)]) == 0.5
    assert statistics.worker_median([np.zeros(0), np.full(3, 0.5)]) == 0.5


def test_no_samples_give_no_interval_and_no_division():
    assert statistics.combine([]) == statistics.UNKNOWN
    assert statistics.combine([[np.zeros(0)], []]).half_width == math.inf
    assert statistics.compare(statistics.UNKNOWN, 3) is Comparison.INCONCLUSIVE


@pytest.mark.parametrize(
    ("low", "high", "workers", "expected"),
    [
        (1.02, 1.05, 1, Comparison.SLOWER),
        (0.90, 0.95, 1, Comparison.FASTER),
        (0.995, 1.005, 3, Comparison.SAME),
        (0.995, 1.005, 1, Comparison.INCONCLUSIVE),
        (1.005, 1.05, 3, Comparison.INCONCLUSIVE),
        (0.95, 1.05, 3, Comparison.INCONCLUSIVE),
    ],
)
def test_a_verdict_lies_wholly_beyond_or_wholly_inside(low: float, high: float, workers: int, expected: Comparison):
    assert statistics.compare(statistics.Interval(1.0, low, high), workers) is expected


def test_a_clock_that_reads_zero_is_left_out():
    wall = np.array([[10, 20, 10], [0, 20, 10], [10, 0, 10]])
    assert statistics.log_ratios(wall).tolist() == [pytest.approx(math.log(2))]


@given(st.floats(1.5, 10.0), st.floats(0.3, 0.8), st.floats(0.5, 2.0))
def test_other_work_that_meets_long_calls_more_often_leaves_the_quickest_calls_their_ratio(by, busy, lasts):
    alone = 10_000.0 * np.array([[1.0, by]]) * np.random.default_rng(1).uniform(1.0, 1.02, (1000, 1))
    meets = np.random.default_rng(2).random((1000, 2)) < 1 - (1 - busy) * np.exp(-alone / (lasts * 100_000.0))
    beside = np.where(meets, 1.5 * alone, alone)
    quickest = [statistics.quickest_log_ratio(times.astype(np.int64)) for times in (alone, beside)]
    assert quickest == pytest.approx([math.log(by)] * 2, abs=0.02)


@given(st.floats(0.5, 2.0))
def test_what_takes_so_many_times_as_long_has_so_many_times_the_ratio_of_quickest_calls(by):
    times = np.random.default_rng(3).uniform(1e4, 3e4, (50, 3))
    slower = times * [1.0, by, 1.0]
    moved = statistics.quickest_log_ratio(slower.astype(np.int64)) - statistics.quickest_log_ratio(
        times.astype(np.int64)
    )
    assert moved == pytest.approx(math.log(by), abs=1e-3)


def test_quickest_calls_of_a_clock_that_stands_still_have_a_ratio_all_the_same():
    assert statistics.quickest_log_ratio(np.zeros((3, 3), dtype=np.int64)) == 0.0


def test_the_first_rounds_of_a_burst_are_discarded():
    assert len(statistics.keep(np.ones((4, 3), dtype=np.int64))) == 3
    assert len(statistics.keep(np.ones((8, 3), dtype=np.int64))) == 7
    assert len(statistics.keep(np.ones((9, 3), dtype=np.int64))) == 7


def test_looks_fall_due_at_their_shares_and_once():
    assert statistics.next_look(0.05, 0) is None
    assert statistics.next_look(0.07, 0) == 1
    assert statistics.next_look(0.07, 1) is None
    assert statistics.next_look(2.0, 1) == 5


PROBABILITIES = st.lists(st.floats(0, 1), max_size=30)


@given(PROBABILITIES)
def test_holm_keeps_the_order_and_never_makes_a_p_value_smaller_or_more_than_one(p: list[float]):
    adjusted = statistics.holm(p)
    assert all(one <= other <= 1 for one, other in zip(p, adjusted, strict=True))
    ordered = [adjusted[place] for place in sorted(range(len(p)), key=p.__getitem__)]
    assert ordered == sorted(ordered)


@given(PROBABILITIES, st.randoms())
def test_holm_does_not_care_in_which_order_tests_come(p: list[float], order):
    places = order.sample(range(len(p)), len(p))
    assert statistics.holm([p[place] for place in places]) == [statistics.holm(p)[place] for place in places]


def test_holm_steps_down_where_bonferroni_does_not():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.2]) == [0.2]


LOGS = st.lists(st.floats(-1, 1), min_size=2, max_size=6).filter(lambda logs: np.std(logs) > 1e-6).map(np.array)


@given(LOGS, LOGS)
def test_one_cell_is_tested_by_welch(first, second):
    (seen,) = statistics.shifts([(first, second)])
    welch = stats.ttest_ind(second, first, equal_var=False)
    ends = welch.confidence_interval(0.95)
    assert seen.p == pytest.approx(welch.pvalue)
    assert np.log([seen.interval.low, seen.interval.high]) == pytest.approx([ends.low, ends.high])


@given(st.lists(st.tuples(LOGS, LOGS), min_size=1, max_size=5))
def test_runs_the_other_way_round_shift_the_other_way(pairs):
    forth, back = (statistics.shifts([pair[::step] for pair in pairs]) for step in (1, -1))
    for one, other in zip(forth, back, strict=True):
        assert one.p == pytest.approx(other.p)
        assert one.interval.low * other.interval.high == pytest.approx(1)


def test_the_spread_of_many_cells_is_told_to_each():
    source = np.random.default_rng(0)
    pairs = [tuple(source.normal(scale=0.01, size=(2, 3))) for _ in range(50)]
    together = [shift.interval.half_width for shift in statistics.shifts(pairs)]
    alone = [statistics.shifts([pair])[0].interval.half_width for pair in pairs]
    assert np.median(together) < np.median(alone)
    assert np.ptp(together) < np.ptp(alone) / 5


def test_hundreds_of_cells_raise_no_false_alarm_and_hide_no_ten_percent():
    source = np.random.default_rng(1)
    spreads = source.uniform(0.01, 0.02, 100)
    first, second = source.normal(size=(2, 100, 3)) * spreads[:, None]
    still = statistics.holm([shift.p for shift in statistics.shifts(list(zip(first, second, strict=True)))])
    moved = statistics.shifts(list(zip(first, second + np.log(1.1), strict=True)))
    assert np.mean(np.array(still) < 0.05) <= 0.01
    assert np.mean(np.array(statistics.holm([shift.p for shift in moved])) < 0.05) >= 0.95


def test_workers_that_agree_to_the_last_digit_are_no_division_by_zero():
    same = np.zeros(3)
    assert statistics.shifts([]) == []
    (seen,) = statistics.shifts([(same, same)])
    assert (seen.p, seen.interval.ratio) == (1.0, 1.0)
    assert statistics.shifts([(same, same + 0.1), (same, np.array([0.0, 0.1, 0.2]))])[0].p < 0.05


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.051, 1.2, Comparison.SLOWER),
        (1.03, 1.2, Comparison.INCONCLUSIVE),
        (0.96, 1.04, Comparison.SAME),
        (0.90, 0.95, Comparison.FASTER),
        (0.90, 0.96, Comparison.INCONCLUSIVE),
    ],
)
def test_a_margin_moves_every_verdict(low: float, high: float, expected: Comparison):
    rule = statistics.Rule.together(0.05, cells=2)
    assert statistics.compare(statistics.Interval(1.0, low, high), 3, rule) is expected


def test_intervals_that_hold_together_are_wider_the_more_cells_there_are():
    bursts = [[np.random.default_rng(seed).normal(0.0, 0.02, 100)] for seed in range(8)]
    rules = [statistics.USUAL, *(statistics.Rule.together(0.05, cells) for cells in (1, 2, 20))]
    widths = [statistics.combine(bursts, rule).half_width for rule in rules]
    assert widths == sorted(widths)
    assert len(set(widths)) == len(widths)


def test_intervals_hold_together_as_often_as_they_say():
    source, cells, families = np.random.default_rng(3), 4, 1500
    rule = statistics.Rule.together(0.05, cells)
    missed = 0
    for _ in range(families):
        workers = source.normal(0.0, 0.01, (cells, 5))
        ends = [statistics.across_workers(one, rule.across) for one in workers]
        missed += any(not end.low <= 1.0 <= end.high for end in ends)
    assert stats.binomtest(missed, families, statistics.GATE_ALARM).pvalue > 1e-4
