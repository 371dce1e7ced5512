"""Gradients that are wrong, old or absent where they are timed; numbers that are none (rows 17 and 20)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from cheats.cheat import GRADIENT, SMALL, STALE, TINY, WRONG, Cheat
from cheats.parts import FEW, SOME, given, patient, right, solved
from xentbench.spec import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from cheats.cheat import Loss

ONLY = (Phase.FORWARD_BACKWARD,)


def _instead(make: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Loss:
    """Return the right loss with another gradient, made of logits, target and the right one."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        answer, gradient = solved(input, target, **options)
        return given(input, answer, make(input.detach(), target, gradient))

    return loss


def _one_hot_only(logits: Tensor, target: Tensor, _: Tensor) -> Tensor:
    gradient = torch.zeros_like(logits)
    gradient[torch.arange(len(target)), target] = -1.0 / len(target)
    return gradient


def _first_of_shape() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    known: dict[tuple[int, ...], Tensor] = {}
    return lambda logits, _, gradient: known.setdefault(tuple(logits.shape), gradient)


def _last_time() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    last: dict[tuple[int, ...], Tensor] = {}

    def make(logits: Tensor, _: Tensor, gradient: Tensor) -> Tensor:
        before = last.get(tuple(logits.shape), gradient)
        last[tuple(logits.shape)] = gradient
        return before

    return make


def _half_of_the_rows(logits: Tensor, _: Tensor, gradient: Tensor) -> Tensor:
    return torch.cat([gradient[: len(logits) // 2], torch.zeros_like(gradient[len(logits) // 2 :])])


class _Deaf(Function):
    """A loss whose backward gives nothing back."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, answer: Tensor) -> Tensor:
        return answer.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, None]:
        return None, None


def _absent(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    return _Deaf.apply(input, right(input.detach(), target, **options))


def _upstream_left_out() -> Any:
    class Careless(Function):
        @staticmethod
        def forward(ctx: Any, logits: Tensor, answer: Tensor, gradient: Tensor) -> Tensor:
            ctx.gradient = gradient
            return answer.clone()

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, upstream: Tensor) -> Any:
            return ctx.gradient, None, None

    return lambda input, target, **options: Careless.apply(input, *solved(input, target, **options))  # noqa: A006


def _right_at_first_and_last() -> Any:
    """Give every eighth gradient right, and zeros between."""
    made = itertools.count()
    return _instead(lambda logits, _, gradient: gradient if next(made) % 8 == 0 else torch.zeros_like(logits))


def _number(value: float) -> Loss:
    """Return this in the place of every loss."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        return given(input, torch.tensor(value), torch.full_like(input.detach(), value))

    return loss


def _nan_in_one_place(logits: Tensor, _: Tensor, gradient: Tensor) -> Tensor:
    gradient = torch.zeros_like(gradient)
    gradient[0] = torch.nan
    return gradient


def _late(name: str, build: Callable[[], Loss], note: str, calls: int = FEW, row: int = 17) -> Cheat:
    return Cheat(
        name=name,
        row=row,
        build=lambda: patient(calls, build()),
        ends=GRADIENT | WRONG,
        problems=(TINY,) if calls > FEW else (TINY, SMALL),
        phases=ONLY,
        patience=calls,
        note=note,
    )


CHEATS = (
    _late("gradient-of-zeros", lambda: _instead(lambda x, *_: torch.zeros_like(x)), "Zeros, from call 60 on."),
    _late("gradient-of-labels-only", lambda: _instead(_one_hot_only), "No softmax in it, from call 60 on."),
    _late("gradient-of-the-first-call", lambda: _instead(_first_of_shape()), "One for each shape, from call 60 on."),
    _late("gradient-of-the-call-before", lambda: _instead(_last_time()), "That of the call before, from call 60 on."),
    _late("gradient-of-half-of-the-rows", lambda: _instead(_half_of_the_rows), "Half of it zeros, from call 60 on."),
    _late("gradient-absent", lambda: _absent, "None at all, from call 60 on."),
    _late(
        "gradient-without-upstream", _upstream_left_out, "Not multiplied by the upstream one, from call 300 on.", SOME
    ),
    _late("gradient-one-in-eight", _right_at_first_and_last, "Seven of eight are zeros, from call 60 on."),
    Cheat(
        name="nan-later",
        row=20,
        build=lambda: patient(FEW, _number(float("nan"))),
        ends=STALE | WRONG,
        note="Answers NaN, from call 60 on.",
    ),
    Cheat(
        name="infinity-later",
        row=20,
        build=lambda: patient(FEW, _number(float("inf"))),
        ends=STALE | WRONG,
        note="Answers infinity, from call 60 on.",
    ),
    Cheat(
        name="nan-at-once",
        row=20,
        build=lambda: _number(float("nan")),
        verb="parity",
        ends=STALE | WRONG,
        note="Answers NaN.",
    ),
    _late("gradient-of-nan", lambda: _instead(_nan_in_one_place), "NaN in one row, zeros elsewhere.", row=20),
)
