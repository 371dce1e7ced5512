"""A whole loss made of steps under autograd, each of which can be replaced: by another right one, or by a wrong one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from xentbench.mistakes.call import Call, check, classes_last, wide

if TYPE_CHECKING:
    from collections.abc import Callable

    Divisor = Tensor | int


def class_losses(logits: Tensor) -> Tensor:
    """Return `-log softmax` of every class, `(*N, C)`, in float32 at least."""
    return -torch.log_softmax(wide(logits), dim=-1)


def ignored_rows(call: Call) -> Tensor:
    """Return which rows do not count, `(*N)`."""
    return call.target == call.ignore_index


def labels_of(call: Call, ignored: Tensor) -> Tensor:
    """Return int64 labels, `(*N)`; class 0 stands in for ignored rows."""
    return call.target.long().masked_fill(ignored, 0)


def pick(losses: Tensor, label: Tensor) -> Tensor:
    """Return each row's loss at its label: `(*N, C)`, `(*N)` to `(*N)`."""
    return losses.gather(-1, label.unsqueeze(-1)).squeeze(-1)


def weigh(rows: Tensor, weight: Tensor | None, label: Tensor) -> Tensor:
    """Return each row's loss times the weight of its label."""
    return rows if weight is None else rows * wide(weight)[label]


def uniform_part(losses: Tensor, weight: Tensor | None) -> Tensor:
    """Return what label smoothing adds to a row, but for its factor: `sum_j w[j] l[j] / C`."""
    return (losses if weight is None else losses * wide(weight)).sum(-1) / losses.shape[-1]


def spread(losses: Tensor, target: Tensor, weight: Tensor | None, smoothing: float) -> Tensor:
    """Return `sum_j w[j] ((1 - e) y[j] + e / C) l[j]` of each row."""
    target = wide(target)
    if smoothing:
        target = (1.0 - smoothing) * target + smoothing / losses.shape[-1]
    return (losses * (target if weight is None else target * wide(weight))).sum(-1)


def mask(rows: Tensor, ignored: Tensor) -> Tensor:
    """Return the rows' losses with 0 for those that do not count; a product would make NaN of infinity."""
    return rows.masked_fill(ignored, 0.0)


def divisor_of(call: Call, ignored: Tensor, label: Tensor) -> Divisor:
    """Return what the mean divides by: the valid rows, or their labels' weights."""
    if call.weight is None:
        return torch.count_nonzero(~ignored)
    return wide(call.weight)[label].masked_fill(ignored, 0.0).sum()


def reduce(rows: Tensor, divisor: Divisor, reduction: str) -> Tensor:
    """Return the rows' losses, their sum, or the sum over the divisor."""
    if reduction == "none":
        return rows
    return rows.sum() if reduction == "sum" else rows.sum() / divisor


def finish(loss: Tensor, call: Call) -> Tensor:
    """Return the loss in the dtype of the result."""
    return loss.to(call.result_dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The loss of steps; called like `F.cross_entropy`. The attributes are this module's functions unless replaced."""

    check: Callable[[Call], None] = check
    rows: Callable[[Tensor], Tensor] = classes_last
    class_losses: Callable[[Tensor], Tensor] = class_losses
    spread: Callable[[Tensor, Tensor, Tensor | None, float], Tensor] = spread
    ignored: Callable[[Call], Tensor] = ignored_rows
    labels: Callable[[Call, Tensor], Tensor] = labels_of
    pick: Callable[[Tensor, Tensor], Tensor] = pick
    weigh: Callable[[Tensor, Tensor | None, Tensor], Tensor] = weigh
    uniform_part: Callable[[Tensor, Tensor | None], Tensor] = uniform_part
    mask: Callable[[Tensor, Tensor], Tensor] = mask
    divisor: Callable[[Call, Tensor, Tensor], Divisor] = divisor_of
    probability_divisor: Callable[[Tensor, Call], Divisor] = lambda rows, _: rows.numel()
    reduce: Callable[[Tensor, Divisor, str], Tensor] = reduce
    finish: Callable[[Tensor, Call], Tensor] = finish

    def __call__(
        self,
        input: Tensor,  # noqa: A002 - torch's name
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Return the loss, shaped and typed as `F.cross_entropy` does; raises where it raises."""
        call = Call(input, target, weight, ignore_index, reduction, label_smoothing)
        self.check(call)
        losses = self.class_losses(self.rows(call.logits))
        if call.has_labels:
            return self.finish(self._of_labels(losses, call), call)
        rows = self.spread(losses, self.rows(call.target), call.weight, call.smoothing)
        return self.finish(self.reduce(rows, self.probability_divisor(rows, call), call.reduction), call)

    def _of_labels(self, losses: Tensor, call: Call) -> Tensor:
        ignored = self.ignored(call)
        label = self.labels(call, ignored)
        divisor = self.divisor(call, ignored, label)
        rows = self.weigh(self.pick(losses, label), call.weight, label)
        if not call.smoothing:
            return self.reduce(self.mask(rows, ignored), divisor, call.reduction)
        # Reduced one by one, as F.cross_entropy does: where all labels weigh 0 the first mean, and so the loss, is NaN.
        hard = self.reduce(self.mask((1.0 - call.smoothing) * rows, ignored), divisor, call.reduction)
        uniform = call.smoothing * self.uniform_part(losses, call.weight)
        return hard + self.reduce(self.mask(uniform, ignored), divisor, call.reduction)
