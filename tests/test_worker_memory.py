from __future__ import annotations

import torch
from torch.nn import functional

from xentbench import inputs, limits
from xentbench.spec import Phase, Problem
from xentbench.worker import memory

PROBLEM = Problem(batch_size=64, num_classes=1000)
LOGITS = PROBLEM.logits_bytes


def peak(loss, phase: Phase) -> int:
    return memory.peak_bytes(loss, PROBLEM, inputs.make(PROBLEM, 0), phase)


def test_the_peak_counts_what_is_alive_at_once(capfd):
    def two_copies(logits, target):
        first = logits.detach() * 1
        second = first * 1
        del first, second
        return functional.cross_entropy(logits[:1], target[:1])

    assert 2 * LOGITS <= peak(two_copies, Phase.FORWARD_NO_GRAD) < 2.1 * LOGITS


def test_it_is_the_same_on_repeats_and_never_below_the_least():
    for phase in Phase:
        seen = {peak(functional.cross_entropy, phase) for _ in range(20)}
        assert len(seen) == 1
        assert seen.pop() >= limits.minimum_bytes(PROBLEM, phase)


def test_what_a_backward_needs_prepared_is_outside_the_window():
    forward, backward = peak(functional.cross_entropy, Phase.FORWARD), peak(functional.cross_entropy, Phase.BACKWARD)
    assert forward >= LOGITS
    assert backward <= 2 * LOGITS + 1000


def test_what_was_held_before_is_no_credit_when_it_is_let_go():
    held = [torch.empty(64, 1000)]

    def lets_go(logits, target):
        held.clear()
        copy = logits.detach() * 1
        del copy
        return functional.cross_entropy(logits[:1], target[:1])

    assert peak(lets_go, Phase.FORWARD_NO_GRAD) >= LOGITS


def test_views_and_reused_memory_are_not_counted():
    held = torch.empty(64, 1000)

    def views(logits, target):
        held.copy_(logits.detach())
        return functional.cross_entropy(logits[:1].t().t(), target[:1])

    assert peak(views, Phase.FORWARD_NO_GRAD) < LOGITS / 8
