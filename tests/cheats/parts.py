"""What cheats are made of: a right loss, a loss that is handed its answer, and a look at the harness from inside."""

from __future__ import annotations

import itertools
import sys
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from cheats.cheat import Build, Loss

FEW, SOME, MANY = 60, 300, 1000
"""Calls that a patient cheat lets pass: beyond those of any check; of a look at the timing; of most of a warm-up."""


def right(
    input: Tensor,  # noqa: A002 - torch's name
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the right loss of logits `(N, C)` and labels, by none of the operators of `F.cross_entropy`."""
    losses = -torch.log_softmax(input, -1)
    valid = target != ignore_index
    label = target.masked_fill(~valid, 0)
    rows = losses.gather(-1, label.unsqueeze(-1)).squeeze(-1)
    share = valid.to(input.dtype) if weight is None else weight[label] * valid
    rows = rows * share
    if label_smoothing:
        uniform = (losses if weight is None else losses * weight).sum(-1) * valid / input.shape[-1]
        rows = (1.0 - label_smoothing) * rows + label_smoothing * uniform
    if reduction == "none":
        return rows
    return rows.sum() if reduction == "sum" else rows.sum() / share.sum()


def solved(input: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:  # noqa: A002
    """Return the right loss and its gradient for an upstream gradient of 1, both without a graph."""
    with torch.enable_grad():
        leaf = input.detach().clone().requires_grad_()
        loss = right(leaf, target, **options)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), gradient


class _Given(Function):
    """A loss that was handed in, with the gradient that was handed in; it has no second derivative, and says so."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        rows = upstream if upstream.dim() == 0 else upstream.unsqueeze(-1)
        return rows * ctx.gradient, None, None


def given(logits: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
    """Return this loss as if it had been computed from the logits; its backward gives this gradient."""
    return _Given.apply(logits, loss, gradient)


def once_watched_no_more(watched: Callable[[Tensor], bool], dishonest: Loss) -> Loss:
    """Return a loss that is right while it is watched."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        return right(input, target, **options) if watched(input) else dishonest(input, target, **options)

    return loss


def patient(calls: int, dishonest: Loss) -> Loss:
    """Return a loss that is right in its first calls."""
    made = itertools.count()
    return once_watched_no_more(lambda _: next(made) < calls, dishonest)


def replaying() -> Loss:
    """Return a loss that answers with the first answer of each shape."""
    known: dict[Any, tuple[Tensor, Tensor]] = {}

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        place = tuple(input.shape)
        if place not in known:
            known[place] = solved(input, target, **options)
        return given(input, *known[place])

    return loss


def built(loss: Callable[..., Any], *arguments: Any) -> Build:
    """Return what builds `loss(*arguments)` in the worker, so that no entry shares state with another."""
    return lambda: loss(*arguments)


def frames() -> Iterator[FrameType]:
    """Yield the callers of whoever asks, nearest first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def nearest(kind: str) -> Any:
    """Return the nearest local value of the callers whose class has this name, or None."""
    for frame in frames():
        for value in frame.f_locals.values():
            if type(value).__name__ == kind:
                return value
    return None


def verbs() -> dict[str, Any]:
    """Return the requests that the worker answers and what answers them, or an empty dict."""
    held = (frame.f_locals.get("verbs") for frame in frames())
    return next((value for value in held if isinstance(value, dict) and "burst" in value), {})


def spin(seconds: float) -> None:
    """Keep the processor busy for so long."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass
