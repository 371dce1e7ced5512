"""Digits lost: in differences, in half-precision sums, in one step of lower precision (classes 12, 13 and 14)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from xentbench.mistakes.call import Call, before, of_call, reference, wide
from xentbench.mistakes.frame import Frame, class_losses, divisor_of, reduce
from xentbench.mistakes.kernel import Kernel, Saved
from xentbench.mistakes.mistake import Mistake

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

HALF = (torch.bfloat16, torch.float16)
LANES = 4
"""Columns or rows that are added at once, before the running sum is rounded."""


class _Rounded(torch.autograd.Function):
    """Rounding to a dtype whose gradient is passed on as it is."""

    @staticmethod
    def forward(ctx: object, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return tensor.to(dtype).to(tensor.dtype)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the tensor's numbers rounded to another dtype, in its own."""
    result: Tensor = _Rounded.apply(tensor, dtype)  # type: ignore[no-untyped-call]
    return result


def _logsumexp_rounded(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    def losses(logits: Tensor) -> Tensor:
        logits = wide(logits)
        return rounded(logits.logsumexp(-1, keepdim=True), dtype) - logits

    return losses


def _one_minus_others(logits: Tensor) -> Tensor:
    """Form each probability as 1 minus the sum of the others, as the second of two classes often is."""
    p = wide(logits).softmax(-1)
    return -(1.0 - (p.sum(-1, keepdim=True) - p)).clamp(min=0.0).log()


def _gradient_rounded_before_subtraction(saved: Saved) -> Tensor:
    """Round the probability to bfloat16 before the target is subtracted."""
    p = (-saved.losses).exp().bfloat16().to(saved.target.dtype)
    return saved.target.sum(-1, keepdim=True) * p - saved.target


def _gradient_from_rounded_logsumexp(saved: Saved) -> Tensor:
    """Recompute probabilities from a log-sum-exp that was stored in float16, with a large offset's coarse grid."""
    logsumexp = saved.logits.logsumexp(-1, keepdim=True)
    stored = logsumexp.half().to(logsumexp.dtype)
    stored = torch.where(torch.isfinite(stored), stored, logsumexp)
    return saved.target.sum(-1, keepdim=True) * (saved.logits - stored).exp() - saved.target


def _totals_subtracted(call: Call) -> Tensor:
    """Subtract the rows' total of label logits from the total of log-sum-exps, both kept in bfloat16's or float32's."""
    if call.reduction == "none" or not call.has_labels or call.weight is not None or call.smoothing:
        return reference(call)
    lower = {torch.float64: torch.float32}.get(call.logits.dtype, torch.bfloat16)
    axis = 0 if call.logits.dim() == 1 else 1
    logits, ignored = wide(call.logits), call.target == call.ignore_index
    label = call.target.long().masked_fill(ignored, 0)
    sums = logits.logsumexp(axis).masked_fill(ignored, 0.0).sum()
    picked = logits.gather(axis, label.unsqueeze(axis)).squeeze(axis).masked_fill(ignored, 0.0).sum()
    total = rounded(sums, lower) - rounded(picked, lower)
    return (total / divisor_of(call, ignored, label) if call.reduction == "mean" else total).to(call.result_dtype)


def _running_sum(parts: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    total = torch.zeros_like(parts[0][..., 0])
    for part in parts:
        for column in part.unbind(-1):
            total = rounded(total + column, dtype)
    return total


def _sum_of_exponentials_in(halves: tuple[torch.dtype, ...]) -> Callable[[Tensor], Tensor]:
    """Return class losses whose sum runs over lanes of classes in the logits' dtype, where that is one of these."""

    def losses(logits: Tensor) -> Tensor:
        if logits.dtype not in halves or not logits.numel():
            return class_losses(logits)
        below = logits.float() - logits.detach().float().amax(-1, keepdim=True)
        lanes = (
            torch.nn.functional.pad(below.exp(), (0, -logits.shape[-1] % LANES))
            .reshape(*below.shape[:-1], -1, LANES)
            .sum(-1)
        )
        return _running_sum((lanes,), logits.dtype).unsqueeze(-1).log() - below

    return losses


def _row_sum_in_half(rows: Tensor, divisor: Tensor | int, how: str) -> Tensor:
    """Add up rows in lanes whose running sum is kept in bfloat16."""
    if how == "none" or rows.numel() <= LANES:
        return reduce(rows, divisor, how)
    flat = torch.nn.functional.pad(rows.reshape(-1), (0, -rows.numel() % LANES))
    total = _running_sum((flat.reshape(-1, LANES).sum(-1).unsqueeze(0),), torch.bfloat16).squeeze(0)
    return total if how == "sum" else total / divisor


def _count_saturates(call: Call, ignored: Tensor, label: Tensor) -> Tensor | int:
    """Count rows one by one in the logits' dtype: 256 + 1 is 256 in bfloat16, 2048 + 1 is 2048 in float16."""
    count = divisor_of(call, ignored, label)
    if call.weight is not None or call.logits.dtype not in HALF:
        return count
    return torch.as_tensor(count).clamp(max=int(2 / torch.finfo(call.logits.dtype).eps))


def _total_in_float16(rows: Tensor, divisor: Tensor | int, how: str) -> Tensor:
    """Keep the total in float16 before it is divided."""
    if how != "mean":
        return reduce(rows, divisor, how)
    return rounded(rows.sum(), torch.float16) / divisor


def _inside(dtype: torch.dtype) -> Callable[[Call], Tensor]:
    """Return a loss that rounds logits to a dtype when they have more digits."""

    def loss(call: Call) -> Tensor:
        if torch.finfo(call.logits.dtype).eps >= torch.finfo(dtype).eps:
            return reference(call)
        return reference(call.but(logits=rounded(call.logits, dtype)))

    return loss


def _exponential_in_half(logits: Tensor) -> Tensor:
    below = wide(logits) - wide(logits).detach().amax(-1, keepdim=True)
    return rounded(below.exp(), torch.bfloat16).sum(-1, keepdim=True).log() - below


def _short_constants(logits: Tensor) -> Tensor:
    """Work in base 2 with constants of four digits."""
    below = wide(logits) - wide(logits).detach().amax(-1, keepdim=True)
    return 0.6931 * torch.exp2(below * math.log2(math.e)).sum(-1, keepdim=True).log2() - below


def _float32_constants(logits: Tensor) -> Tensor:
    """Work in base 2 with constants of seven digits, which are enough for float32 but not for float64."""
    below = wide(logits) - wide(logits).detach().amax(-1, keepdim=True)
    return 0.6931472 * torch.exp2(below * 1.442695).sum(-1, keepdim=True).log2() - below


def _exponential_as_power(logits: Tensor) -> Tensor:
    """Approximate exp(x) by (1 + x / 4096)^4096."""
    below = wide(logits) - wide(logits).detach().amax(-1, keepdim=True)
    return (1.0 + below / 4096.0).clamp(min=0.0).pow(4096).sum(-1, keepdim=True).log() - below


def _truncated(call: Call) -> Call:
    """Cut float32 logits to ten bits of mantissa, as TensorFloat-32 units do."""
    if call.logits.dtype is not torch.float32:
        return call
    cut = (call.logits.detach().contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)
    return call.but(logits=call.logits + torch.where(torch.isfinite(cut), cut - call.logits.detach(), 0.0))


def _weight_in_half(call: Call) -> Call:
    return call if call.weight is None else call.but(weight=rounded(call.weight, torch.bfloat16))


def _smoothing_in_half(call: Call) -> Call:
    return call.but(label_smoothing=float(torch.tensor(call.smoothing).half()))


MISTAKES = (
    Mistake(
        "logsumexp-in-float32",
        12,
        Frame(class_losses=_logsumexp_rounded(torch.float32)),
        "float64 keeps its log-sum-exp in float32, whose grid a large offset makes coarse.",
    ),
    Mistake(
        "logsumexp-in-bfloat16",
        12,
        Frame(class_losses=_logsumexp_rounded(torch.bfloat16)),
        "Every dtype keeps its log-sum-exp in bfloat16, whose grid a large offset makes coarse.",
    ),
    Mistake("probability-as-complement", 12, Frame(class_losses=_one_minus_others), "p is 1 minus all the others."),
    Mistake(
        "label-gradient-of-rounded-p",
        12,
        Kernel(gradient=_gradient_rounded_before_subtraction),
        "The gradient is p minus target with p rounded to bfloat16 first.",
    ),
    Mistake(
        "gradient-of-rounded-logsumexp",
        12,
        Kernel(gradient=_gradient_from_rounded_logsumexp),
        "Backward recomputes p from a log-sum-exp stored in float16.",
    ),
    Mistake(
        "difference-of-rounded-totals", 12, of_call(_totals_subtracted), "Two large rounded totals are subtracted."
    ),
    Mistake(
        "exponentials-summed-in-half",
        13,
        Frame(class_losses=_sum_of_exponentials_in(HALF)),
        "Half dtypes keep the running sum of exponentials to themselves.",
    ),
    Mistake(
        "exponentials-summed-in-bfloat16",
        13,
        Frame(class_losses=_sum_of_exponentials_in((torch.bfloat16,))),
        "bfloat16 keeps its running sum of exponentials, float16 does not.",
    ),
    Mistake("rows-summed-in-bfloat16", 13, Frame(reduce=_row_sum_in_half), "The sum over rows runs in bfloat16."),
    Mistake(
        "count-saturates", 13, Frame(divisor=_count_saturates), "Rows are counted in a half dtype, to 256 or 2048."
    ),
    Mistake("total-in-float16", 13, Frame(reduce=_total_in_float16), "The total of a mean is rounded to float16."),
    Mistake("logits-in-bfloat16", 14, of_call(_inside(torch.bfloat16)), "Logits are rounded to bfloat16."),
    Mistake("logits-in-float32", 14, of_call(_inside(torch.float32)), "float64 logits are rounded to float32."),
    Mistake("exponential-in-bfloat16", 14, Frame(class_losses=_exponential_in_half), "exp is rounded to bfloat16."),
    Mistake("constant-of-four-digits", 14, Frame(class_losses=_short_constants), "ln 2 is taken for 0.6931."),
    Mistake("constants-of-seven-digits", 14, Frame(class_losses=_float32_constants), "float64 with float32 constants."),
    Mistake("exponential-as-power", 14, Frame(class_losses=_exponential_as_power), "exp(x) is (1 + x/4096)^4096."),
    Mistake("logits-cut-to-tf32", 14, before(_truncated), "float32 logits lose 13 bits of mantissa."),
    Mistake("weight-in-bfloat16", 14, before(_weight_in_half), "Class weights are rounded to bfloat16."),
    Mistake("smoothing-in-float16", 14, before(_smoothing_in_half), "label_smoothing is rounded to float16."),
)
