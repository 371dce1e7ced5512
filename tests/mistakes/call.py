"""One call's arguments: read, refused where `F.cross_entropy` refuses them, and answered by it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from xentbench.mistakes.mistake import Loss

CLASSES_LAST = 2
"""Up to so many axes, `(C,)` and `(N, C)`, logits have their classes last already."""


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of `F.cross_entropy`: logits `(C,)`, `(N, C)` or `(N, C, d1, …)`, the rest as it takes them."""

    logits: Tensor
    target: Tensor
    weight: Tensor | None = None
    ignore_index: int = -100
    reduction: str = "mean"
    label_smoothing: float = 0.0

    @property
    def has_labels(self) -> bool:
        """Whether the target holds class indices, `(*N)`, rather than probabilities."""
        return self.target.shape != self.logits.shape

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.logits.shape[0 if self.logits.dim() == 1 else 1]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one number a row."""
        return (*self.logits.shape[:-1][:1], *self.logits.shape[2:])

    @property
    def result_dtype(self) -> torch.dtype:
        """Dtype of the loss: that of the logits, which probabilities may promote."""
        return self.logits.dtype if self.has_labels else torch.promote_types(self.logits.dtype, self.target.dtype)

    @property
    def smoothing(self) -> float:
        """Label smoothing; a negative one counts as 0, as in `F.cross_entropy`."""
        return max(0.0, self.label_smoothing)

    def but(self, **changes: object) -> Call:
        """Return the call with other arguments."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def check(call: Call) -> None:
    """Raise where `F.cross_entropy` raises.

    Raises:
        ValueError: an unknown reduction, a shape of the target that does not fit.
        RuntimeError: a dtype, a weight, an ignore_index or a label_smoothing that does not fit.
        IndexError: a label out of range.
    """
    check_options(call)
    check_weight(call)
    check_target(call)
    if call.has_labels:
        check_labels(call)


def check_options(call: Call) -> None:
    """Refuse what needs no tensor to be looked at."""
    if call.reduction not in ("mean", "sum", "none"):
        msg = f"{call.reduction} is not a valid value for reduction"
        raise ValueError(msg)
    if call.label_smoothing > 1.0:
        msg = f"label_smoothing must be between 0.0 and 1.0, got {call.label_smoothing}"
        raise RuntimeError(msg)
    if not call.logits.is_floating_point():
        msg = f"logits must be floating-point numbers, got {call.logits.dtype}"
        raise RuntimeError(msg)


def check_weight(call: Call) -> None:
    """Refuse a class weight of another shape or dtype."""
    if call.weight is None:
        return
    if tuple(call.weight.shape) != (call.classes,):
        msg = f"weight must have one entry for each of {call.classes} classes, got shape {tuple(call.weight.shape)}"
        raise RuntimeError(msg)
    if call.has_labels and call.weight.dtype is not call.logits.dtype:
        msg = f"weight must have the logits' dtype {call.logits.dtype}, got {call.weight.dtype}"
        raise RuntimeError(msg)


def check_target(call: Call) -> None:
    """Refuse a target of another shape or dtype."""
    if call.has_labels:
        if tuple(call.target.shape) != call.row_shape:
            msg = f"target must have shape {call.row_shape}, got {tuple(call.target.shape)}"
            raise ValueError(msg)
        if call.target.dtype is not torch.int64:
            msg = f"labels must have dtype int64, got {call.target.dtype}"
            raise RuntimeError(msg)
        return
    if not call.target.is_floating_point():
        msg = f"probabilities must be floating-point numbers, got {call.target.dtype}"
        raise RuntimeError(msg)
    if call.ignore_index >= 0:
        msg = f"ignore_index must be negative with probabilities, got {call.ignore_index}"
        raise RuntimeError(msg)


def check_labels(call: Call) -> None:
    """Refuse labels that are neither a class nor ignored."""
    counted = call.target[call.target != call.ignore_index]
    outside = (counted < 0) | (counted >= call.classes)
    if bool(outside.any()):
        msg = f"label {int(counted[outside][0])} is out of range for {call.classes} classes"
        raise IndexError(msg)


def classes_last(tensor: Tensor) -> Tensor:
    """Return a view with the classes on the last axis."""
    return tensor if tensor.dim() <= CLASSES_LAST else tensor.movedim(1, -1)


def wide(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def reference(call: Call) -> Tensor:
    """Return `F.cross_entropy` of a call; the half dtypes in float32, where their sums cannot overflow."""
    check(call)
    weight = None if call.weight is None else wide(call.weight)
    target = call.target if call.has_labels else wide(call.target)
    options = (weight, None, call.ignore_index, None, call.reduction, call.smoothing)
    return functional.cross_entropy(wide(call.logits), target, *options).to(call.result_dtype)


def of_call(answer: Callable[[Call], Tensor], check: Callable[[Call], None] = check) -> Loss:
    """Return a loss with the signature of `F.cross_entropy` from one of a `Call`, which is checked first."""

    def loss(
        input: Tensor,  # noqa: A002 - torch's name
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Tensor:
        call = Call(input, target, weight, ignore_index, reduction, label_smoothing)
        check(call)
        return answer(call)

    return loss


def before(change: Callable[[Call], Call]) -> Loss:
    """Return `F.cross_entropy` of changed arguments."""
    return of_call(lambda call: reference(change(call)))


def after(change: Callable[[Tensor, Call], Tensor]) -> Loss:
    """Return `F.cross_entropy` with a changed result."""
    return of_call(lambda call: change(reference(call), call))
