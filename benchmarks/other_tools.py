"""How other tools time one loss after another, and the rules by which the two are then called different.

A process of its own: `python benchmarks/other_tools.py CORE` reads one request a line and answers it in one line of
JSON (`other_rules.py` asks). Times are in seconds a call.
"""

from __future__ import annotations

import functools
import gc
import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from pytest_benchmark.timers import default_timer
from pytest_benchmark.utils import NameWrapper, parse_compare_fail
from scipy import stats
from torch.utils.benchmark import Timer

from xentbench import inputs
from xentbench.registry import object_source
from xentbench.spec import Comparison, Phase, Problem
from xentbench.worker import calls, loading, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    Call = Callable[[], object]
    Times = npt.NDArray[np.float64]

THRESHOLD: Final = 0.05
ALPHA: Final = 0.05
RUNS: Final = 10
"""Samples of a side that benchstat asks for at least, each the mean of many calls (`go test -count 10`)."""
FLUSH_BYTES: Final = 16 * 2**20
"""Several times a core's own caches. The shared one, in a virtual machine its host's, may be too large to clear."""
WARM_CALLS: Final = 20


def rounds(call: Call, seconds: float) -> Times:
    """Time with pytest-benchmark's fixture, which calibrates itself; all options but `max_time` are its defaults."""
    options = {
        "disable_gc": False,
        "timer": NameWrapper(default_timer),
        "min_rounds": 5,
        "min_time": 0.000005,
        "max_time": seconds,
        "precision": None,
        "confidence": None,
        "warmup": False,
        "warmup_iterations": 100_000,
        "calibration_precision": 10,
        "cprofile": False,
        "cprofile_loops": None,
        "cprofile_dump": None,
    }
    silent = SimpleNamespace(debug=lambda *_, **__: None, warning=lambda *_, **__: None)
    fixture = BenchmarkFixture(
        SimpleNamespace(name="call", nodeid="call"),
        add_stats=lambda _: None,
        logger=silent,
        warner=logging.warning,
        disabled=False,
        **options,
    )
    fixture(call)
    return np.array(fixture.stats.stats.data)


def blocks(call: Call, seconds: float) -> Times:
    """Time with `torch.utils.benchmark.Timer.blocked_autorange`, which chooses the size of its blocks itself."""
    measured = Timer("call()", globals={"call": call}).blocked_autorange(min_run_time=seconds)
    return np.array(measured.times)


def flushed_calls(call: Call, seconds: float) -> Times:
    """Time single calls, each after a write over the caches, for the shares of time that `triton.testing` gives them.

    Its 25 ms of warm-up, without flush, and 100 ms of repetitions are stretched to the seconds that all have. Both are
    turned into numbers of calls by the time of five flushed ones.
    """
    cache = torch.empty(FLUSH_BYTES, dtype=torch.int8)
    call()
    start = time.perf_counter()
    for _ in range(5):
        cache.zero_()
        call()
    each_s = (time.perf_counter() - start) / 5
    for _ in range(max(1, int(0.2 * seconds / each_s))):
        call()
    times = []
    for _ in range(max(1, int(0.8 * seconds / each_s))):
        cache.zero_()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return np.array(times)


def single_calls(call: Call, seconds: float) -> Times:
    """Time every call, one after the other, until the seconds are over."""
    now_s, times = time.perf_counter, []
    end = now_s() + seconds
    while (start := now_s()) < end:
        call()
        times.append(now_s() - start)
    return np.array(times)


def compare_fail(field: str, first: float, second: float) -> Comparison:
    """Apply pytest-benchmark's `--benchmark-compare-fail FIELD:5%`: slower or nothing."""
    check = parse_compare_fail(f"{field}:{THRESHOLD:.0%}")
    return Comparison.SLOWER if check.fails({field: second}, {field: first}) else Comparison.SAME


def threshold(first: float, second: float) -> Comparison:
    """Call the second different when it is more than 5 % away from the first, either way."""
    if second > first * (1 + THRESHOLD):
        return Comparison.SLOWER
    return Comparison.FASTER if second < first * (1 - THRESHOLD) else Comparison.SAME


def ranks(first: Times, second: Times) -> Comparison:
    """Call the sides different where a two-sided Mann-Whitney test at 5 % does; medians say which way."""
    if stats.mannwhitneyu(first, second).pvalue >= ALPHA:
        return Comparison.SAME
    return Comparison.SLOWER if np.median(second) > np.median(first) else Comparison.FASTER


def run_means(times: Times) -> Times:
    """Return the means of ten stretches of equally many calls, in the order they ran."""
    return np.array([np.mean(run) for run in np.array_split(times, min(RUNS, len(times)))])


@dataclass(frozen=True, slots=True)
class Tool:
    """A way of taking times of one side, and the rules that are applied to the two sides' times.

    Attributes:
        sample: call and seconds -> times in seconds a call.
        rules: name -> both sides' times -> what is called.
    """

    sample: Callable[[Call, float], Times]
    rules: Mapping[str, Callable[[Times, Times], Comparison]]


TOOLS: Final = {
    "pytest-benchmark": Tool(
        rounds,
        {
            "pytest-benchmark, `mean:5%`": lambda a, b: compare_fail("mean", float(np.mean(a)), float(np.mean(b))),
            "pytest-benchmark, `median:5%`": lambda a, b: compare_fail(
                "median", float(np.median(a)), float(np.median(b))
            ),
        },
    ),
    "blocked_autorange": Tool(
        blocks, {"`blocked_autorange`, medians, 5 %": lambda a, b: threshold(float(np.median(a)), float(np.median(b)))}
    ),
    "do_bench": Tool(
        flushed_calls,
        {"as `do_bench`, medians, 5 %": lambda a, b: threshold(float(np.median(a)), float(np.median(b)))},
    ),
    "single calls": Tool(
        single_calls,
        {
            "single calls, minima, 5 %": lambda a, b: threshold(float(np.min(a)), float(np.min(b))),
            "single calls, Mann-Whitney": ranks,
            "means of ten runs, Mann-Whitney": lambda a, b: ranks(run_means(a), run_means(b)),
        },
    ),
}


@functools.cache
def statement(key: str, phase: Phase, arm: str) -> Call:
    """Return the call that is timed: one arm, bound to a problem as a worker binds it, on tensors of its own."""
    problem = Problem.parse(key)
    ((_, entry),) = loading.load(object_source(arm)).found
    given = inputs.make(problem, 0)
    loss, upstream = calls.bind(entry, problem, given.weight), given.upstream
    logits, target = calls.fresh(problem, given, phase)

    def forward() -> object:
        return loss(logits, target)

    def both() -> None:
        loss(logits, target).backward(upstream)
        logits.grad = None

    call: Call = both if phase is Phase.FORWARD_BACKWARD else forward
    for _ in range(WARM_CALLS):
        call()
    gc.collect()
    gc.freeze()
    return call


def trial(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Time one side, then the other, with one tool; say what each of its rules calls them.

    Args:
        asked: `tool` of `TOOLS`, `problem` (a key), `phase`, the two `arms` (MODULE:NAME or FILE.py:NAME), and
            `seconds` for both sides together.
    """
    tool, half_s = TOOLS[asked["tool"]], asked["seconds"] / 2
    calls_of = [statement(asked["problem"], Phase(asked["phase"]), arm) for arm in asked["arms"]]
    start = time.perf_counter()
    sides = [tool.sample(call, half_s) for call in calls_of]
    spent_s = time.perf_counter() - start
    return {
        "spent_s": spent_s,
        "samples": [len(side) for side in sides],
        "median_s": [float(np.median(side)) for side in sides],
        "called": {name: rule(*sides) for name, rule in tool.rules.items()},
    }


def main(core: int) -> None:
    """Answer requests as a worker would run them: one thread, pinned, imports paid for, until the input ends."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)
    serving.pay_for_imports()
    for line in sys.stdin:
        print(json.dumps(trial(json.loads(line))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
