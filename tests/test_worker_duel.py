from __future__ import annotations

import itertools
import mmap

import numpy as np
import pytest
import torch
from torch.nn import functional
from worker_fixtures import ticking_clock

from xentbench import inputs
from xentbench.spec import Phase, Problem
from xentbench.worker.clock import Clock
from xentbench.worker.duel import Duel


def duel(key: str, phase: Phase, arms, clock: Clock | None = None, **fields) -> Duel:
    problem = Problem.parse(key)
    return Duel(problem, phase, arms, inputs.make(problem, 0), clock or ticking_clock(), **fields)


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize(
    "key", ["N=8,C=10", "N=none,C=5", "N=0,C=4", "N=4,C=6,dims=3,dtype=bfloat16", "N=8,C=3,target=soft"]
)
def test_every_phase_gives_a_time_for_every_arm_and_round(phase: Phase, key: str):
    ran = duel(key, phase, [functional.cross_entropy] * 3).burst(1, 0.0, 5, 50)
    assert ran.wall_ns.shape == (5, 3)
    assert (ran.wall_ns == 10).all()
    assert ran.busy_ns.shape == ran.faults.shape == (0, 3)
    assert ran.elapsed_ns > ran.wall_ns.sum()


@pytest.mark.parametrize("phase", list(Phase))
def test_long_calls_are_metered_one_by_one_and_short_ones_are_not(phase: Phase):
    long = duel("N=8,C=10", phase, [functional.cross_entropy] * 3, ticking_clock(step_ns=200_000))
    long.warm_up(calls=2, budget_s=1.0)
    ran = long.burst(1, 0.0, 5, 50)
    assert long.metered
    assert ran.busy_ns.shape == ran.faults.shape == (5, 3)
    assert (ran.busy_ns > 0).all()
    assert (ran.faults >= 0).all()
    short = duel("N=8,C=10", phase, [functional.cross_entropy] * 3)
    short.warm_up(calls=2, budget_s=1.0)
    assert not short.metered


def test_page_faults_of_short_calls_are_counted_before_they_are_timed():
    pages = []

    def faulting(logits, target):
        pages.append(mmap.mmap(-1, 8 * mmap.PAGESIZE))
        pages[-1][:: mmap.PAGESIZE] = b"x" * 8
        return functional.cross_entropy(logits, target)

    counted = duel("N=8,C=10", Phase.FORWARD, [functional.cross_entropy, faulting]).faults_a_call()
    assert counted[0] < 1
    assert counted[1] == pytest.approx(8, abs=1)


def test_an_empty_call_is_timed_as_every_other():
    assert duel("N=8,C=10", Phase.BACKWARD, [functional.cross_entropy]).empty_call_ns() == 10


def test_each_round_visits_every_arm_primed_then_timed_in_an_order_of_its_own():
    calls: list[int] = []

    def arm(number: int):
        def loss(logits, target):
            calls.append(number)
            return functional.cross_entropy(logits, target)

        return loss

    duel("N=8,C=10", Phase.FORWARD, [arm(0), arm(1), arm(2)]).burst(1, 0.0, 40, 40)
    visits = list(zip(calls[::2], calls[1::2], strict=True))
    assert all(first == second for first, second in visits)
    rounds = [tuple(first for first, _ in visits[start : start + 3]) for start in range(0, 120, 3)]
    assert all(sorted(order) == [0, 1, 2] for order in rounds)
    assert len(set(rounds)) == 6


def test_the_budget_and_the_limits_end_a_burst():
    arms = [functional.cross_entropy] * 2
    assert len(duel("N=8,C=10", Phase.FORWARD, arms).burst(1, 1e-6, 4, 1000).wall_ns) > 4
    assert len(duel("N=8,C=10", Phase.FORWARD, arms).burst(1, 1e9, 4, 7).wall_ns) == 7
    still = Clock(lambda: 0, lambda: 0, 1, 0, lambda: 0)
    assert len(duel("N=8,C=10", Phase.FORWARD, arms, still).burst(1, 0.0, 4, 9).wall_ns) == 4


@pytest.mark.parametrize("key", ["N=8,C=10", "N=8,C=10,dtype=bfloat16", "N=4,C=6,dims=3", "N=none,C=9"])
def test_a_refresh_changes_one_logit_in_every_row_or_one_row_alone_and_leaves_no_version(key: str):
    seen: list[torch.Tensor] = []
    versions: list[int] = []

    def spy(logits, target):
        seen.append(logits.detach().clone())
        versions.append(logits._version)
        return functional.cross_entropy(logits, target)

    problem = Problem.parse(key)
    made = duel(key, Phase.FORWARD, [spy])
    original = made.prime.logits.detach().clone()
    made.burst(1, 0.0, 40, 40)
    rows = [(after != original).sum(dim=1 if problem.batch_size else 0).flatten() for after in seen[1::2]]
    assert all(changed.max() == 1 for changed in rows)
    # Of every row, so that no row can be answered from a memo; now and then of one, so that no row stands for others.
    assert {int(changed.sum()) for changed in rows} == {1, problem.rows}
    assert len(set(versions)) == 1


def test_targets_are_refreshed_and_ignored_ones_stay_ignored():
    seen: list[torch.Tensor] = []

    def spy(logits, target):
        seen.append(target.clone())
        return functional.cross_entropy(logits, target)

    duel("N=64,C=10,ignored=0.3", Phase.FORWARD, [spy]).burst(1, 0.0, 20, 20)
    assert any(not torch.equal(one, other) for one, other in itertools.pairwise(seen[1::2]))
    ignored = [(target == -100) for target in seen]
    assert all(torch.equal(ignored[0], mask) for mask in ignored)


def test_the_same_seed_asks_the_same_values_and_another_does_not():
    def values(seed: int) -> torch.Tensor:
        seen: list[torch.Tensor] = []

        def spy(logits, target):
            seen.append(logits.detach().clone())
            return functional.cross_entropy(logits, target)

        duel("N=8,C=10", Phase.FORWARD, [spy]).burst(seed, 0.0, 3, 3)
        return torch.stack(seen)

    assert torch.equal(values(1), values(1))
    assert not torch.equal(values(1), values(2))


def test_logits_that_are_overwritten_by_declaration_come_back():
    seen: list[float] = []

    def overwrites(logits, target):
        seen.append(float(logits.detach().abs().sum()))
        loss = functional.cross_entropy(logits, target)
        with torch.no_grad():
            logits.zero_()
        return loss

    duel("N=8,C=10", Phase.FORWARD_NO_GRAD, [overwrites], restore=True).burst(1, 0.0, 3, 3)
    assert min(seen) > 1


def test_the_no_grad_phase_runs_without_gradients_and_the_others_with():
    modes: dict[Phase, bool] = {}

    def spy(phase: Phase):
        def loss(logits, target):
            modes[phase] = torch.is_grad_enabled() and logits.requires_grad
            return functional.cross_entropy(logits, target)

        return loss

    for phase in Phase:
        duel("N=8,C=10", phase, [spy(phase)]).burst(1, 0.0, 2, 2)
    assert modes == {phase: phase is not Phase.FORWARD_NO_GRAD for phase in Phase}


def test_gradients_are_reset_between_visits():
    def arm(logits, target):
        assert logits.grad is None
        return functional.cross_entropy(logits, target)

    duel("N=8,C=10", Phase.FORWARD_BACKWARD, [arm]).burst(1, 0.0, 5, 5)


def test_the_system_clock_knows_itself():
    clock = Clock.system(readings=101)
    assert clock.now_ns() < clock.now_ns() + 1
    assert 0 <= clock.overhead_ns < 1e6
    assert clock.resolution_ns > 0
    assert np.isfinite(clock.cpu_ns())


def test_inputs_are_placed_anew_in_every_burst_behind_other_gaps_and_begin_with_the_same_values():
    moved = duel("N=64,C=512", Phase.FORWARD, [functional.cross_entropy])
    original, before = moved.prime.logits.detach().clone(), moved.prime
    gaps = set()
    for seed in range(8):
        moved.burst(seed, 0.0, 4, 4)
        # Whether memory behind another gap is other memory is the heap's to say: an old one may have a hole that fits.
        gaps.add(tuple(gap.nbytes for gap in moved._gaps))
        assert moved.prime is not before
        assert torch.equal(moved.prime.logits.detach(), original)
        before = moved.prime
    assert len(gaps) == 8


def test_pooled_inputs_rotate_and_none_comes_back_unchanged():
    seen: list[tuple[int, torch.Tensor]] = []

    def spy(logits, target):
        seen.append((logits.data_ptr(), logits.detach().clone()))
        return functional.cross_entropy(logits, target)

    pooled = duel("N=8,C=10", Phase.FORWARD, [spy], pool_bytes=3 * (320 + 64))
    assert len(pooled.pool) == 3
    pooled.burst(1, 0.0, 9, 9)
    places = [place for place, _ in seen]
    assert set(places[::2]) == {pooled.prime.logits.data_ptr()}
    assert places[1::2] == places[1:7:2] * 3
    assert len(set(places[1::2])) == 3
    timed = [values for _, values in seen[1::2]]
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(timed, 2))


def test_a_pool_is_bounded_in_number():
    assert len(duel("N=1,C=2", Phase.FORWARD, [functional.cross_entropy], pool_bytes=2**30).pool) == 4096


@pytest.mark.parametrize(
    "key", ["N=64,C=10,logits=peaked,scale=3.0", "N=64,C=10,ignore-index=3", "N=8,C=4,dims=3,ignored=0.3"]
)
def test_inputs_stay_what_they_are_however_often_they_are_refreshed(key: str):
    problem = Problem.parse(key)
    ran = duel(key, Phase.FORWARD, [functional.cross_entropy])
    original = inputs.make(problem, 0)
    for seed in range(20):
        ran.burst(seed, 0.0, 20, 20)
    assert (ran.pool[0].logits.detach() != original.logits).sum() <= problem.rows
    assert (ran.pool[0].target != original.target).sum() <= problem.rows / 8 + 1
    was, now = ((target == problem.ignore_index).sum() for target in (original.target, ran.pool[0].target))
    assert was == now
    assert torch.equal(ran.prime.logits.detach(), original.logits)
