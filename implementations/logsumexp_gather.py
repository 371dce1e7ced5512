"""`logsumexp-gather`: the normaliser by `torch.logsumexp`, less the label's logit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from xentbench.implementations import _options

from xentbench import implementation

if TYPE_CHECKING:
    from torch import Tensor


def label_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return `logsumexp(x) - x[label]`: `(*N, C)`, `(*N)` to `(*N)`."""
    return torch.logsumexp(logits, dim=-1) - logits.gather(-1, label.unsqueeze(-1)).squeeze(-1)


def class_losses(logits: Tensor) -> Tensor:
    """Return `logsumexp(x) - x[j]` of every class: `(*N, C)` to `(*N, C)`."""
    return torch.logsumexp(logits, dim=-1, keepdim=True) - logits


@implementation(
    "logsumexp-gather",
    source="https://docs.pytorch.org/docs/stable/generated/torch.logsumexp.html",
    supports=_options.refusal,
)
def logsumexp_gather(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Log-sum-exp less the label's logit: no `(N, C)` array of log-probabilities.

    An example of the form that fused kernels use (Wijmans et al. 2024, arXiv:2411.09009), and of its price: where all
    logits share a large offset, log-sum-exp and label logit are both large and their difference keeps few digits.
    Formula: `loss = log(sum_j exp(x[j])) - x[t]`.
    Shapes: logits `(C,)`, `(N, C)` or `(N, C, d1, …)`; target as `F.cross_entropy` takes it.
    """
    return _options.with_options(
        label_loss, class_losses, logits, target, weight, ignore_index, reduction, label_smoothing
    )
