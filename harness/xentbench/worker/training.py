"""Train a small model with a loss, and note at every step what the loss really is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from xentbench.worker.calls import INPUTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xentbench.models import Lesson
    from xentbench.worker.calls import Loss

# Bound before any implementation is loaded, as in `serving`.
TRUE_LOSS = functional.cross_entropy


@dataclass(frozen=True, slots=True)
class Progress:
    """What came of a training.

    Attributes:
        losses: of every step made, the true mean loss of its batch before the step; float64.
        reported: of every step made, what the loss that trained it said; float64.
        weights: at the end.
        changed: which arguments the loss wrote to, e.g. `logits at step 3`, the first step of each.
    """

    losses: torch.Tensor
    reported: torch.Tensor
    weights: tuple[torch.Tensor, ...]
    changed: tuple[str, ...] = ()


def train(lesson: Lesson, loss: Loss, budget_s: float = float("inf")) -> Progress:
    """Train by gradients with momentum, until the lesson or the time is over.

    The true loss is taken by `F.cross_entropy` in float64 from the logits that the loss is then given: a loss may say
    what is right and send back what is wrong, and the other way round.

    Args:
        lesson: what to train on, and how fast.
        loss: called as `loss(logits, target)` once a step; logits float32 `(N, C)`, target int64 `(N,)`.
        budget_s: no step begins later than that, in seconds.
    """
    weights = tuple(weight.clone().requires_grad_() for weight in lesson.weights)
    speeds = [torch.zeros_like(weight) for weight in weights]
    losses, reported, changed = [], [], dict[str, int]()
    end_s = time.perf_counter() + budget_s
    for step in range(lesson.steps):
        if time.perf_counter() > end_s:
            break
        logits, target = lesson.logits(weights, step), lesson.target[step].clone()
        was = logits.detach().clone()
        losses.append(float(TRUE_LOSS(was.double(), target)))
        result = loss(logits, target)
        result.backward()  # type: ignore[no-untyped-call]
        reported.append(float(result.detach()))
        for name in _changed((logits, target), (was, lesson.target[step])):
            changed.setdefault(name, step)
        _descend(weights, speeds, lesson.rate * (1.0 - step / lesson.steps), lesson.momentum)
    true, said = (torch.tensor(numbers, dtype=torch.float64) for numbers in (losses, reported))
    where = tuple(f"{name} at step {step}" for name, step in changed.items())
    return Progress(true, said, tuple(weight.detach() for weight in weights), where)


def call_once(lesson: Lesson, loss: Loss) -> None:
    """Call forward and backward as the first step does: whatever the loss builds at its first call is built."""
    weights = tuple(weight.clone().requires_grad_() for weight in lesson.weights)
    loss(lesson.logits(weights, 0), lesson.target[0].clone()).backward()  # type: ignore[no-untyped-call]


def _descend(weights: Sequence[torch.Tensor], speeds: Sequence[torch.Tensor], rate: float, momentum: float) -> None:
    """Take one step, and let go of the gradients; a weight without one stays where its momentum takes it."""
    with torch.no_grad():
        for weight, speed in zip(weights, speeds, strict=True):
            speed.mul_(momentum)
            if weight.grad is not None:
                speed.add_(weight.grad)
            weight.sub_(speed, alpha=rate)
            weight.grad = None


def _changed(now: Sequence[torch.Tensor], was: Sequence[torch.Tensor]) -> list[str]:
    """Name the arguments that are not, byte for byte, what they were."""
    pairs = zip(INPUTS, now, was, strict=False)
    return [name for name, one, other in pairs if not torch.equal(_bytes(one), _bytes(other))]


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(torch.uint8)
