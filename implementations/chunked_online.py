"""`chunked-online`: the classes in chunks, with a running maximum and a running sum that is rescaled as it grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch.autograd.function import BackwardCFunction, Function, FunctionCtx
from xentbench.implementations import _options

from xentbench import implementation

if TYPE_CHECKING:
    from torch import Tensor

CHUNK: Final = 4096
"""Classes a chunk: long enough that the loop costs little, short enough that a chunk stays in a cache."""


def online_stats(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return `max(x)` and `sum_j exp(x[j] - max(x))` of each row in one pass: `(*N, C)` to two of `(*N)`.

    One chunk of exponentials is held at a time. With maximum m and sum s of the chunks so far, and m' the larger of m
    and the next chunk's maximum, `s' = s * exp(m - m') + sum_chunk exp(x - m')`. The half dtypes are added up in
    float32, which is also returned.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    # The lowest finite number rather than -inf: a first chunk of -inf alone must not lead to -inf - -inf.
    maximum = logits.new_full(logits.shape[:-1], torch.finfo(dtype).min, dtype=dtype)
    total = torch.zeros_like(maximum)
    for chunk in torch.split(logits, CHUNK, dim=-1):
        values = chunk.to(dtype)
        larger = torch.maximum(maximum, values.detach().amax(dim=-1))
        total = total * (maximum - larger).exp() + (values - larger.unsqueeze(-1)).exp().sum(dim=-1)
        maximum = larger
    return maximum, total


def online_logsumexp(logits: Tensor) -> Tensor:
    """Return `log(sum_j exp(x[j]))`, `(*N, C)` to `(*N)`, in float32 or more."""
    maximum, total = online_stats(logits)
    return maximum + total.log()


class ChunkedLabelLoss(Function):
    """`logsumexp(x) - x[label]` of each row; the gradient is written chunk by chunk from the saved log-sum-exp."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, label: Tensor) -> Tensor:
        """Map `(*N, C)` logits and `(*N, 1)` labels to `(*N)` losses."""
        logsumexp = online_logsumexp(logits)
        ctx.save_for_backward(logits, label, logsumexp)
        return (logsumexp - logits.gather(-1, label).squeeze(-1)).to(logits.dtype)

    @staticmethod
    def backward(ctx: BackwardCFunction, upstream: Tensor) -> tuple[Tensor, None]:
        """Return `(softmax(x) - y) * upstream`, y one-hot at the label; the label gets no gradient."""
        _options.refuse_double_backward("chunked-online")
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        logits, label, logsumexp = saved
        logsumexp, upstream = logsumexp.unsqueeze(-1), upstream.unsqueeze(-1)
        gradient = torch.empty_like(logits)
        chunks, parts = (torch.split(tensor, CHUNK, dim=-1) for tensor in (logits, gradient))
        for chunk, part in zip(chunks, parts, strict=True):
            part.copy_((chunk - logsumexp).exp_().mul_(upstream))
        # expm1(log p) is p - 1 without cancellation.
        at_label = (logits.gather(-1, label) - logsumexp).expm1_().mul_(upstream)
        return gradient.scatter_(-1, label, at_label.to(gradient.dtype)), None


def label_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return `logsumexp(x) - x[label]`: `(*N, C)`, `(*N)` to `(*N)`."""
    loss: Tensor = ChunkedLabelLoss.apply(logits, label.unsqueeze(-1))  # type: ignore[no-untyped-call]
    return loss


def class_losses(logits: Tensor) -> Tensor:
    """Return `logsumexp(x) - x[j]` of every class: `(*N, C)` to `(*N, C)`."""
    return (online_logsumexp(logits).unsqueeze(-1) - logits).to(logits.dtype)


@implementation(
    "chunked-online",
    source="Milakov & Gimelshein 2018, arXiv:1805.02867, algorithm 3",
    supports=_options.refusal,
)
def chunked_online(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Online softmax over class chunks: one pass, and no second array of the logits' size before the gradient.

    An example of memory given a bound: beyond logits and gradient it holds rows x 4096 numbers, however many classes.
    With label smoothing or probabilities every class counts, and an array of all losses is made after all.
    Formula: running maximum m and sum s; `loss = m + log(s) - x[t]`; gradient `(exp(x - m - log(s)) - y) * upstream`.
    Shapes: logits `(C,)`, `(N, C)` or `(N, C, d1, …)`; target as `F.cross_entropy` takes it.
    """
    return _options.with_options(
        label_loss, class_losses, logits, target, weight, ignore_index, reduction, label_smoothing
    )
