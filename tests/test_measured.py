from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from xentbench import measured
from xentbench.lanes import Lane
from xentbench.measured import Evidence, Measured, Regime, beside_others, decide
from xentbench.spec import Comparison, Status
from xentbench.statistics import Interval, Rule
from xentbench.worker.duel import Burst

SLOWER = Interval(2.0, 1.9, 2.1)
CLEAR = Evidence([], SLOWER, 0.04, None, Interval(1.0, 0.995, 1.005), 100, 1.0, 0.0, 0.0, 3)


def burst(wall_ms, busy_ms=None, rounds: int = 20, faults: int = 0, seed: int = 0) -> Burst:
    """Return a burst of rounds around the given times; `busy_ms` None: not metered."""
    noise = np.exp(1e-4 * np.random.default_rng(seed).standard_normal((rounds, 3)))
    wall = (np.array(wall_ms) * 1e6 * noise).astype(np.int64)
    busy = wall[:0] if busy_ms is None else (np.array(busy_ms) * 1e6 * noise).astype(np.int64)
    each = np.full(busy.shape, faults, dtype=np.int64)
    total = int(wall.sum())
    return Burst(wall, busy, each, total, total, np.zeros((rounds, 1)), wall)


def summary(*bursts: Burst, regime: Regime | None = None, workers: int = 3) -> Measured:
    lanes = [Lane("a", None, bursts=list(bursts)) for _ in range(workers)]  # type: ignore[arg-type]
    return measured.summarise(lanes, regime or Regime())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rounds": 7}, "rounds: 7 kept, 8 needed"),
        ({"canary": Interval(1.1, 1.05, 1.15)}, "canary: identical code measured 1.100"),
        ({"cpu_share": 0.1}, "CPU share: 10%"),
        ({"faults": 400.0, "faults_share": 0.2}, "page faults: 400 a call are 20% of its time"),
        ({"other": Interval(1.5, 1.4, 1.6)}, "wall and CPU time disagree: 2.000 by the one that decides, 1.500"),
    ],
)
def test_disturbances_stand_before_any_verdict(change, told: str):
    assert measured.decide(CLEAR) == (Comparison.SLOWER, "")
    verdict, reason = measured.decide(dataclasses.replace(CLEAR, **change))
    assert verdict is Comparison.INCONCLUSIVE
    assert reason.startswith(told)


def test_an_interval_that_is_too_wide_says_whether_rounds_or_processes_make_it_so():
    wide = Interval(1.0, 0.9, 1.1)
    _, rounds = measured.decide(dataclasses.replace(CLEAR, ratio=wide, within=0.08))
    assert rounds.startswith("half-width: ±10.0%")
    _, workers = measured.decide(dataclasses.replace(CLEAR, ratio=wide, within=0.01))
    assert workers == "worker spread: ±10.0% across 3 workers, ±1.0% within them"


def test_one_worker_never_shows_same_and_says_so():
    tight = Interval(1.0, 0.999, 1.001)
    verdict, reason = measured.decide(dataclasses.replace(CLEAR, ratio=tight, within=0.001, workers=1))
    assert verdict is Comparison.INCONCLUSIVE
    assert "one worker never shows" in reason


def test_cpu_time_decides_above_a_millisecond_and_wall_time_is_told_beside_it():
    seen = summary(burst((5.0, 5.5, 5.0), (4.0, 4.4, 4.0)))
    assert seen.clock == "cpu"
    assert seen.ratio == pytest.approx(1.1, rel=1e-3)
    assert seen.other_ratio == pytest.approx(1.1, rel=1e-3)
    assert seen.verdict is Comparison.SLOWER
    assert seen.latency_s == pytest.approx(5.5e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("wall_ms", "busy_ms", "regime"),
    [
        ((0.5, 0.6, 0.5), (0.5, 0.6, 0.5), Regime()),
        ((5.0, 6.0, 5.0), None, Regime()),
        ((5.0, 6.0, 5.0), (5.0, 6.0, 5.0), Regime(one_thread=False)),
    ],
)
def test_wall_time_decides_short_calls_unmetered_ones_and_those_of_many_threads(wall_ms, busy_ms, regime: Regime):
    seen = summary(burst(wall_ms, busy_ms), regime=regime)
    assert seen.clock == "wall"
    assert (seen.other_ratio is None or math.isnan(seen.other_ratio)) == (busy_ms is None)


def test_work_hidden_from_cpu_time_is_inconclusive_and_never_faster():
    seen = summary(burst((5.0, 5.0, 5.0), (5.0, 1.0, 5.0)))
    assert seen.verdict is Comparison.INCONCLUSIVE
    assert "disagree" in seen.reason


def test_page_faults_are_counted_by_arm_and_only_a_kept_heap_must_have_none():
    faulting = burst((5.0, 9.0, 5.0), (5.0, 9.0, 5.0), faults=1000)
    kept, cold = summary(faulting), summary(faulting, regime=Regime(kept_heap=False))
    assert kept.minor_faults == kept.baseline_minor_faults == 1000
    assert kept.reason.startswith("page faults: 1000 a call are 60%")
    assert cold.verdict is Comparison.SLOWER
    lanes = [Lane("a", None, bursts=[burst((0.01, 0.02, 0.01))], faults=(1.0, 7.0, 1.0)) for _ in range(3)]  # type: ignore[arg-type]
    short = measured.summarise(lanes, Regime())
    assert (short.minor_faults, short.baseline_minor_faults) == (7.0, 1.0)
    assert short.verdict is Comparison.SLOWER


def test_workers_that_differ_are_told_one_by_one():
    lanes = [Lane("a", None, bursts=[burst((0.1, 0.1 * by, 0.1))]) for by in (1.0, 1.1, 1.2)]  # type: ignore[arg-type]
    seen = measured.summarise(lanes, Regime())
    assert np.allclose(seen.worker_log_ratios, np.log([1.0, 1.1, 1.2]), atol=1e-3)
    assert np.allclose(seen.worker_quickest_log_ratios, np.log([1.0, 1.1, 1.2]), atol=1e-3)
    assert seen.reason.startswith("worker spread")


def test_infinite_ends_are_written_as_null():
    fields = Measured(Status.PASSED, ratio=1.0, ratio_low=0.0, ratio_high=math.inf).fields()
    assert fields["ratio_high"] is None
    assert fields["ratio_low"] == 0.0


def test_a_baseline_that_is_slower_beside_one_than_beside_the_others_gives_that_one_no_verdict():
    cells = {
        name: Measured(Status.PASSED, verdict=Comparison.FASTER, baseline_latency_s=latency_s)
        for name, latency_s in (("a", 1.0e-5), ("b", 1.1e-5), ("slows", 1.9e-5), ("c", 0.9e-5))
    }
    cells["failed"] = Measured(Status.STALE)
    seen = beside_others(cells)
    assert seen["slows"].verdict is Comparison.INCONCLUSIVE
    assert seen["slows"].labels == ("slow-baseline",)
    assert "1.9 times as slow" in seen["slows"].reason
    assert {name: seen[name] for name in cells if name != "slows"} == {n: c for n, c in cells.items() if n != "slows"}
    assert beside_others({"a": cells["slows"]}) == {"a": cells["slows"]}


def test_work_done_in_untimed_calls_is_told():
    ahead = dataclasses.replace(CLEAR, primed=2.1)
    verdict, reason = decide(ahead)
    assert verdict is Comparison.INCONCLUSIVE
    assert "untimed calls: they take 2.1 times as long" in reason


def test_with_a_margin_neither_the_difference_nor_the_canary_counts_below_it():
    gate = Rule.together(0.05, cells=1)
    near = dataclasses.replace(CLEAR, ratio=Interval(1.03, 1.02, 1.04), other=None, rule=gate)
    assert measured.decide(near) == (Comparison.SAME, "")
    shaken = dataclasses.replace(CLEAR, canary=Interval(1.03, 1.02, 1.04))
    assert measured.decide(shaken)[1].startswith("canary")
    assert measured.decide(dataclasses.replace(shaken, rule=gate)) == (Comparison.SLOWER, "")
