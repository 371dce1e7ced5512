from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from xentbench import inputs, limits
from xentbench.spec import Phase, Problem, Source
from xentbench.worker import calls, loading, memory
from xentbench.worker.memory import Reading

PROBLEM = Problem(batch_size=64, num_classes=1000)
LOGITS = PROBLEM.logits_bytes
FOUND = [entry for _, entry in loading.load(Source("built-in", loading.BUILT_IN)).found]
BUILT_IN = {entry.name: entry for entry in FOUND if not entry.compiles and not entry.packages}
WITH_GRAD = (Phase.FORWARD, Phase.BACKWARD, Phase.FORWARD_BACKWARD)


def read(loss, phase: Phase) -> Reading:
    return memory.reading(loss, PROBLEM, inputs.make(PROBLEM, 0), phase)


def peak(loss, phase: Phase) -> int:
    return read(loss, phase).peak_bytes


def test_the_peak_counts_what_is_alive_at_once(capfd):
    def two_copies(logits, target):
        first = logits.detach() * 1
        second = first * 1
        del first, second
        return functional.cross_entropy(logits[:1], target[:1])

    assert 2 * LOGITS <= peak(two_copies, Phase.FORWARD_NO_GRAD) < 2.1 * LOGITS


def test_it_is_the_same_on_repeats_and_never_below_the_least():
    for phase in Phase:
        seen = {read(functional.cross_entropy, phase) for _ in range(20)}
        assert len(seen) == 1
        assert seen.pop().peak_bytes >= limits.minimum_bytes(PROBLEM, phase)


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_built_in_needs_less_than_the_least(name: str):
    few, lone = Problem(batch_size=3, num_classes=2, reduction="none"), Problem(batch_size=None, num_classes=7)
    for problem, phase in itertools.product((PROBLEM, few, lone), Phase):
        if calls.refusal(BUILT_IN[name], problem):
            continue
        given_ = inputs.make(problem, 0)
        seen = memory.reading(calls.bind(BUILT_IN[name], problem, given_.weight), problem, given_, phase)
        assert seen.peak_bytes >= limits.minimum_bytes(problem, phase)


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


class Keeping(torch.autograd.Function):
    """The loss, with copies of the logits saved for its backward and others held by `ctx` alone."""

    @staticmethod
    def forward(ctx, logits, target, saved: int, held: int):
        ctx.save_for_backward(*(logits.clone() for _ in range(saved)))
        ctx.held = [logits.clone() for _ in range(held)]
        ctx.shape = logits.shape
        return functional.cross_entropy(logits, target)

    @staticmethod
    def backward(ctx, upstream):
        return upstream.expand(ctx.shape).clone(), None, None, None


class GradientFirst(torch.autograd.Function):
    """The loss, with its gradient made by the forward and kept on `ctx`."""

    @staticmethod
    def forward(ctx, logits, target):
        ctx.gradient = (logits.softmax(-1) - functional.one_hot(target, logits.shape[-1])) / len(logits)
        return functional.cross_entropy(logits, target)

    @staticmethod
    def backward(ctx, upstream):
        return ctx.gradient * upstream, None


@pytest.mark.parametrize(("saved", "held"), [(0, 0), (1, 0), (3, 0), (0, 2), (2, 1)])
def test_every_copy_that_waits_for_the_backward_is_counted(saved: int, held: int):
    def loss(logits, target):
        return Keeping.apply(logits, target, saved, held)

    for phase in WITH_GRAD:
        assert read(loss, phase).saved_bytes == (saved + held) * LOGITS
    assert read(loss, Phase.FORWARD_NO_GRAD).saved_bytes is None


def test_a_gradient_made_in_advance_is_saved_and_no_news_in_the_backward():
    assert read(GradientFirst.apply, Phase.FORWARD).saved_bytes == LOGITS
    assert LOGITS <= peak(GradientFirst.apply, Phase.BACKWARD) < 1.1 * LOGITS


@pytest.mark.parametrize(
    ("loss", "saved_bytes"),
    [
        (lambda logits, _: logits[:, 0].exp(), 0),  # keeps its own result, which is the loss
        (lambda logits, _: logits[:, 0].exp().square(), 64 * 4),
        (lambda logits, _: logits.exp()[0, 0], LOGITS - 4),  # a view that keeps its whole block alive
        (lambda logits, _: logits[0, 0], 0),
    ],
)
def test_the_loss_itself_is_not_saved_and_what_it_keeps_alive_is(loss, saved_bytes: int):
    assert read(loss, Phase.FORWARD).saved_bytes == saved_bytes


def test_the_allocations_of_another_call_each_time_are_not_steady():
    turns = itertools.count(1)

    def grows(logits, target):
        copies = [logits.detach() * 1 for _ in range(next(turns))]
        del copies
        return functional.cross_entropy(logits[:1], target[:1])

    seen, is_steady = memory.settled(lambda: read(grows, Phase.FORWARD_NO_GRAD))
    assert not is_steady
    assert seen.peak_bytes >= memory.MOST_READINGS * LOGITS


def test_what_is_set_up_lazily_is_paid_by_the_first_reading():
    cache: list[torch.Tensor] = []

    def lazy(logits, target):
        if not cache:
            cache.append(torch.ones(10**6))
        return functional.cross_entropy(logits[:1], target[:1])

    seen, is_steady = memory.settled(lambda: read(lazy, Phase.FORWARD))
    assert is_steady
    assert seen.peak_bytes < LOGITS


@given(st.lists(st.integers(0, 3), min_size=memory.MOST_READINGS, max_size=memory.MOST_READINGS))
def test_what_settles_was_read_twice_in_a_row_and_what_does_not_is_never_understated(peaks: list[int]):
    readings = iter([Reading(peak, None) for peak in peaks])
    seen, is_steady = memory.settled(lambda: next(readings))
    done = memory.MOST_READINGS - len(list(readings))
    pairs = [a == b for a, b in itertools.pairwise(peaks[:done])]
    assert is_steady == pairs[-1]
    assert not any(pairs[:-1])
    assert seen.peak_bytes == (peaks[done - 1] if is_steady else max(peaks))


def test_on_cuda_the_allocator_is_asked_and_the_loss_is_a_whole_block(monkeypatch):
    held_bytes = {"memory_allocated": iter([10_000, 10_000 + 4096 + 512]), "max_memory_allocated": iter([18_000])}
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda _device: None)
    for name, values in held_bytes.items():
        monkeypatch.setattr(torch.cuda, name, lambda _device, values=values: next(values))
    assert memory._window(torch.device("cuda"), lambda: torch.tensor(1.0)) == (8_000, 4096, False)


@pytest.mark.parametrize("phase", Phase)
def test_a_prepared_call_is_one_call_of_its_phase(phase: Phase):
    modes: list[bool] = []

    def loss(logits, target):
        modes.append(torch.is_grad_enabled())
        return functional.cross_entropy(logits, target)

    call = memory.prepared(loss, PROBLEM, inputs.make(PROBLEM, 0), phase)
    assert len(modes) == (phase is Phase.BACKWARD)
    call()
    assert modes == [phase is not Phase.FORWARD_NO_GRAD]


def test_who_calls_the_reference_operator_delegates_and_who_does_not_does_not():
    def by_hand(logits, target):
        return (logits.logsumexp(1) - logits.gather(1, target[:, None]).squeeze(1)).mean()

    for phase in Phase:
        assert read(functional.cross_entropy, phase).delegates
        assert not read(by_hand, phase).delegates


def test_tensors_that_are_kept_between_calls_are_counted():
    known = [torch.zeros(5000)]
    before = memory.kept_bytes(known)
    workspace = {"buffer": torch.zeros(1000), "view": known[0][10:], "constant": torch.zeros(3)}
    assert memory.kept_bytes(known) - before == 4000
    workspace.clear()
    assert memory.kept_bytes(known) == before
