from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from xentbench import inputs, oracle
from xentbench.challenge import Challenge
from xentbench.drawing import Stream
from xentbench.inputs import Inputs
from xentbench.spec import Phase, Problem
from xentbench.worker.storage import Numbers, Storage

KEYS = [
    "N=8,C=10",
    "N=none,C=9",
    "N=4,C=6,dims=3x2,reduction=none",
    "N=8,C=10,dtype=bfloat16",
    "N=16,C=12,weight=random,ignored=0.3,label-smoothing=0.1",
    "N=16,C=12,weight=random,ignored=0.3,reduction=none,dtype=float64",
    "N=8,C=5,target=soft,weight=random,label-smoothing=0.2",
    "N=8,C=5,target=soft,reduction=sum,dtype=float16",
    "N=64,C=100,logits=peaked,reduction=none",
    "N=32,C=7,logits=wide,logits-layout=transposed",
]


def refreshed(problem: Problem, seed: int, calls: int):
    """Yield what a worker's storage holds after each refresh."""
    given_inputs, numbers = inputs.make(problem, seed), Numbers(problem, Stream("refreshes"))
    storage = Storage(problem, given_inputs, Phase.FORWARD_NO_GRAD, restore=False)
    for _ in range(calls):
        storage.refresh(numbers)
        yield Inputs(storage.logits, storage.target, given_inputs.weight, given_inputs.upstream)


def asked(problem: Problem, seed: int, calls: int):
    challenge, numbers = Challenge(problem, seed), Numbers(problem, Stream("refreshes"))
    return challenge, challenge.changed([numbers.next() for _ in range(calls)])


def by_rows(problem: Problem, gradient):
    return (
        gradient.reshape(1, -1)
        if problem.batch_size is None
        else np.moveaxis(gradient, 1, -1).reshape(-1, problem.num_classes)
    )


@pytest.mark.parametrize("key", KEYS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_losses_and_gradients_are_the_oracles_at_what_a_worker_holds(key: str, seed: int):
    problem = Problem.parse(key)
    challenge, changed = asked(problem, seed, 6)
    for call, seen in enumerate(refreshed(problem, seed, 6)):
        truth = oracle.solve(problem, seen)
        np.testing.assert_allclose(changed.losses[call], truth.loss.torch.reshape(-1), rtol=1e-12, atol=1e-12)
        gradient, _ = challenge.gradient(changed, call, np.arange(problem.rows))
        np.testing.assert_allclose(gradient, by_rows(problem, truth.gradient.torch), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("key", KEYS)
def test_an_honest_answer_is_far_inside_of_what_is_allowed(key: str):
    problem = Problem.parse(key)
    challenge, changed = asked(problem, 1, 6)
    for call, seen in enumerate(refreshed(problem, 1, 6)):
        logits = seen.logits.clone().requires_grad_()
        loss = functional.cross_entropy(
            logits,
            seen.target,
            seen.weight,
            ignore_index=problem.ignore_index,
            reduction=problem.reduction,
            label_smoothing=problem.label_smoothing,
        )
        loss.backward(seen.upstream)
        error = np.abs(loss.detach().double().numpy().reshape(-1) - changed.losses[call])
        assert (error <= 0.5 * changed.allowed[call]).all()
        right, allowed = challenge.gradient(changed, call, np.arange(problem.rows))
        assert (np.abs(by_rows(problem, logits.grad.double().numpy()) - right) <= 0.5 * allowed).all()


@pytest.mark.parametrize("key", ["N=1024,C=2", "N=4096,C=10,weight=random", "N=32768,C=3,reduction=sum"])
def test_rows_may_be_added_up_one_after_the_other(key: str):
    """Compilers do so where a row is short: of thousands of calls a few were beyond what a blocked sum is off by."""
    problem, calls = Problem.parse(key), 100
    _, changed = asked(problem, 1, calls)
    error = np.zeros(calls)
    for call, seen in enumerate(refreshed(problem, 1, calls)):
        weight = np.ones(problem.num_classes) if seen.weight is None else seen.weight.numpy()
        rows = functional.cross_entropy(seen.logits, seen.target, seen.weight, reduction="none").numpy()
        total, divisor = (np.add.accumulate(part, dtype=np.float32)[-1] for part in (rows, weight[seen.target.numpy()]))
        answer = total / divisor if problem.reduction == "mean" else total
        error[call] = answer - changed.losses[call, 0]
    assert np.std(error) <= np.min(changed.allowed) / 6
    assert np.std(changed.losses) > 1000 * np.max(changed.allowed)


def through_the_maximum(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    logits = logits.float()
    shifted = logits - logits.amax(dim=1, keepdim=True)
    return (shifted.exp().sum(1).log() - shifted.gather(1, target[:, None])[:, 0]).mean()


@pytest.mark.parametrize("logits", ["", ",logits=equal", ",logits=uniform,scale=0.01", ",logits=peaked"])
@pytest.mark.parametrize(
    "size", ["N=32,C=10", "N=32,C=100", "N=128,C=1000", "N=64,C=10000", "N=64,C=1000,dtype=bfloat16"]
)
def test_autograd_may_go_through_the_maximum(size: str, logits: str):
    """The judge passes such losses; their maximum's entry has an error of its own, however small the entry is."""
    problem = Problem.parse(size + logits)
    challenge, changed = asked(problem, 1, 6)
    for call, seen in enumerate(refreshed(problem, 1, 6)):
        x = seen.logits.clone().requires_grad_()
        through_the_maximum(x, seen.target).backward(seen.upstream.float())
        right, allowed = challenge.gradient(changed, call, np.arange(problem.rows))
        assert (np.abs(x.grad.double().numpy() - right) <= 0.7 * allowed).all()
        stale, _ = challenge.gradient(changed, call - 1, np.arange(problem.rows))
        assert (np.abs(stale - right) > allowed).any()


@pytest.mark.parametrize(("rows", "is_finite"), [(65536, False), (4096, True)])
def test_beyond_the_end_of_the_format_infinity_is_right(rows: int, *, is_finite: bool):
    problem = Problem.parse(f"N={rows},C=4,reduction=sum,dtype=float16")
    _, changed = asked(problem, 1, 3)
    for call, seen in enumerate(refreshed(problem, 1, 3)):
        answer = functional.cross_entropy(seen.logits, seen.target, reduction="sum")
        assert bool(answer.isfinite()) == bool(np.isfinite(changed.losses[call, 0])) == is_finite


def test_the_original_losses_are_those_before_any_refresh():
    problem = Problem.parse("N=8,C=10,reduction=none")
    truth = oracle.solve(problem, inputs.make(problem, 5))
    np.testing.assert_allclose(Challenge(problem, 5).original(), truth.loss.torch, rtol=1e-13)


def test_a_row_that_loses_its_largest_term_is_added_up_anew():
    problem = Problem.parse("N=16,C=4,logits=peaked,scale=20,dtype=float64")
    _, changed = asked(problem, 2, 200)
    for call, seen in enumerate(refreshed(problem, 2, 200)):
        expected = torch.logsumexp(seen.logits, 1).numpy()
        np.testing.assert_allclose(changed.logsumexp[call], expected, rtol=1e-12)
        loss = functional.cross_entropy(seen.logits, seen.target).item()
        assert abs(changed.losses[call, 0] - loss) <= changed.allowed[call, 0]


def test_what_is_added_up_anew_leaves_the_problem_as_it_is():
    problem = Problem.parse("N=16,C=4,logits=peaked,scale=20,dtype=float64")
    challenge, _ = asked(problem, 2, 200)
    np.testing.assert_array_equal(challenge.given.logits, inputs.make(problem, 2).logits)
