"""`autograd-function`: a `torch.autograd.Function` that saves the log-sum-exp; its gradient is a formula, p - y."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.autograd.function import BackwardCFunction, Function, FunctionCtx
from xentbench.implementations import _options

from xentbench import implementation

if TYPE_CHECKING:
    from torch import Tensor


class LabelLoss(Function):
    """`logsumexp(x) - x[label]` of each row, gradient `softmax(x) - y`."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, label: Tensor) -> Tensor:
        """Map `(*N, C)` logits and `(*N, 1)` labels to `(*N)` losses."""
        logsumexp = torch.logsumexp(logits, dim=-1, keepdim=True)
        ctx.save_for_backward(logits, label, logsumexp)
        return (logsumexp - logits.gather(-1, label)).squeeze(-1)

    @staticmethod
    def backward(ctx: BackwardCFunction, upstream: Tensor) -> tuple[Tensor, None]:
        """Return `(softmax(x) - y) * upstream`, y one-hot at the label; the label gets no gradient."""
        _options.refuse_double_backward("autograd-function")
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        logits, label, logsumexp = saved
        log_probability = logits - logsumexp
        # expm1(log p) is p - 1 without cancellation.
        at_label = log_probability.gather(-1, label).expm1_()
        gradient = log_probability.exp_().scatter_(-1, label, at_label)
        return gradient.mul_(upstream.unsqueeze(-1)), None


class ClassLosses(Function):
    """`-log softmax(x)` of every class, gradient `softmax(x) * sum(upstream) - upstream`."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor) -> Tensor:
        """Map `(*N, C)` logits to `(*N, C)` losses."""
        losses = torch.logsumexp(logits, dim=-1, keepdim=True) - logits
        ctx.save_for_backward(losses)
        return losses

    @staticmethod
    def backward(ctx: BackwardCFunction, upstream: Tensor) -> Tensor:
        """Return the gradient with respect to the logits, `(*N, C)`."""
        _options.refuse_double_backward("autograd-function")
        (losses,) = ctx.saved_tensors
        return (-losses).exp_() * upstream.sum(dim=-1, keepdim=True) - upstream


def label_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return `logsumexp(x) - x[label]`: `(*N, C)`, `(*N)` to `(*N)`."""
    loss: Tensor = LabelLoss.apply(logits, label.unsqueeze(-1))  # type: ignore[no-untyped-call]
    return loss


def class_losses(logits: Tensor) -> Tensor:
    """Return `logsumexp(x) - x[j]` of every class: `(*N, C)` to `(*N, C)`."""
    losses: Tensor = ClassLosses.apply(logits)  # type: ignore[no-untyped-call]
    return losses


@implementation(
    "autograd-function",
    source="https://docs.pytorch.org/docs/stable/notes/extending.html",
    supports=_options.refusal,
)
def autograd_function(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Log-sum-exp saved in forward, softmax minus one-hot in backward: one number a row is kept, not C.

    An example of a gradient written by hand: the derivative of the loss is `p - y`, and autograd need not find out. A
    second derivative is refused: none is written, and a silent zero would be worse.
    Formula: `loss = logsumexp(x) - x[t]`; gradient `(exp(x - logsumexp(x)) - y) * upstream`.
    Shapes: logits `(C,)`, `(N, C)` or `(N, C, d1, …)`; target as `F.cross_entropy` takes it.
    """
    return _options.with_options(
        label_loss, class_losses, logits, target, weight, ignore_index, reduction, label_smoothing
    )
