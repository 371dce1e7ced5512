"""The loss that the models of this package are trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def token_loss(
    input: Tensor,  # noqa: A002 - as in torch
    target: Tensor,
    ignore_index: int = -100,
    reduction: str = "mean",
    z_loss: float = 0.0,
) -> Tensor:
    """Cross-entropy of tokens, and `z_loss` times the squared log-partition, which keeps logits from drifting.

    Args:
        input: logits, (N, C).
        target: token ids, (N,), int64.
        ignore_index: token id that is left out.
        reduction: none, mean (over tokens that are not left out) or sum.
        z_loss: weight of the second term; 0 leaves plain cross-entropy.
    """
    if input.dim() != 2:  # noqa: PLR2004
        msg = f"logits must be (N, C), got {tuple(input.shape)}"
        raise ValueError(msg)
    if reduction not in ("none", "mean", "sum"):
        msg = f"reduction must be none, mean or sum, got {reduction!r}"
        raise ValueError(msg)
    kept = target != ignore_index
    tokens = target.where(kept, 0)
    losses = -input.log_softmax(1).gather(1, tokens[:, None])[:, 0]
    if z_loss:
        losses = losses + z_loss * input.logsumexp(1).square()
    losses = losses.where(kept, 0.0)
    if reduction == "none":
        return losses
    return losses.sum() / kept.sum() if reduction == "mean" else losses.sum()
