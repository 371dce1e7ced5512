"""`nll-log-softmax`: the two functions that `F.cross_entropy` is made of, called one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional
from xentbench.implementations import _options

from xentbench import implementation

if TYPE_CHECKING:
    from torch import Tensor


def label_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return `nll_loss(log_softmax(x), t)` of each row: `(*N, C)`, `(*N)` to `(*N)`."""
    log_probability = functional.log_softmax(logits, dim=-1)
    return functional.nll_loss(log_probability.movedim(-1, min(1, logits.dim() - 1)), label, reduction="none")


def class_losses(logits: Tensor) -> Tensor:
    """Return `-log_softmax(x)[j]` of every class: `(*N, C)` to `(*N, C)`."""
    return -functional.log_softmax(logits, dim=-1)


@implementation(
    "nll-log-softmax",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.nll_loss.html",
    supports=_options.refusal,
)
def nll_log_softmax(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """`F.nll_loss` of `F.log_softmax`: what a network with a log-softmax layer trains with.

    An example of the textbook's two steps; `F.cross_entropy` is these two behind one name. `F.nll_loss` takes class
    indices, weights, ignored rows and the reduction itself, and knows neither label smoothing nor probabilities.
    Formula: `y = log_softmax(x)`; `loss = -y[t]` (the minus is inside `F.nll_loss`: one more would be a mistake).
    Shapes: logits `(C,)`, `(N, C)` or `(N, C, d1, …)`; target as `F.cross_entropy` takes it.
    """
    if label_smoothing > 0 or target.shape == logits.shape:
        return _options.with_options(
            label_loss, class_losses, logits, target, weight, ignore_index, reduction, label_smoothing
        )
    log_probability = functional.log_softmax(logits, dim=min(1, logits.dim() - 1))
    return functional.nll_loss(log_probability, target, weight=weight, ignore_index=ignore_index, reduction=reduction)
