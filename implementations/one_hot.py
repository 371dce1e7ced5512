"""`one-hot`: the definition as a sum over all classes, with the label spelt out as a one-hot row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from xentbench.implementations import _options

from xentbench import implementation

if TYPE_CHECKING:
    from torch import Tensor


def class_losses(logits: Tensor) -> Tensor:
    """Return `-log softmax(x)[j]` of every class: `(*N, C)` to `(*N, C)`."""
    return -torch.log_softmax(logits, dim=-1)


def label_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return `sum_j y[j] * -log softmax(x)[j]`, y one-hot at the label: `(*N, C)`, `(*N)` to `(*N)`."""
    one_hot = functional.one_hot(label, logits.shape[-1])
    # Chosen by `where`, not by multiplication: a class masked with -inf has an infinite loss, and 0 * inf is NaN.
    return torch.where(one_hot.bool(), class_losses(logits), 0.0).sum(dim=-1)


@implementation(
    "one-hot",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.one_hot.html",
    supports=_options.refusal,
)
def one_hot(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The definition with a one-hot target: every class is visited where one would do.

    An example of work that grows with C for nothing: eight bytes of one-hot for each logit, and a sum of zeros.
    Formula: `loss = -sum_j y[j] log softmax(x)[j]` with `y[t] = 1`, else 0.
    Shapes: logits `(C,)`, `(N, C)` or `(N, C, d1, …)`; target as `F.cross_entropy` takes it.
    """
    return _options.with_options(
        label_loss, class_losses, logits, target, weight, ignore_index, reduction, label_smoothing
    )
