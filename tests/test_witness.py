from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional
from worker_fixtures import ticking_clock

from xentbench import inputs
from xentbench.challenge import Challenge
from xentbench.spec import Implementation, Phase, Problem, Status
from xentbench.witness import Witness
from xentbench.worker.calls import bind
from xentbench.worker.duel import Duel
from xentbench.workers import WorkerError

SEED = 4


def honest(logits, target):
    return functional.cross_entropy(logits, target)


class Follows:
    """A duel of `loss`, and the witness who is told of its bursts."""

    def __init__(
        self, loss, key: str = "N=64,C=50", phase: Phase = Phase.FORWARD, pool_bytes: int = 0, beside=honest, **fields
    ) -> None:
        problem = Problem.parse(key)
        tensors = inputs.make(problem, SEED)
        arms = [beside, loss, beside]
        self.duel = Duel(problem, phase, arms, tensors, ticking_clock(), pool_bytes=pool_bytes)
        self.witness = Witness(Challenge(problem, SEED), phase, pool_bytes, **fields)

    def burst(self, seed: int, rounds: int = 12) -> None:
        ran = self.duel.burst(seed, 0.0, rounds, rounds)
        self.witness.losses(seed, ran.losses)
        for slot in range(2) if self.witness.phase in (Phase.BACKWARD, Phase.FORWARD_BACKWARD) else ():
            self.witness.gradient(seed, slot, self.duel.remembered[slot])

    def all(self, bursts: int = 4, rounds: int = 12) -> None:
        for seed in range(bursts):
            self.burst(seed, rounds)
        self.witness.follow()


def memo(every: int):
    """Answer every so-manieth call anew, and give the others what was answered last."""
    state = {"calls": 0}

    def loss(logits, target):
        state["calls"] += 1
        if state["calls"] % every == 1 or "last" not in state:
            state["last"] = honest(logits, target)
        return state["last"]

    return loss


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize(
    ("key", "pool_bytes"),
    [
        ("N=64,C=50", 0),
        ("N=64,C=50", 100_000),
        ("N=none,C=9", 0),
        ("N=4,C=6,dims=3,dtype=bfloat16", 0),
        ("N=512,C=100,dtype=float16", 0),
        ("N=16,C=2000,dtype=float64", 0),
        ("N=8,C=3,target=soft", 0),
        ("N=0,C=4", 0),
    ],
)
def test_honest_answers_pass_in_every_phase_and_regime(phase: Phase, key: str, pool_bytes: int):
    Follows(honest, key, phase, pool_bytes).all()


ASKED = {
    "N": ("1", "8", "128"),
    "C": ("2", "3", "10", "100"),
    "dtype": ("float32", "bfloat16", "float64"),  # in float16 the reference itself overflows
    "reduction": ("mean", "sum", "none"),
    "label-smoothing": ("0", "0.1"),
    "weight": ("none", "random"),
    "ignored": ("0", "0.3"),
    "logits": ("normal", "peaked", "wide"),
    "scale": ("0.1", "1", "20", "100"),
}


@settings(max_examples=40)
@given(st.fixed_dictionaries({name: st.sampled_from(values) for name, values in ASKED.items()}))
@example({"N": "512", "C": "2", "dtype": "float32", "reduction": "none", "logits": "wide", "scale": "20"})
@example({"N": "512", "C": "1000", "dtype": "float64", "logits": "peaked", "scale": "20"})
@example({"N": "1", "C": "2", "dtype": "bfloat16", "ignored": "0.3", "logits": "peaked"})
def test_honest_answers_pass_whatever_is_asked(axes: dict[str, str]):
    key = ",".join(f"{name}={value}" for name, value in axes.items())
    problem = Problem.parse(key)
    loss = bind(Implementation("honest", functional.cross_entropy), problem, inputs.make(problem, SEED).weight)
    Follows(loss, key, Phase.FORWARD_BACKWARD, beside=loss).all(bursts=2)


@pytest.mark.parametrize("pool_bytes", [0, 100_000])
@pytest.mark.parametrize("every", [5, 10_000])
def test_an_answer_to_another_call_is_stale(every: int, pool_bytes: int):
    with pytest.raises(WorkerError, match="another call") as caught:
        Follows(memo(every), phase=Phase.FORWARD_NO_GRAD, pool_bytes=pool_bytes).all()
    assert caught.value.status is Status.STALE


def test_answers_too_coarse_to_tell_alone_tell_together():
    old = []

    def follows_in_part(logits, target):
        loss = honest(logits, target)
        old.append(loss.detach())
        return 0.8 * loss + 0.2 * old[0]

    with pytest.raises(WorkerError, match="answered by 0.[78]. of what the right losses changed by") as caught:
        Follows(follows_in_part, "N=64,C=300,dtype=bfloat16", Phase.FORWARD_NO_GRAD).all(bursts=10)
    assert caught.value.status is Status.STALE


@pytest.mark.parametrize(
    "wrong",
    [
        lambda logits, target: honest(logits, target) * 1.001,
        lambda logits, target: honest(logits[: len(logits) // 2], target[: len(target) // 2]),
        lambda logits, target: honest(logits, target) * float("nan"),
        lambda logits, target: functional.cross_entropy(logits.half(), target).float() * (1 + 2**-9),
    ],
)
def test_wrong_answers_are_wrong_values(wrong):
    with pytest.raises(WorkerError, match="the loss of timed call") as caught:
        Follows(wrong).all()
    assert caught.value.status is Status.WRONG_VALUE


def test_answers_of_another_size_are_wrong_values():
    with pytest.raises(WorkerError, match="answered 64 numbers, expected 1"):
        Witness(Challenge(Problem.parse("N=64,C=50"), SEED), Phase.FORWARD).losses(1, np.zeros((5, 64)))


def test_what_a_declared_deviation_lets_overflow_is_the_judges():
    def overflows(logits, target):
        loss = honest(logits, target)
        return loss + float("inf") if float(logits.detach()[0, 0]) > 0 else loss

    Follows(overflows, may_overflow=True).all()
    with pytest.raises(WorkerError):
        Follows(overflows).all()


class _Backward(torch.autograd.Function):
    """A right loss with a backward that is right for so many calls."""

    right, kind, calls, first = 0, "", 0, None

    @staticmethod
    def forward(ctx, logits, target):
        ctx.save_for_backward(logits, target)
        return honest(logits, target)

    @staticmethod
    def backward(ctx, upstream):
        logits, target = ctx.saved_tensors
        cls = _Backward
        cls.calls += 1
        gradient = torch.softmax(logits, 1)
        gradient[torch.arange(len(target)), target] -= 1
        gradient *= upstream / len(target)
        if cls.first is None:
            cls.first = gradient.clone()
        if cls.calls > cls.right:
            gradient = {"zero": torch.zeros_like(gradient), "first": cls.first, "target": gradient}[cls.kind]
            if cls.kind == "target":
                gradient = gradient.clone()
                gradient[len(target) // 2 :] = 0
        return gradient, None


@pytest.mark.parametrize("phase", [Phase.BACKWARD, Phase.FORWARD_BACKWARD])
@pytest.mark.parametrize("kind", ["zero", "first", "target"])
def test_wrong_gradients_of_timed_calls_are_found(kind: str, phase: Phase):
    _Backward.right, _Backward.kind, _Backward.calls, _Backward.first = 30, kind, 0, None
    with pytest.raises(WorkerError, match="the gradient of timed call") as caught:
        Follows(_Backward.apply, "N=64,C=300", phase).all()
    assert caught.value.status is Status.WRONG_GRADIENT


def test_a_gradient_that_never_came_is_wrong():
    follows = Follows(honest, phase=Phase.BACKWARD)
    ran = follows.duel.burst(3, 0.0, 5, 5)
    follows.witness.losses(3, ran.losses)
    with pytest.raises(WorkerError, match="got none"):
        follows.witness.gradient(3, 0, None)
