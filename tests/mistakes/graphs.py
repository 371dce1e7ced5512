"""Right on the first backward, wrong on the second one or on the derivative of the gradient (class 24)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from xentbench.mistakes.call import after, wide
from xentbench.mistakes.frame import Frame, class_losses
from xentbench.mistakes.gradients import on_backward
from xentbench.mistakes.kernel import Kernel, Saved, apply, gradient_of, scaled
from xentbench.mistakes.mistake import Mistake

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def _permitted() -> None:
    """Let a backward run although a graph of it is asked for."""


def _scaled_in_place(gradient: Tensor, share: Tensor, saved: Saved) -> Tensor:
    """Scale the gradient where it is kept, so that a second backward begins with what the first one scaled."""
    if not hasattr(saved.context, "gradient"):
        saved.context.gradient = scaled(gradient, torch.ones_like(share), saved)
        saved.context.gradient *= share
    else:
        saved.context.gradient *= share
    kept: Tensor = saved.context.gradient
    return kept.clone()


def _accumulated(gradient: Tensor, share: Tensor, saved: Saved) -> Tensor:
    """Add to what an earlier backward left in the buffer."""
    total = scaled(gradient, share, saved) + getattr(saved.context, "total", 0.0)
    saved.context.total = total.detach()
    return total


def _freed(gradient: Tensor, share: Tensor, saved: Saved) -> Tensor:
    """Let the buffer go after the first backward; what is allocated later in its place is zero."""
    first = not hasattr(saved.context, "freed")
    saved.context.freed = True
    return scaled(gradient, share, saved) * float(first)


def _constant_gradient(saved: Saved) -> Tensor:
    """Return what forward saved: an intermediate, of which autograd knows no origin."""
    return gradient_of(saved).detach()


def _with_constant_logsumexp(saved: Saved) -> Tensor:
    """Recompute `exp(x - logsumexp)` from the logits and a log-sum-exp that autograd takes for a constant."""
    p = (saved.logits - saved.logits.detach().logsumexp(-1, keepdim=True)).exp()
    return saved.target.detach().sum(-1, keepdim=True) * p - saved.target.detach()


def _recomputed(saved: Saved) -> Tensor:
    """Recompute the softmax from the logits, with a graph."""
    return saved.target.sum(-1, keepdim=True) * saved.logits.softmax(-1) - saved.target


def _reversed_curvature(saved: Saved) -> Tensor:
    """Return the right gradient whose derivative has the wrong sign."""
    right = _recomputed(saved)
    return 2.0 * right.detach() - right


class _DetachedSoftmax(torch.autograd.Function):
    """`-log softmax` with a backward that goes on from a saved softmax."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        losses = class_losses(logits)
        ctx.save_for_backward((-losses).exp())
        return losses

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (p,) = ctx.saved_tensors
        gradient: Tensor = p * upstream.sum(-1, keepdim=True) - upstream
        return gradient


def _from_saved_softmax(logits: Tensor) -> Tensor:
    return apply(_DetachedSoftmax, wide(logits))


def _kernel(gradient: Callable[[Saved], Tensor]) -> Kernel:
    return Kernel(gradient=gradient, refuse=_permitted)


MISTAKES = (
    Mistake("saved-gradient-scaled-in-place", 24, Kernel(scaled=_scaled_in_place), "A second backward scales twice."),
    Mistake("saved-gradient-accumulates", 24, Kernel(scaled=_accumulated), "A second backward adds to the first."),
    Mistake("saved-gradient-freed", 24, Kernel(scaled=_freed), "A second backward finds zeros."),
    Mistake("gradient-is-a-constant", 24, _kernel(_constant_gradient), "The gradient's derivative is dropped."),
    Mistake(
        "logsumexp-is-a-constant",
        24,
        _kernel(_with_constant_logsumexp),
        "The gradient's derivative is diag(p): -p p^T is missing.",
    ),
    Mistake("curvature-negated", 24, _kernel(_reversed_curvature), "The gradient's derivative has the wrong sign."),
    Mistake(
        "upstream-is-a-constant",
        24,
        after(lambda loss, _: on_backward(loss, torch.Tensor.detach)),
        "The gradient's derivative by the upstream is dropped.",
    ),
    Mistake(
        "saved-softmax-is-a-constant",
        24,
        Frame(class_losses=_from_saved_softmax),
        "A softmax saved in forward is used in backward without once_differentiable.",
    ),
)
