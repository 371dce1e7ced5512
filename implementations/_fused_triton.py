"""The kernels of `fused-triton`, and their autograd function. Imports Triton: nothing here is imported without it.

One program a row in forward, one a block of a row in backward. Forward reads the logits once: the maximum m and the sum
s of exp(x - m) of every row, rescaled block by block when the maximum grows, lane by lane, so that a block costs one
exponential an element and one reduction (of its maximum). Backward reads the logits once and writes the gradient once.
Two numbers a row are kept in between, three where every class has a share in the loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import torch
import triton
import triton.language as tl
from torch.autograd.function import BackwardCFunction, Function, FunctionCtx
from xentbench.implementations import _options

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_BLOCK: Final = 4096
"""Classes that a program holds at once, 16 a thread: more spill, fewer leave loads too short to hide their latency."""
ELEMENTS_PER_WARP: Final = 512
MOST_WARPS: Final = 8


class Options(NamedTuple):
    """What is asked beside the tensors.

    Attributes:
        ignore_index: label of the rows that are left out.
        reduction: `mean`, `sum` or `none`.
        keep: 1 less the label smoothing.
        even: label smoothing / C.
    """

    ignore_index: int
    reduction: str
    keep: float
    even: float


@triton.jit  # type: ignore[untyped-decorator]
def _share(  # type: ignore[no-untyped-def]
    target,
    weight,
    columns,
    inside,
    like,
    keep: tl.constexpr,
    even: tl.constexpr,
    is_probability: tl.constexpr,
    has_weight: tl.constexpr,
):
    """Return what each class of a block counts for: w (keep y + even) of probabilities, w even of a label; 0 outside.

    A label's own share is counted where the label is.
    """
    if is_probability:
        share = tl.load(target + columns, mask=inside, other=0.0).to(like.dtype) * keep + even
    else:
        share = tl.full(like.shape, even, like.dtype)
    if has_weight:
        share = share * tl.load(weight + columns, mask=inside, other=0.0).to(like.dtype)
    return tl.where(inside, share, 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _forward(  # type: ignore[no-untyped-def]
    logits,
    logits_stride,
    target,
    target_stride,
    weight,
    parts,
    stats,
    rows,
    classes,
    ignore_index,
    lowest: tl.constexpr,
    keep: tl.constexpr,
    even: tl.constexpr,
    is_probability: tl.constexpr,
    has_weight: tl.constexpr,
    is_shared: tl.constexpr,
    dtype: tl.constexpr,
    block: tl.constexpr,
):
    """Write of a row its loss at the label, what it adds to the divisor and its shared loss; m, s and sum of shares.

    `parts` and `stats` are `(3, rows)`; the third rows are written where `is_shared`, the divisor for labels.
    """
    row = tl.program_id(0).to(tl.int64)
    logits += row * logits_stride
    target += row * target_stride
    label = row * 0
    kept = label == 0
    if not is_probability:
        label = tl.load(target).to(tl.int64)
        kept = label != ignore_index
    if kept:
        top = tl.full((), lowest, dtype)  # of a row of -inf alone: -inf - -inf would be NaN, where s = 0 says it all
        sums = tl.zeros((block,), dtype)
        shares = tl.full((), 0.0, dtype)
        shared = tl.full((), 0.0, dtype)
        for start in range(0, classes, block):
            columns = start + tl.arange(0, block)
            inside = columns < classes
            x = tl.load(logits + columns, mask=inside, other=float("-inf")).to(dtype)
            new = tl.maximum(top, tl.max(x, axis=0))
            sums = sums * tl.exp(top - new) + tl.exp(x - new)
            if is_shared:
                share = _share(target, weight, columns, inside, x, keep, even, is_probability, has_weight)
                shared += tl.where(shares == 0.0, 0.0, shares * (new - top))
                shared += tl.sum(tl.where(inside, share * (new - x), 0.0), axis=0)
                shares += tl.sum(share, axis=0)
            top = new
        total = tl.sum(sums, axis=0)
        log_total = tl.log(total)
        tl.store(stats + row, top)
        tl.store(stats + rows + row, total)
        if is_shared:
            tl.store(stats + 2 * rows + row, shares)
            tl.store(parts + 2 * rows + row, shares * log_total + shared)
        if not is_probability:
            fits = (label >= 0) & (label < classes)
            tl.device_assert(fits, "a label is out of range")
            own = tl.load(logits + label, mask=fits, other=0.0).to(dtype)
            factor = tl.full((), 1.0, dtype)
            if has_weight:
                factor = tl.load(weight + label, mask=fits, other=0.0).to(dtype)
            tl.store(parts + row, (log_total - (own - top)) * factor * keep)
            tl.store(parts + rows + row, factor)
    else:
        tl.store(parts + row, 0.0)
        tl.store(parts + rows + row, 0.0)
        if is_shared:
            tl.store(parts + 2 * rows + row, 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _backward(  # type: ignore[no-untyped-def]
    logits,
    logits_stride,
    target,
    target_stride,
    weight,
    stats,
    upstream,
    upstream_stride,
    divisor,
    gradient,
    target_gradient,
    rows,
    classes,
    blocks,
    ignore_index,
    keep: tl.constexpr,
    even: tl.constexpr,
    is_probability: tl.constexpr,
    has_weight: tl.constexpr,
    is_shared: tl.constexpr,
    has_divisor: tl.constexpr,
    has_target_gradient: tl.constexpr,
    dtype: tl.constexpr,
    block: tl.constexpr,
):
    """Write a block of a row's gradient, `((p - y) w[t] keep + p sum(q) - q) u / divisor`, q as `_share` has it.

    Where it is asked for, the gradient of the probabilities too, `(log s - (x - m)) w keep u / divisor`.
    """
    program = tl.program_id(0).to(tl.int64)
    row = program // blocks
    columns = (program % blocks).to(tl.int32) * block + tl.arange(0, block)
    inside = columns < classes
    target += row * target_stride
    gradient += row * classes
    label = row * 0
    kept = label == 0
    if not is_probability:
        label = tl.load(target).to(tl.int64)
        kept = label != ignore_index
    if kept:
        x = tl.load(logits + row * logits_stride + columns, mask=inside, other=float("-inf")).to(dtype)
        top = tl.load(stats + row)
        total = tl.load(stats + rows + row)
        scale = tl.load(upstream + row * upstream_stride).to(dtype)
        if has_divisor:
            scale = scale / tl.load(divisor).to(dtype)
        probability = tl.exp(x - top) / total
        slope = tl.zeros((block,), dtype)
        if not is_probability:
            fits = (label >= 0) & (label < classes)
            factor = tl.full((), 1.0, dtype)
            if has_weight:
                factor = tl.load(weight + label, mask=fits, other=0.0).to(dtype)
            slope += tl.where(columns == label, probability - 1.0, probability) * (factor * keep)
        if is_shared:
            shares = tl.load(stats + 2 * rows + row)
            share = _share(target, weight, columns, inside, x, keep, even, is_probability, has_weight)
            slope += probability * shares - share
        tl.store(gradient + columns, (slope * scale).to(gradient.dtype.element_ty), mask=inside)
        if has_target_gradient:
            own = (tl.log(total) - (x - top)) * keep
            if has_weight:
                own = own * tl.load(weight + columns, mask=inside, other=0.0).to(dtype)
            place = target_gradient + row * classes + columns
            tl.store(place, (own * scale).to(target_gradient.dtype.element_ty), mask=inside)
    else:
        tl.store(gradient + columns, tl.zeros((block,), gradient.dtype.element_ty), mask=inside)


class CrossEntropy(Function):
    """The loss of `(N, C)` logits whose rows are contiguous in themselves, reduced as asked, in float32 or more."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, target: Tensor, weight: Tensor | None, options: Options) -> Tensor:
        """Return the loss; target is `(N,)` labels or `(N, C)` probabilities."""
        rows, classes = logits.shape
        dtype = torch.promote_types(logits.dtype, torch.float32)
        is_shared = target.dim() == logits.dim() or options.even > 0
        parts, stats = logits.new_empty((2, 3 if is_shared else 2, rows), dtype=dtype).unbind()
        if rows:
            _forward[(rows,)](
                *(logits, logits.stride(0), target, target.stride(0), weight, parts, stats, rows, classes),
                options.ignore_index,
                torch.finfo(dtype).min,
                **_meta(logits, target, weight, options),
                debug=True,  # the check of the labels, which torch makes on the device too
                sanitize_overflow=False,
            )
        loss, divisor = _reduced(parts, target.dim() == logits.dim(), options.reduction)
        ctx.save_for_backward(logits, target, weight, stats, divisor)  # type: ignore[arg-type]  # may be None
        ctx.options = options  # type: ignore[attr-defined]
        return loss

    @staticmethod
    def backward(ctx: BackwardCFunction, upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """Return the gradients of the logits and, where they require one, of the probabilities."""
        _options.refuse_double_backward("fused-triton")
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        logits, target, weight, stats, divisor = saved
        options: Options = ctx.options  # type: ignore[attr-defined]
        rows, classes = logits.shape
        gradient = _written(logits, logits)
        needed: tuple[bool, ...] = ctx.needs_input_grad
        of_target = _written(target, logits) if needed[1] else None
        meta = _meta(logits, target, weight, options)
        blocks = triton.cdiv(classes, meta["block"])
        if rows:
            _backward[(rows * blocks,)](
                *(logits, logits.stride(0), target, target.stride(0), weight, stats),
                *(upstream, upstream.stride(0) if upstream.dim() else 0, divisor),
                *(gradient, of_target, rows, classes, blocks, options.ignore_index),
                has_divisor=divisor is not None,
                has_target_gradient=of_target is not None,
                **meta,
            )
        return gradient.to(logits.dtype), None if of_target is None else of_target.to(target.dtype), None, None


def _written(tensor: Tensor, logits: Tensor) -> Tensor:
    """Return new memory for a gradient; by the interpreter, which cuts bfloat16 off where a GPU rounds, a wider one."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return tensor.new_empty(logits.shape, dtype=wide if logits.is_cpu else tensor.dtype)


def _meta(logits: Tensor, target: Tensor, weight: Tensor | None, options: Options) -> dict[str, object]:
    """Return what both kernels are specialised by."""
    block = min(LARGEST_BLOCK, triton.next_power_of_2(logits.shape[1]))
    is_probability = target.dim() == logits.dim()
    return {
        "keep": options.keep,
        "even": options.even,
        "is_probability": is_probability,
        "has_weight": weight is not None,
        "is_shared": is_probability or options.even > 0,
        "dtype": tl.float64 if logits.dtype == torch.float64 else tl.float32,
        "block": block,
        "num_warps": max(1, min(MOST_WARPS, block // ELEMENTS_PER_WARP)),
    }


def _reduced(parts: Tensor, is_probability: bool, reduction: str) -> tuple[Tensor, Tensor | None]:  # noqa: FBT001
    """Return the loss of `(2 or 3, N)` parts, and what a mean divides by.

    The shared part is reduced by itself, as documented: where all labels weigh 0 the first mean is NaN, and so the sum.
    """
    if is_probability:
        losses, divisor = parts[2:], parts.new_tensor(parts.shape[1])
    else:
        losses, divisor = parts[::2], None
    if reduction == "none":
        return losses.sum(dim=0) if len(losses) > 1 else losses[0].clone(), None
    sums = losses.sum(dim=1)
    if reduction == "sum":
        return sums.sum(), None
    divisor = parts[1].sum() if divisor is None else divisor
    return (sums / divisor).sum(), divisor
