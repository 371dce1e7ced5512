"""Right losses of very different style, each exact in its special values and in what it refuses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from xentbench.mistakes import frame
from xentbench.mistakes.blocks import running
from xentbench.mistakes.call import Call, classes_last, of_call, reference, wide
from xentbench.mistakes.frame import Frame, class_losses
from xentbench.mistakes.kernel import Kernel, apply, effective_target, refuse_double_backward, times
from xentbench.mistakes.mistake import Right

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

MOST_CLASSES = 5000
"""Loops over classes refuse more: a step each takes seconds."""
MOST_ROWS = 512
"""Loops over rows refuse more."""


def _nll_of_log_softmax(call: Call) -> Tensor:
    """Compose the two functions that `F.cross_entropy` composes, where the target is labels without smoothing."""
    if not call.has_labels or call.smoothing:
        return reference(call)
    losses = functional.log_softmax(wide(call.logits), 0 if call.logits.dim() == 1 else 1)
    weight = None if call.weight is None else wide(call.weight)
    options = {"weight": weight, "ignore_index": call.ignore_index, "reduction": call.reduction}
    return functional.nll_loss(losses, call.target.long(), **options).to(call.result_dtype)  # type: ignore[arg-type]


def _logsumexp(logits: Tensor, axis: int) -> Tensor:
    """Return `log sum exp`, the axis kept; NaN instead of inf where a logit is inf, and so is then the gradient."""
    total = logits.logsumexp(axis, keepdim=True)
    return total * torch.where(total == torch.inf, torch.nan, 1.0)


def _below_maximum(logits: Tensor) -> Tensor:
    logits = wide(logits)
    return logits - logits.detach().amax(-1, keepdim=True)


def _with_sum(total: Callable[[Tensor], Tensor]) -> Frame:
    """Return a loss whose sum of exponentials is formed by `total`, `(*N, C)` to `(*N)`."""

    def losses(logits: Tensor) -> Tensor:
        below = _below_maximum(logits)
        return total(below.exp()).unsqueeze(-1).log() - below

    return Frame(class_losses=losses)


def _refuse_many_classes(exponentials: Tensor) -> None:
    if exponentials.shape[-1] > MOST_CLASSES:
        msg = f"a loop over classes takes at most {MOST_CLASSES}, got {exponentials.shape[-1]}: ask for fewer"
        raise NotImplementedError(msg)


def _one_by_one(exponentials: Tensor) -> Tensor:
    _refuse_many_classes(exponentials)
    total = torch.zeros_like(exponentials[..., 0])
    for column in exponentials.unbind(-1):
        total = total + column
    return total


def _compensated(exponentials: Tensor) -> Tensor:
    """Carry what each addition lost (Kahan 1965)."""
    _refuse_many_classes(exponentials)
    total = torch.zeros_like(exponentials[..., 0])
    lost = torch.zeros_like(total)
    for column in exponentials.unbind(-1):
        addend = column - lost
        larger = total + addend
        lost, total = (larger - total) - addend, larger
    return total


def _smallest_first(exponentials: Tensor) -> Tensor:
    return exponentials.sort(-1).values.cumsum(-1)[..., -1]


def _pairwise(exponentials: Tensor) -> Tensor:
    while exponentials.shape[-1] > 1:
        even = functional.pad(exponentials, (0, exponentials.shape[-1] % 2))
        exponentials = even[..., ::2] + even[..., 1::2]
    return exponentials[..., 0]


def _base_2(logits: Tensor) -> Tensor:
    below = _below_maximum(logits)
    return math.log(2.0) * torch.exp2(below * math.log2(math.e)).sum(-1, keepdim=True).log2() - below


def _confident(logits: Tensor) -> Tensor:
    """Return `max - x + log1p(sum of the others)`, which keeps the digits of a loss near 0."""
    below = _below_maximum(logits)
    best = torch.zeros_like(below, dtype=torch.bool).scatter(-1, below.argmax(-1, keepdim=True), value=True)
    # The maximum adds expm1(0) = 0, but has a slope: formed as 1 minus the others, its probability would lose digits.
    others = torch.where(best, below.expm1(), below.exp())
    return others.sum(-1, keepdim=True).log1p() - below


def _one_hot_einsum(losses: Tensor, label: Tensor) -> Tensor:
    hot = functional.one_hot(label, losses.shape[-1])
    # A masked class's infinite loss is left out first: 0 times infinity is NaN.
    kept = torch.where(hot > 0, losses, torch.zeros_like(losses))
    return torch.einsum("...c,...c->...", kept, hot.to(losses.dtype))


def _labels_counted(call: Call, ignored: Tensor, label: Tensor) -> Tensor | int:
    """Form the divisor as a product of the labels' counts and the weights."""
    counts = torch.bincount(label[~ignored].reshape(-1), minlength=call.classes)
    return counts.sum() if call.weight is None else (counts * wide(call.weight)).sum()


def _one_row(row: Tensor) -> Tensor:
    return _logsumexp(row, 0) - row


def _mapped(logits: Tensor) -> Tensor:
    rows = wide(logits).reshape(-1, logits.shape[-1])
    return torch.vmap(_one_row)(rows).reshape(logits.shape) if len(rows) else class_losses(logits)


def _row_by_row(logits: Tensor) -> Tensor:
    rows = wide(logits).reshape(-1, logits.shape[-1])
    if len(rows) > MOST_ROWS:
        msg = f"a loop over rows takes at most {MOST_ROWS}, got {len(rows)}: ask for fewer"
        raise NotImplementedError(msg)
    return (
        torch.stack([_one_row(row) for row in rows.unbind()]).reshape(logits.shape)
        if len(rows)
        else rows.reshape(logits.shape)
    )


def _checkpointed(logits: Tensor) -> Tensor:
    losses: Tensor = checkpoint(class_losses, logits, use_reentrant=False)
    return losses


def _classes_first(logits: Tensor) -> Tensor:
    columns = wide(logits).reshape(-1, logits.shape[-1]).t().contiguous()
    return (_logsumexp(columns, 0) - columns).t().reshape(logits.shape)


def _float64_inside(call: Call) -> Tensor:
    weight = None if call.weight is None else call.weight.double()
    target = call.target if call.has_labels else call.target.double()
    return reference(call.but(logits=call.logits.double(), target=target, weight=weight)).to(call.result_dtype)


def _chunks_of_rows(call: Call) -> Tensor:
    """Answer 50 rows of the batch at a time, and divide once."""
    if call.logits.dim() == 1 or not len(call.logits):
        return reference(call)
    pairs = zip(torch.split(wide(call.logits), 50), torch.split(call.target, 50), strict=True)
    weight = None if call.weight is None else wide(call.weight)
    plain = call.but(weight=weight, reduction="none")
    rows = torch.cat([reference(plain.but(logits=logits, target=target)) for logits, target in pairs])
    divisor: Tensor | int = rows.numel()
    if call.has_labels:
        ignored = frame.ignored_rows(call)
        divisor = frame.divisor_of(call, ignored, frame.labels_of(call, ignored))
    return frame.reduce(rows, divisor, call.reduction).to(call.result_dtype)


class _NumpyLosses(Function):
    """`-log softmax` by NumPy in float64."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        values = logits.double().cpu().numpy()
        with np.errstate(all="ignore"):
            below = values - values.max(-1, keepdims=True, initial=-np.inf)
            losses = np.log(np.exp(below).sum(-1, keepdims=True)) - below
        result = torch.from_numpy(losses).to(logits.device)
        ctx.save_for_backward(result)
        return result.to(torch.promote_types(logits.dtype, torch.float32))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        refuse_double_backward()
        (losses,) = ctx.saved_tensors
        upstream = upstream.double()
        gradient: Tensor = (-losses).exp() * upstream.sum(-1, keepdim=True) - upstream
        return gradient


class _GradientInForward(Function):
    """Each row's loss for an effective target; the gradient is made along with it."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        losses = class_losses(logits)
        gradient = target.sum(-1, keepdim=True) * (-losses).exp() - target
        ctx.save_for_backward(gradient, losses)
        return times(target, losses).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        gradient, losses = ctx.saved_tensors
        return gradient * upstream.unsqueeze(-1), losses * upstream.unsqueeze(-1)


class _Recomputing(Function):
    """Each row's loss for an effective target; only the arguments are kept, and backward has a graph of its own."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(logits, target)
        return times(target, class_losses(logits)).sum(-1)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        logits, target = ctx.saved_tensors
        upstream = upstream.unsqueeze(-1)
        gradient = (target.sum(-1, keepdim=True) * logits.softmax(-1) - target) * upstream
        return gradient, class_losses(logits) * upstream


def _of_rows(row_losses: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Call], Tensor]:
    """Complete `(rows, C)` logits and effective targets to `(rows,)` losses into a whole loss."""

    def loss(call: Call) -> Tensor:
        ignored = torch.zeros(call.row_shape, dtype=torch.bool, device=call.logits.device)
        if call.has_labels:
            ignored = frame.ignored_rows(call)
        logits = wide(classes_last(call.logits)).reshape(-1, call.classes)
        rows = row_losses(logits, effective_target(call, ignored.reshape(-1))).reshape(call.row_shape)
        divisor: Tensor | int = rows.numel()
        if call.has_labels:
            divisor = frame.divisor_of(call, ignored, frame.labels_of(call, ignored))
        return frame.reduce(frame.mask(rows, ignored), divisor, call.reduction).to(call.result_dtype)

    return loss


RIGHT = (
    Right("nll-of-log-softmax", of_call(_nll_of_log_softmax), "nll_loss of log_softmax, in float32 for halves."),
    Right(
        "logsumexp-gather",
        Frame(class_losses=lambda x: _logsumexp(wide(x), -1) - wide(x)),
        "logsumexp(x) - x[t].",
    ),
    Right("maximum-shifted", _with_sum(lambda e: e.sum(-1)), "The maximum is subtracted by hand."),
    Right("summed-one-by-one", _with_sum(_one_by_one), "Exponentials are added class by class."),
    Right("summed-compensated", _with_sum(_compensated), "Kahan's sum over classes."),
    Right("summed-smallest-first", _with_sum(_smallest_first), "Exponentials are sorted before they are added."),
    Right("summed-pairwise", _with_sum(_pairwise), "Exponentials are added in a binary tree."),
    Right("base-2", Frame(class_losses=_base_2), "exp2 and log2, scaled after the shift."),
    Right("confident-log1p", Frame(class_losses=_confident), "log1p of all but the maximum."),
    Right("one-hot-einsum", Frame(pick=_one_hot_einsum), "einsum with one-hot rows."),
    Right(
        "labels-counted",
        Frame(
            pick=lambda losses, label: torch.take_along_dim(losses, label[..., None], -1)[..., 0],
            divisor=_labels_counted,
        ),
        "take_along_dim; the divisor from counts of labels.",
    ),
    Right("mapped-over-rows", Frame(class_losses=_mapped), "vmap of one row's loss."),
    Right("row-by-row", Frame(class_losses=_row_by_row), "A Python loop over rows."),
    Right("checkpointed", Frame(class_losses=_checkpointed), "Forward is repeated in backward."),
    Right("classes-first", Frame(class_losses=_classes_first), "Works on the transposed copy."),
    Right("online-of-32", Frame(class_losses=running(32)), "Running maximum and sum over blocks of 32 classes."),
    Right("float64-inside", of_call(_float64_inside), "Computes in float64 and casts back."),
    Right("chunks-of-rows", of_call(_chunks_of_rows), "50 rows at a time."),
    Right(
        "numpy-inside", Frame(class_losses=lambda x: apply(_NumpyLosses, x)), "NumPy in float64; no second derivative."
    ),
    Right("analytic-kernel", Kernel(), "One Function with p - y; refuses a second derivative."),
    Right(
        "gradient-in-forward",
        of_call(_of_rows(lambda x, q: apply(_GradientInForward, x, q))),
        "The gradient is made in forward; once differentiable.",
    ),
    Right(
        "recomputing-function",
        of_call(_of_rows(lambda x, q: apply(_Recomputing, x, q))),
        "A Function that keeps its arguments only, and can be differentiated twice.",
    ),
)
