"""A published mistake, kept as it was meant: a custom cross-entropy with one minus too many.

`xentbench parity examples/tutorial_bug.py:custom_cross_entropy` must fail it and name the sign. Nothing is decorated
here: the harness judges any callable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def custom_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of `(N, C)` logits and `(N,)` class indices with the wrong sign.

    A tutorial writes its own loss in two steps, the logarithm of the softmax and the negative log-likelihood, and
    puts a minus before the second. But `F.nll_loss` holds that minus already: its result is `-log p[t]`. One more makes
    the loss negative, and training then drives the probability of the right class to 0.

    It was meant as `F.nll_loss(F.log_softmax(logits, dim=-1), targets)`.
    """
    log_probabilities = functional.log_softmax(logits, dim=-1)
    return -functional.nll_loss(log_probabilities, targets)
