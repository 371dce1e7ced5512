"""`focal-gamma-0`: focal loss with its focusing parameter at 0, where it is cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from xentbench.implementations import _options

from xentbench import implementation

if TYPE_CHECKING:
    from torch import Tensor

GAMMA: Final = 0.0
"""Focusing parameter; the paper recommends 2, and 0 gives cross-entropy."""


def focal(log_probability: Tensor) -> Tensor:
    """Return `-(1 - p)^GAMMA * log(p)`, elementwise."""
    modulation = (1.0 - log_probability.exp()) ** GAMMA
    return -modulation * log_probability


def label_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return the focal loss of the label's probability: `(*N, C)`, `(*N)` to `(*N)`."""
    log_probability = torch.log_softmax(logits, dim=-1)
    return focal(log_probability.gather(-1, label.unsqueeze(-1)).squeeze(-1))


def class_losses(logits: Tensor) -> Tensor:
    """Return the focal loss of every class's probability: `(*N, C)` to `(*N, C)`."""
    return focal(torch.log_softmax(logits, dim=-1))


@implementation(
    "focal-gamma-0",
    source="Lin et al. 2017, arXiv:1708.02002, equation 4",
    supports=_options.refusal,
)
def focal_gamma_0(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Focal loss at gamma 0: a loss that holds cross-entropy as a special case.

    An example of a generalisation that can be checked: whoever writes a focal loss can test it here with gamma at 0.
    Formula: `loss = -(1 - p[t])^gamma * log p[t]`, `p = softmax(x)`, gamma = 0.
    Shapes: logits `(C,)`, `(N, C)` or `(N, C, d1, …)`; target as `F.cross_entropy` takes it.
    """
    return _options.with_options(
        label_loss, class_losses, logits, target, weight, ignore_index, reduction, label_smoothing
    )
