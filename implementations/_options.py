"""What all entrants share: the options of `F.cross_entropy` around a loss of rows, and none of the loss itself.

With `l[i, j] = -log softmax(logits[i])[j]`, target class `t[i]`, class weights `w` and label smoothing `e`, a row loses

    (1 - e) * w[t[i]] * l[i, t[i]] + e / C * sum_j w[j] * l[i, j]        for a class index
    sum_j w[j] * ((1 - e) * y[i, j] + e / C) * l[i, j]                   for probabilities y[i]

and 0 where `t[i] == ignore_index`. The mean divides by the sum of `w[t[i]]` over the rows that are not ignored (their
number, without weights) for class indices, and by the number of rows for probabilities. Source:
https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html; label smoothing: Szegedy et al. 2015,
arXiv:1512.00567, section 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from xentbench.implementations import _compiler

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from xentbench import Problem

DOCUMENTATION = "https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cross_entropy.html"
"""Where the function that every entrant must agree with is described."""
REDUCTIONS: Final = {"none": 0, "mean": 1, "sum": 2}


def refusal(problem: Problem) -> str | None:
    """Return why no entrant answers this problem, or None: `F.cross_entropy` itself raises for what is named here."""
    if not problem.has_index_target and problem.ignore_index >= 0:
        return f"ignore_index={problem.ignore_index} has no meaning for probability targets (F.cross_entropy raises)"
    return None


def compiled_refusal(problem: Problem) -> str | None:
    """Return the same of an entrant under `torch.compile`, which writes C++ for a CPU and has it built."""
    if problem.device.startswith("cpu") and _compiler.found() is None:
        return f"torch.compile writes C++ for a CPU: {_compiler.REMEDY}"
    return refusal(problem)


def with_options(
    label_loss: Callable[[Tensor, Tensor], Tensor],
    class_losses: Callable[[Tensor], Tensor],
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    """Return the loss with every option of `F.cross_entropy`; the plain case calls `label_loss` alone.

    Args:
        label_loss: `(*N, C)` logits and `(*N)` labels to `(*N)` losses.
        class_losses: `(*N, C)` logits to `(*N, C)` losses of each class.
        logits: `(C,)`, `(N, C)` or `(N, C, d1, …)`, any floating dtype.
        target: class indices, shaped as the logits without the class axis, or probabilities, shaped as the logits.
        weight: `(C,)` class weights, or None.
        ignore_index: index that marks a row to leave out.
        reduction: `mean`, `sum` or `none`.
        label_smoothing: 0 to 1.

    Returns:
        A scalar, or for `none` one loss a row, `()`, `(N,)` or `(N, d1, …)`, in the dtype of the logits.

    Raises:
        ValueError: a shape, reduction, ignore_index or label_smoothing that does not fit.
        TypeError: probabilities that are no floating-point numbers.
    """
    check(logits, target, weight, ignore_index, reduction, label_smoothing)
    rows = classes_last(logits)
    if target.shape == logits.shape:
        row_loss = _spread(class_losses(rows), classes_last(target), weight, label_smoothing)
        dtype = torch.promote_types(logits.dtype, target.dtype)
        return reduce(row_loss, row_loss.numel(), reduction).to(dtype)
    ignored = target == ignore_index
    # An ignored row may hold any index: class 0 stands in for it, and its loss is replaced, not multiplied by 0,
    # because 0 times infinity is NaN.
    label = target.masked_fill(ignored, 0)
    divisor = divisor_of(ignored, label, weight) if reduction == "mean" else 1
    if label_smoothing > 0:
        parts = _smoothed(class_losses(rows), label, weight, label_smoothing)
        # Reduced one by one, as documented: where all labels weigh 0 the first mean, and so the loss, is NaN.
        at_label, uniform = (reduce(part.masked_fill(ignored, 0.0), divisor, reduction) for part in parts)
        return (at_label + uniform).to(logits.dtype)
    row_loss = label_loss(rows, label)
    if weight is not None:
        row_loss = accumulable(row_loss) * pick(weight, label)
    return reduce(row_loss.masked_fill(ignored, 0.0), divisor, reduction).to(logits.dtype)


def check(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, label_smoothing: float
) -> None:
    """Raise for arguments that would otherwise broadcast, or be taken for something else, into a wrong loss.

    Labels out of range are left to `gather`, which looks at every index anyway.

    Raises:
        ValueError: a shape, reduction, ignore_index or label_smoothing that does not fit.
        TypeError: probabilities that are no floating-point numbers.
    """
    reduction_code(reduction)
    if label_smoothing > 1:
        msg = f"label_smoothing must lie between 0 and 1, got {label_smoothing}"
        raise ValueError(msg)
    shape = tuple(logits.shape)
    if weight is not None and tuple(weight.shape) != shape[:2][-1:]:
        msg = f"weight must have one entry a class, {shape[:2][-1:]}, got shape {tuple(weight.shape)}"
        raise ValueError(msg)
    if tuple(target.shape) == shape:
        _check_probabilities(target, ignore_index)
    elif tuple(target.shape) != (*shape[:-1][:1], *shape[2:]):
        msg = f"target must have the logits' shape {shape}, with or without the class axis, got {tuple(target.shape)}"
        raise ValueError(msg)


def reduction_code(reduction: str) -> int:
    """Return torch's number of a reduction.

    Raises:
        ValueError: there is none of this name.
    """
    if reduction not in REDUCTIONS:
        msg = f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}"
        raise ValueError(msg)
    return REDUCTIONS[reduction]


def constant(weight: Tensor | None) -> Tensor | None:
    """Return the weights as a loss takes them that has no gradient for them.

    Raises:
        RuntimeError: they require one, which would silently stay away; torch's own loss raises as well.
    """
    if weight is not None and weight.requires_grad and torch.is_grad_enabled():
        msg = "weight must not require a gradient, which this loss does not have: detach it"
        raise RuntimeError(msg)
    return None if weight is None else weight.detach()


def classes_last(tensor: Tensor) -> Tensor:
    """Return a view of `(C,)`, `(N, C)` or `(N, C, d1, …)` with the classes on the last axis."""
    return tensor if tensor.dim() <= 2 else tensor.movedim(1, -1)  # noqa: PLR2004 - (N, C) has them there already


def pick(values: Tensor, index: Tensor) -> Tensor:
    """Return `values[index]` for `(C,)` values, in the shape of the index; raises where an index is out of range.

    Plain indexing would take -1 for the last class, and an index of uint8 for a mask.
    """
    return values.gather(0, index.reshape(-1)).reshape(index.shape)


def accumulable(tensor: Tensor) -> Tensor:
    """Return the tensor in a dtype fit to add up in: float32 for the half dtypes, else its own (and no copy)."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def refuse_double_backward(name: str) -> None:
    """Raise inside the backward of an analytic gradient when a graph of it is asked for: there is none to give.

    `torch.autograd.function.once_differentiable` would stay silent where the upstream gradient requires none, and a
    gradient penalty would silently vanish.

    Raises:
        RuntimeError: `create_graph=True` was asked for.
    """
    if torch.is_grad_enabled():
        msg = f"{name} has an analytic gradient and no second derivative: call backward without create_graph=True"
        raise RuntimeError(msg)


def _check_probabilities(target: Tensor, ignore_index: int) -> None:
    if not target.is_floating_point():
        msg = f"target in the shape of the logits must hold floating-point probabilities, got {target.dtype}"
        raise TypeError(msg)
    if ignore_index >= 0:
        msg = f"ignore_index must be negative with probability targets, which ignore no row, got {ignore_index}"
        raise ValueError(msg)


def _smoothed(losses: Tensor, label: Tensor, weight: Tensor | None, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return `(1 - e) w[t] l[t]` and `e/C sum_j w[j] l[j]` of each row."""
    losses = accumulable(losses)
    if weight is not None:
        losses = losses * weight
    at_label = losses.gather(-1, label.unsqueeze(-1)).squeeze(-1)
    return (1.0 - smoothing) * at_label, (smoothing / losses.shape[-1]) * losses.sum(dim=-1)


def _spread(losses: Tensor, probability: Tensor, weight: Tensor | None, smoothing: float) -> Tensor:
    """Return `sum_j w[j] ((1 - e) y[j] + e/C) l[j]` of each row."""
    losses, probability = accumulable(losses), accumulable(probability)
    if smoothing > 0:
        probability = (1.0 - smoothing) * probability + smoothing / losses.shape[-1]
    if weight is not None:
        probability = probability * weight
    return (probability * losses).sum(dim=-1)


def divisor_of(ignored: Tensor, label: Tensor, weight: Tensor | None) -> Tensor:
    """Return what the mean divides by: 0 where no row counts, so that the mean is NaN, as documented."""
    if weight is None:
        return torch.count_nonzero(~ignored)
    return accumulable(pick(weight, label).masked_fill(ignored, 0.0)).sum()


def reduce(row_loss: Tensor, divisor: Tensor | int, reduction: str) -> Tensor:
    """Return the losses of rows, their sum, or it over the divisor; the half dtypes are added up in float32."""
    if reduction == "none":
        return row_loss
    total = accumulable(row_loss).sum()
    return total if reduction == "sum" else total / divisor
