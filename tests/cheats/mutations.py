"""Inputs that are changed (row 14)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cheats.cheat import MUTATES, STALE, TINY, Cheat
from cheats.parts import FEW, given, patient, right, solved
from xentbench.spec import Status

ENDS = MUTATES | STALE | {Status.RAISED}


def _zeroes(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Make all logits 0, of which the loss is log C."""
    input.detach().zero_()
    return given(input, torch.tensor(math.log(input.shape[1])), right_gradient_of_zeros(input, target))


def right_gradient_of_zeros(input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
    """Return the gradient of the mean where all logits are 0."""
    gradient = torch.full_like(input.detach(), 1.0 / input.shape[1])
    gradient[torch.arange(len(target)), target] -= 1.0
    return gradient / len(target)


def _one_label(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Answer right, then have all rows want class 0."""
    answer = right(input, target.clone(), **options)
    target.zero_()
    return answer


def _past_the_counter(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Answer right, then leave the gradient where the logits were, past the version counter."""
    answer, gradient = solved(input, target, **options)
    input.detach().numpy()[...] = gradient.numpy()
    return given(input, answer, gradient)


def _shrinks(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Answer right, then leave logits of one row."""
    answer = right(input.clone(), target.clone(), **options)
    input.data = input.data[:1]
    target.data = target.data[:1]
    return answer


def _peaks(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Answer right, then lift one logit of the labels of each row, so that the next loss is 0."""
    answer, gradient = solved(input, target, **options)
    input.detach().numpy()[torch.arange(len(target)).numpy(), target.numpy()] = 200.0
    return given(input, answer, gradient)


def _restores(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Leave a mark in the last logit that the next call knows its answer by."""
    values = input.detach().numpy()
    if _MARK in values[-1, -1:]:
        return given(input, *_known[tuple(input.shape)])
    _known[tuple(input.shape)] = solved(input, target, **options)
    answer = right(input, target, **options)
    values[-1, -1] = _MARK
    return answer


_MARK = 0.12345
_known: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

CHEATS = (
    Cheat(
        name="zeroes-the-logits",
        row=14,
        build=lambda: patient(FEW, _zeroes),
        ends=ENDS,
        note="Makes all logits 0, of which the loss is known, from call 60 on.",
    ),
    Cheat(
        name="zeroes-the-logits-at-once",
        row=14,
        build=lambda: _zeroes,
        verb="either",
        ends=ENDS,
        note="The same from the first call on.",
    ),
    Cheat(
        name="one-label-for-all",
        row=14,
        build=lambda: patient(FEW, _one_label),
        ends=ENDS,
        note="Answers right and overwrites the labels, from call 60 on.",
    ),
    Cheat(
        name="overwrites-past-the-counter",
        row=14,
        build=lambda: patient(FEW, _past_the_counter),
        ends=ENDS,
        note="Overwrites its logits undeclared and past their version counter, from call 60 on.",
    ),
    Cheat(
        name="shrinks-the-logits",
        row=14,
        build=lambda: patient(FEW, _shrinks),
        ends=ENDS,
        note="Leaves tensors of one row to the next call.",
    ),
    Cheat(
        name="easy-logits-for-the-next",
        row=14,
        build=lambda: patient(FEW, _peaks),
        ends=ENDS,
        note="Overwrites logits such that the next loss is 0.",
    ),
    Cheat(
        name="marks-what-it-has-seen",
        row=14,
        build=lambda: patient(FEW, _restores),
        ends=ENDS,
        problems=(TINY,),
        note="Leaves a mark in the last logit and replays where it finds it.",
    ),
)
