"""`bce-with-logits`: two classes, as the binary cross-entropy of the difference of their logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional
from xentbench.implementations import _options

from xentbench import implementation

if TYPE_CHECKING:
    from torch import Tensor

    from xentbench import Problem

TWO: Final = 2


def refusal(problem: Problem) -> str | None:
    """Return why this problem is not supported, or None."""
    if problem.num_classes != TWO:
        return f"binary cross-entropy knows two classes, not {problem.num_classes}"
    if problem.logits == "masked":
        return "F.binary_cross_entropy_with_logits gives NaN where a masked class makes the difference infinite"
    return _options.refusal(problem)


def class_losses(logits: Tensor) -> Tensor:
    """Return `log(1 + exp(d[j]))` of both classes, `d[j] = x[1 - j] - x[j]`: `(*N, 2)` to `(*N, 2)`.

    This is the binary cross-entropy of "the other class" with label 0. Asked the usual way round, with label 1 for
    class 1, the gradient would be `sigmoid(d) - 1`, which keeps no digits of a small probability.
    """
    other_way = logits.flip(-1) - logits
    return functional.binary_cross_entropy_with_logits(other_way, torch.zeros_like(other_way), reduction="none")


def label_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return `log(1 + exp(d[label]))` of each row: `(*N, 2)`, `(*N)` to `(*N)`."""
    other_way = (logits.flip(-1) - logits).gather(-1, label.unsqueeze(-1)).squeeze(-1)
    return functional.binary_cross_entropy_with_logits(other_way, torch.zeros_like(other_way), reduction="none")


@implementation(
    "bce-with-logits",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.binary_cross_entropy_with_logits.html",
    supports=refusal,
)
def bce_with_logits(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Binary cross-entropy of the logit difference: two classes only.

    An example of an entrant for some problems: softmax over two classes is the sigmoid of their difference, and it says
    through `supports` that it knows no third class.
    Formula: `d = x[1 - t] - x[t]`; `loss = log(1 + exp(d))`, the binary cross-entropy of logit d with label 0.
    Shapes: logits `(2,)`, `(N, 2)` or `(N, 2, d1, …)`; target as `F.cross_entropy` takes it.

    Raises:
        NotImplementedError: the class axis has another size than 2.
    """
    if _options.classes_last(logits).shape[-1] != TWO:
        msg = f"logits must have two classes on their class axis, got shape {tuple(logits.shape)}"
        raise NotImplementedError(msg)
    return _options.with_options(
        label_loss, class_losses, logits, target, weight, ignore_index, reduction, label_smoothing
    )
