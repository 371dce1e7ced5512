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


def test_the_first_rounds_of_a_burst_are_discarded():
    assert len(statistics.keep(np.ones((4, 3), dtype=np.int64))) == 3
    assert len(statistics.keep(np.ones((8, 3), dtype=np.int64))) == 7
    assert len(statistics.keep(np.ones((9, 3), dtype=np.int64))) == 7


def test_looks_fall_due_at_their_shares_and_once():
    assert statistics.next_look(0.05, 0) is None
    assert statistics.next_look(0.07, 0) == 1
    assert statistics.next_look(0.07, 1) is None
    assert statistics.next_look(2.0, 1) == 5
