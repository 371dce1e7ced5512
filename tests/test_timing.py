from __future__ import annotations

import itertools
import random
import time

import numpy as np
import pytest
import torch

from xentbench import timing
from xentbench.lanes import Lane
from xentbench.measured import Measured, Regime
from xentbench.spec import Comparison, Phase, Status
from xentbench.timing import Budget
from xentbench.workers import WorkerError


class FakeWorker:
    """Answers bursts of rounds drawn around given times, or fails at a given burst."""

    system_s, sees, talks = 0.0, True, False

    def __init__(
        self, times=(100, 150, 100), spread=0.0, rounds=10, fails_at=None, cpu=1.0, log=None, told=None, worked_s=0.0
    ) -> None:
        self.told, self.worked_s = told or {}, worked_s
        self.listed = isinstance(self.told.get("changed", []), list)
        self.times, self.spread, self.rounds, self.fails_at, self.cpu = times, spread, rounds, fails_at, cpu
        self.source, self.log, self.asked = np.random.default_rng(0), log if log is not None else [], []

    def ask(self, verb, record):
        self.asked.append(verb)
        if verb == "begin":
            return {"empty_call_ns": 50.0, "faults": [0, 0.5, 0]}, {}
        self.log.append(self)
        if self.fails_at is not None and self.asked.count("burst") > self.fails_at:
            raise WorkerError(Status.CRASHED, "SIGSEGV", lost=True)
        noise = np.exp(self.spread * self.source.standard_normal((self.rounds, 3)))
        wall = torch.from_numpy((np.array(self.times) * 1000 * noise).astype(np.int64))
        told = {
            "elapsed_ns": int(wall.sum()),
            "cpu_ns": int(wall.sum() * self.cpu),
            "changed": [],
            "leaks": "",
            "shared": "",
            "delegates": False,
        }
        told |= {"began_ns": time.perf_counter_ns(), "whole_ns": told["elapsed_ns"]}
        none = torch.zeros(0, 3, dtype=torch.int64)
        losses = torch.zeros(self.rounds, 1, dtype=torch.float64)
        told["changed"] = [record["planted"]] if record["planted"] and self.sees else []
        told |= {**self.told, "changed": told["changed"] + self.told.get("changed", [])} if self.listed else self.told
        return told, {"wall_ns": wall, "busy_ns": none, "faults": none, "losses": losses, "prime_ns": wall}

    def check_silence(self, verb):
        if self.talks:
            raise WorkerError(Status.FORGED, f"{verb}: bytes came that answer no request", lost=True)

    def cpu_s(self):
        self.system_s += self.worked_s
        return self.system_s


def run(workers, budget: Budget | None = None, tick_s: float = 0.01) -> dict[str, Measured]:
    clock = itertools.count()
    lanes = [Lane(name, worker) for name, worker in workers]
    budget = budget or Budget(seconds=0.4, half_width=0.0001)
    return timing.duel(lanes, Phase.FORWARD, budget, random.Random(1), lambda: next(clock) * tick_s)  # noqa: S311 - no secret


def test_a_slower_candidate_is_measured_as_what_it_is():
    seen = run([("slow", FakeWorker(spread=0.01)), ("slow", FakeWorker(spread=0.01))])["slow"]
    assert seen.verdict is Comparison.SLOWER
    assert seen.ratio == pytest.approx(1.5, rel=0.01)
    assert seen.ratio_low < 1.5 < seen.ratio_high
    assert seen.latency_s == pytest.approx(150e-6, rel=0.05)
    assert seen.baseline_latency_s == pytest.approx(100e-6, rel=0.05)
    assert seen.workers == 2
    assert (seen.minor_faults, seen.baseline_minor_faults) == (0.5, 0.0)
    assert seen.clock == "wall"
    assert len(seen.worker_log_ratios) == 2
    assert seen.empty_call_s == pytest.approx(50e-9)


def test_identical_code_is_same_over_workers_and_never_with_one():
    twins = {"times": (100, 100, 100), "spread": 0.005}
    assert run([("a", FakeWorker(**twins)) for _ in range(3)])["a"].verdict is Comparison.SAME
    lone = run([("a", FakeWorker(**twins))])["a"]
    assert lone.verdict is Comparison.INCONCLUSIVE
    assert "one worker never shows" in lone.reason


def test_bursts_of_all_workers_are_interleaved_in_random_order():
    log: list[FakeWorker] = []
    workers = [(str(number), FakeWorker(spread=0.1, log=log)) for number in range(3)]
    run(workers)
    passes = [tuple(log[start : start + 3]) for start in range(0, len(log) - 2, 3)]
    assert all(len(set(one)) == 3 for one in passes[:-1])
    assert len(set(passes)) > 1


def test_a_lane_stops_at_its_budget_or_when_narrow_but_not_when_significant():
    wide, narrow = FakeWorker(spread=0.5), FakeWorker(spread=0.0)
    run([("wide", wide), ("narrow", narrow)], Budget(seconds=0.4, half_width=0.01))
    assert narrow.asked.count("burst") < wide.asked.count("burst")
    significant = FakeWorker(times=(100, 300, 100), spread=0.5)
    run([("x", significant)], Budget(seconds=0.4, half_width=0.001))
    assert significant.asked.count("burst") == pytest.approx(40, abs=2)


def test_an_arm_that_dies_ends_its_cell_and_no_other():
    seen = run([("dies", FakeWorker(fails_at=1)), ("dies", FakeWorker()), ("lives", FakeWorker(spread=0.01))])
    assert seen["dies"].status is Status.CRASHED
    assert "while it was timed: SIGSEGV" in seen["dies"].reason
    assert seen["dies"].ratio is None
    assert seen["lives"].status is Status.PASSED


def test_a_cell_of_too_few_rounds_says_so_and_divides_by_nothing():
    seen = run([("a", FakeWorker(rounds=1))], Budget(seconds=0.0, half_width=0.01))["a"]
    assert seen.status is Status.PASSED
    assert seen.verdict is Comparison.INCONCLUSIVE
    assert seen.reason.startswith("rounds: 0 kept")
    assert seen.fields()["ratio"] is None


def test_a_clock_that_stands_still_gives_no_verdict():
    seen = run([("a", FakeWorker(times=(0, 0, 0)))])["a"]
    assert seen.verdict is Comparison.INCONCLUSIVE
    assert seen.fields()["cpu_share"] is None


def test_times_that_are_not_understood_end_the_cell():
    class Liar(FakeWorker):
        def ask(self, verb, record):
            told, times = super().ask(verb, record)
            return told, {
                name: table[:-1] if name == "wall_ns" else table.new_zeros(7, 3) for name, table in times.items()
            }

    seen = run([("lies", Liar()), ("lives", FakeWorker(spread=0.01))])
    assert seen["lies"].status is Status.FORGED
    assert "not understood" in seen["lies"].reason
    assert seen["lives"].status is Status.PASSED


def test_a_pool_is_asked_for_with_its_size():
    class Pooling(FakeWorker):
        def ask(self, verb, record):
            if verb == "begin":
                assert record["pool_bytes"] == 4096
            return super().ask(verb, record)

    lanes, clock = [Lane("a", Pooling(spread=0.01))], itertools.count()
    regime, order = Regime(pool_bytes=4096), random.Random(1)  # noqa: S311 - no secret
    seen = timing.duel(lanes, Phase.FORWARD, Budget(0.0, 0.01), order, lambda: float(next(clock)), regime)
    assert seen["a"].status is Status.PASSED


@pytest.mark.parametrize(
    ("worker", "status", "words"),
    [
        (FakeWorker(told={"changed": ["time.perf_counter_ns"]}), Status.TAMPERED, "changed time.perf_counter_ns"),
        (FakeWorker(told={"changed": list("abcdef")}), Status.TAMPERED, "changed a, b, c and more"),
        (FakeWorker(told={"leaks": "40 more open descriptors"}), Status.LEAKING, "40 more open descriptors"),
        (FakeWorker(told={"changed": 3}), Status.FORGED, "not understood"),
        (FakeWorker(told={"whole_ns": 10**9}), Status.TAMPERED, "its clock told"),
        (FakeWorker(told={"shared": "the losses of two calls lie in the same memory"}), Status.ALIASED, "same memory"),
        (FakeWorker(worked_s=0.05), Status.TAMPERED, "the system counted"),
        (FakeWorker(told={"began_ns": 0}), Status.TAMPERED, "before it was asked for"),
    ],
)
def test_what_a_worker_changes_or_cannot_have_seen_ends_its_cell(worker, status, words):
    seen = run([("x", worker), ("honest", FakeWorker(spread=0.01))])
    assert seen["x"].status is status
    assert words in seen["x"].reason
    assert seen["honest"].status is Status.PASSED


def test_every_burst_of_a_witnessed_lane_is_judged_before_the_next_is_asked():
    class Watching:
        def __init__(self) -> None:
            self.seen = []

        def losses(self, seed, answers):
            self.seen.append((seed, answers.shape))
            if len(self.seen) == 3:
                raise WorkerError(Status.STALE, "the loss of timed call 1 was given to another call")

        def follow(self):
            raise AssertionError

    worker, witness, clock = FakeWorker(spread=0.5), Watching(), itertools.count()
    lanes = [Lane("x", worker, witness)]
    seen = timing.duel(lanes, Phase.FORWARD, Budget(4.0, 0.0), random.Random(1), lambda: next(clock) * 0.01)["x"]  # noqa: S311 - no secret
    assert seen.status is Status.STALE
    assert worker.asked.count("burst") == 3
    assert len({seed for seed, _ in witness.seen}) == 3


def test_a_watch_that_sees_nothing_is_found_out():
    blind = FakeWorker(spread=0.5)
    blind.sees = False
    seen = run([("blind", blind)], Budget(seconds=4.0, half_width=0.0))["blind"]
    assert seen.status is Status.TAMPERED
    assert "does not see what was planted" in seen.reason


def test_bytes_after_the_last_burst_end_the_cell():
    talks = FakeWorker(spread=0.01)
    talks.talks = True
    assert run([("talks", talks)])["talks"].status is Status.FORGED


def test_what_chance_leaves_out_comes_in_one_more_burst():
    asked = []

    class Noting(FakeWorker):
        def ask(self, verb, record):
            asked.append((record.get("repeat"), bool(record.get("planted"))))
            return super().ask(verb, record)

    for seed in range(20):
        asked.clear()
        lanes = [Lane("a", Noting(spread=0.5))]
        timing.duel(lanes, Phase.FORWARD, Budget(0.0, 0.0), random.Random(seed), lambda: 0.0)  # noqa: S311 - no secret
        bursts = asked[1:]
        assert len(bursts) <= 2
        assert all(any(tried) for tried in zip(*bursts, strict=True))
