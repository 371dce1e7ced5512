"""`benchmarks/other_rules.py`: rules on given times, the counting, and arms that are slower by a known share."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from xentbench.spec import Comparison
from xentbench.twins import upper_bound

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import other_rules
import other_tools
import slower_both

SAME, FASTER, SLOWER = Comparison.SAME, Comparison.FASTER, Comparison.SLOWER
TIMES = np.random.default_rng(0).gamma(4.0, 1e-6, 1000)


@pytest.mark.parametrize(("second", "called"), [(1.049, SAME), (1.051, SLOWER), (0.951, SAME), (0.949, FASTER)])
def test_a_threshold_is_crossed_either_way(second: float, called: Comparison):
    assert other_tools.threshold(1.0, second) is called
    assert other_tools.compare_fail("mean", 1.0, second) is (SAME if called is FASTER else called)


def test_ranks_see_a_shift_and_not_an_order():
    assert other_tools.ranks(TIMES, np.roll(TIMES, 1)) is SAME
    assert other_tools.ranks(TIMES, TIMES * 1.2) is SLOWER
    assert other_tools.ranks(TIMES, TIMES / 1.2) is FASTER


def test_runs_are_means_of_ten_stretches_in_order():
    assert other_tools.run_means(np.arange(20.0)) == pytest.approx(np.arange(10) * 2 + 0.5)


@pytest.mark.parametrize("tool", other_tools.TOOLS)
def test_every_tool_times_a_call_and_rules_on_it(tool: str):
    calls: list[int] = []
    times = other_tools.TOOLS[tool].sample(lambda: calls.append(sum(range(100))), 1e-3)
    assert len(calls) >= len(times) >= 1
    for rule in other_tools.TOOLS[tool].rules.values():
        assert rule(times, times) is SAME


def test_the_parent_asks_for_the_tools_there_are():
    assert set(other_rules.TOOLS) == {other_rules.DUEL, *other_tools.TOOLS}


def test_a_line_counts_alarms_either_way_and_only_slower_as_found():
    called = {0.0: [SLOWER, FASTER, SAME], 0.05: [SLOWER, FASTER, Comparison.INCONCLUSIVE], 0.1: [SLOWER] * 3}
    rows = [
        {"share": share, "loaded": loaded, "called": each, "spent_s": 0.5}
        for share, loaded in itertools.product(called, (False, True))
        for each in called[share]
    ]
    _, *counts, seconds = other_rules.line("rule", rows)
    assert [*counts[:2], *counts[3:]] == ["2 of 3"] * 2 + ["1 of 3"] * 2 + ["3 of 3"] * 2
    assert counts[2] == f"{upper_bound(4, 6) * 100:.0f} %"
    assert seconds == "0.50 (0.50)"


def test_an_arm_that_is_slower_in_both_passes_answers_as_the_function_does():
    def readings(share: float) -> int:
        ticks = itertools.count(step=10)
        arm = slower_both.slowed_both(share, 0.0, now_ns=lambda: next(ticks))
        for _ in range(2):
            logits = torch.randn(8, 10, generator=torch.Generator().manual_seed(0), requires_grad=True)
            target = torch.arange(8)
            loss = arm(logits, target, label_smoothing=0.0)
            loss.backward()
            expected = functional.cross_entropy(logits, target)
            assert torch.equal(loss, expected)
            assert torch.equal(logits.grad, torch.autograd.grad(expected, logits)[0])
        return next(ticks) // 10

    passes = 2 * 2
    assert readings(0.0) == passes * (3 + 1)
    assert readings(3.0) == passes * (3 + 3)
