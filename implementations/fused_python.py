"""`fused-python`: the fused kernel's plan in torch's own operations, a block of rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch.autograd.function import BackwardCFunction, Function, FunctionCtx
from xentbench.implementations import _options

from xentbench import implementation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

BLOCK_BYTES: Final = 2**20
"""Of logits at a time, in the dtype that is computed in: what is made of them stays in a second-level cache."""


class Share(NamedTuple):
    """What every class counts for in a row's loss: `q = w * (keep * y + even)`.

    Attributes:
        probability: `(N, C)` y, or None where only the even share counts.
        weight: `(C,)` w, or None for 1.
        keep: 1 less the label smoothing.
        even: label smoothing / C.
    """

    probability: Tensor | None
    weight: Tensor | None
    keep: float
    even: float

    @property
    def weight_or_one(self) -> Tensor | float:
        """The class weights, or 1 where there are none."""
        return 1.0 if self.weight is None else self.weight

    def of(self, rows: slice, like: Tensor) -> Tensor:
        """Return q of these rows, `(rows, C)`, in the dtype of `like`, which has that shape."""
        share = torch.full_like(like, self.even)
        if self.probability is not None:
            share.add_(self.probability[rows].to(like.dtype), alpha=self.keep)
        return share if self.weight is None else share.mul_(self.weight.to(like.dtype))


class RowLosses(Function):
    """What each row loses at its label and over all classes: `(N, C)` logits to two of `(N)`, in float32 or more.

    `log s - (x[t] - m)` and `sum_j q[j] (log s - (x[j] - m))`, q as `Share` has it; zeros without label, or without
    share. m is the row's maximum and s the sum of exp(x - m), kept apart: `m + log s` would round away the small one.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, logits: Tensor, label: Tensor | None, probability: Tensor | None, share: Share | None
    ) -> tuple[Tensor, Tensor]:
        """Return the losses; two numbers a row are kept."""
        stats = _stats(logits)
        at_label, shared = torch.zeros_like(stats)
        for rows in _blocks(logits):
            if label is not None:
                own = logits[rows].gather(-1, label[rows].unsqueeze(-1)).squeeze(-1).to(stats.dtype)
                at_label[rows] = stats[1, rows] - (own - stats[0, rows])
            if share is not None:
                log_probability = _log_probability(logits, stats, rows)
                shared[rows] = -(share.of(rows, log_probability).mul_(log_probability)).sum(dim=-1)
        ctx.save_for_backward(logits, label, probability, stats)  # type: ignore[arg-type]
        ctx.share = share  # type: ignore[attr-defined]
        return at_label, shared

    @staticmethod
    def backward(ctx: BackwardCFunction, at_label: Tensor, shared: Tensor) -> tuple[Tensor, None, Tensor | None, None]:
        """Return `(p - y) u + (p sum(q) - q) v`, u and v upstream of the two losses, and `-log p w keep v`."""
        _options.refuse_double_backward("fused-python")
        saved: tuple[Any, ...] = ctx.saved_tensors
        logits, label, probability, stats = saved
        share: Share | None = ctx.share  # type: ignore[attr-defined]
        gradient = torch.empty_like(logits)
        of_target = torch.empty_like(probability) if ctx.needs_input_grad[2] else None  # type: ignore[misc]
        for rows in _blocks(logits):
            log_probability = _log_probability(logits, stats, rows)
            u, v = at_label[rows].unsqueeze(-1), shared[rows].unsqueeze(-1)
            if of_target is not None and share is not None:
                of_target[rows] = log_probability * (share.weight_or_one * v * -share.keep)
            index = None if label is None else label[rows].unsqueeze(-1)
            q = None if share is None else share.of(rows, log_probability)
            gradient[rows] = _gradient(log_probability, index, u, q, v)
        return gradient, None, of_target, None


@implementation(
    "fused-python",
    source="Milakov & Gimelshein 2018, arXiv:1805.02867",
    supports=_options.refusal,
)
def cross_entropy(
    input: Tensor,  # noqa: A002 - the name that F.cross_entropy gives it
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Blocks of rows that stay in the cache: loss, then gradient, with two numbers a row kept in between.

    An example of what order alone is worth: the operations are torch's, but what is in the cache is used at once. It is
    what `fused` falls back on where there is no compiler. A second derivative is refused.
    Formula: `loss = log s - (x[t] - m)`, m = max x, s = sum exp(x - m); gradient `(exp(x - m) / s - y) * upstream`.
    Shapes: logits `(C,)`, `(N, C)` or `(N, C, d1, …)`; target as `F.cross_entropy` takes it.
    """
    _options.check(input, target, weight, ignore_index, reduction, label_smoothing)
    classes = _options.classes_last(input)
    rows = classes.reshape(-1, classes.shape[-1])
    weight = _options.constant(weight)
    share = Share(None, weight, 1.0 - label_smoothing, label_smoothing / rows.shape[-1])
    if target.shape == input.shape:
        probability = _options.classes_last(target).reshape(rows.shape)
        _, loss = _rows(rows, None, probability, share._replace(probability=probability.detach()))
        dtype = torch.promote_types(input.dtype, target.dtype)
        return _options.reduce(loss.reshape(classes.shape[:-1]), loss.numel(), reduction).to(dtype)
    ignored = target == ignore_index
    label = target.masked_fill(ignored, 0)
    divisor = _options.divisor_of(ignored, label, weight) if reduction == "mean" else 1
    at_label, shared = _rows(rows, label.reshape(-1), None, share if label_smoothing > 0 else None)
    own = share.keep if weight is None else _options.accumulable(_options.pick(weight, label.reshape(-1))) * share.keep
    parts = (at_label * own, shared) if label_smoothing > 0 else (at_label * own,)
    # Reduced one by one, as documented: where all labels weigh 0 the first mean, and so the loss, is NaN.
    first, *rest = (
        _options.reduce(part.reshape(target.shape).masked_fill(ignored, 0.0), divisor, reduction) for part in parts
    )
    return sum(rest, start=first).to(input.dtype)


def _rows(
    logits: Tensor, label: Tensor | None, probability: Tensor | None, share: Share | None
) -> tuple[Tensor, Tensor]:
    losses: tuple[Tensor, Tensor] = RowLosses.apply(logits, label, probability, share)  # type: ignore[no-untyped-call]
    return losses


def _gradient(log_probability: Tensor, index: Tensor | None, u: Tensor, q: Tensor | None, v: Tensor) -> Tensor:
    """Return `(p - y) u + (p sum(q) - q) v` of a block of rows, the first where there is an index; overwrites."""
    # expm1(log p) is p - 1 without cancellation.
    own = None if index is None else log_probability.gather(-1, index).expm1_().mul_(u)
    probability = log_probability.exp_()
    if q is None:
        gradient = probability.mul_(u)
    else:
        total = q.sum(dim=-1, keepdim=True)
        if own is not None and index is not None:
            own += (probability.gather(-1, index) * total - q.gather(-1, index)) * v
        gradient = probability.mul_(u + total * v if own is not None else total * v).sub_(q.mul_(v))
    return gradient if own is None or index is None else gradient.scatter_(-1, index, own)


def _blocks(logits: Tensor) -> Iterator[slice]:
    """Yield the rows of `(N, C)` logits in blocks."""
    row_bytes = logits.shape[-1] * torch.promote_types(logits.dtype, torch.float32).itemsize
    step = max(1, BLOCK_BYTES // row_bytes)
    for begin in range(0, len(logits), step):
        yield slice(begin, begin + step)


def _stats(logits: Tensor) -> Tensor:
    """Return maximum and log of the sum of exponentials of each row, `(2, N)`, in float32 or more."""
    stats = logits.new_empty((2, len(logits)), dtype=torch.promote_types(logits.dtype, torch.float32))
    for rows in _blocks(logits):
        block = logits[rows].to(stats.dtype)
        # The lowest finite number for -inf, lest a row of -inf alone makes -inf - -inf.
        top = block.amax(dim=-1).clamp_min_(torch.finfo(stats.dtype).min)
        stats[0, rows] = top
        stats[1, rows] = (block - top.unsqueeze(-1)).exp_().sum(dim=-1).log_()
    return stats


def _log_probability(logits: Tensor, stats: Tensor, rows: slice) -> Tensor:
    """Return `(x - m) - log s` of a block of rows, a new tensor."""
    return (logits[rows].to(stats.dtype) - stats[0, rows].unsqueeze(-1)).sub_(stats[1, rows].unsqueeze(-1))
