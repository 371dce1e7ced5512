"""A whole loss as one `autograd.Function` with a gradient written by hand, each step of which can be replaced.

Every target is turned into an effective one, `q[i, j]`, dense: `(1 - e) w[t] [j = t] + e w[j] / C` for a label t,
`w[j] ((1 - e) y[j] + e / C)` for probabilities y, 0 for an ignored row. A row loses `sum_j q[j] l[j]` with
`l = -log softmax(x)`; its gradient is `(sum q) p - q`, and that with respect to `q` is `l`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.nn import functional
from xentbench.mistakes import frame
from xentbench.mistakes.call import Call, check, classes_last, wide

if TYPE_CHECKING:
    from collections.abc import Callable


def apply(function: Any, *arguments: object) -> Tensor:
    """Return what an `autograd.Function` makes of the arguments."""
    return cast("Tensor", function.apply(*arguments))


def times(left: Tensor, right: Tensor) -> Tensor:
    """Return the product; 0 on the left makes 0 of anything, infinity included."""
    return torch.where(left == 0.0, torch.zeros_like(left), left * right)


def refuse_double_backward() -> None:
    """Raise in a backward of which a graph is asked for; `once_differentiable` would stay silent in some calls."""
    if torch.is_grad_enabled():
        msg = "this gradient is a formula without a second derivative: call backward without create_graph=True"
        raise RuntimeError(msg)


@dataclass(frozen=True, slots=True)
class Saved:
    """What a backward finds: compute-dtype logits, effective target and class losses `(rows, C)`, and the call."""

    logits: Tensor
    target: Tensor
    losses: Tensor
    ignored: Tensor
    divisor: Tensor | int
    call: Call
    context: Any


def effective_target(call: Call, ignored: Tensor) -> Tensor:
    """Return `q`, `(rows, C)`, differentiable in a probability target."""
    classes, smoothing = call.classes, call.smoothing
    if call.has_labels:
        label = call.target.long().masked_fill(call.target == call.ignore_index, 0).reshape(-1)
        hot = functional.one_hot(label, classes).to(torch.promote_types(call.logits.dtype, torch.float32))
        target = (1.0 - smoothing) * hot + smoothing / classes
        target = target if call.weight is None else target * wide(call.weight)
        return target.masked_fill(ignored.unsqueeze(-1), 0.0)
    target = wide(classes_last(call.target)).reshape(-1, classes)
    if smoothing:
        target = (1.0 - smoothing) * target + smoothing / classes
    return target if call.weight is None else target * wide(call.weight)


def gradient_of(saved: Saved) -> Tensor:
    """Return `(sum q) p - q`, `(rows, C)`."""
    return saved.target.sum(-1, keepdim=True) * (-saved.losses).exp() - saved.target


def share_of(upstream: Tensor, saved: Saved) -> Tensor:
    """Return what arrives at each row's loss, `(rows, 1)`; 0 for an ignored row, whatever the divisor."""
    share = upstream / saved.divisor if saved.call.reduction == "mean" else upstream
    return share.reshape(-1, 1).expand(len(saved.ignored), 1).masked_fill(saved.ignored.unsqueeze(-1), 0.0)


def scaled(gradient: Tensor, share: Tensor, saved: Saved) -> Tensor:
    """Return the gradient times what arrives; an ignored row's is 0 even where its logits are not finite."""
    return (gradient * share).masked_fill(saved.ignored.unsqueeze(-1), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The loss of hand-written steps; called like `F.cross_entropy`. Attributes are this module's functions."""

    check: Callable[[Call], None] = check
    class_losses: Callable[[Tensor], Tensor] = frame.class_losses
    target: Callable[[Call, Tensor], Tensor] = effective_target
    gradient: Callable[[Saved], Tensor] = gradient_of
    share: Callable[[Tensor, Saved], Tensor] = share_of
    scaled: Callable[[Tensor, Tensor, Saved], Tensor] = scaled
    refuse: Callable[[], None] = refuse_double_backward

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
        rows = wide(classes_last(call.logits)).reshape(-1, call.classes)
        loss = apply(_Analytic, rows, self.target(call, _ignored(call)), self, call)
        return loss.to(call.result_dtype)


class _Analytic(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, kernel: Kernel, call: Call) -> Tensor:
        losses, ignored = kernel.class_losses(logits), _ignored(call)
        divisor: Tensor | int = len(logits)
        if call.has_labels:
            shaped = ignored.reshape(call.row_shape)
            divisor = frame.divisor_of(call, shaped, frame.labels_of(call, shaped))
        ctx.save_for_backward(logits, target, losses)
        ctx.kernel, ctx.rest = kernel, (ignored, divisor, call)
        return frame.reduce(times(target, losses).sum(-1).reshape(call.row_shape), divisor, call.reduction)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        ctx.kernel.refuse()
        (logits, target, losses), (ignored, divisor, call) = ctx.saved_tensors, ctx.rest
        saved = Saved(logits, target, losses, ignored, divisor, call, ctx)
        share = ctx.kernel.share(upstream, saved)
        gradient = ctx.kernel.scaled(ctx.kernel.gradient(saved), share, saved)
        return gradient, share * saved.losses, None, None


def _ignored(call: Call) -> Tensor:
    """Return which rows do not count, `(rows,)`."""
    if call.has_labels:
        return frame.ignored_rows(call).reshape(-1)
    return torch.zeros(call.row_shape, dtype=torch.bool, device=call.logits.device).reshape(-1)
