"""`f-cross-entropy`: the function of PyTorch that all others are measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional
from xentbench.implementations import _options

from xentbench import implementation

if TYPE_CHECKING:
    from torch import Tensor


@implementation("f-cross-entropy", source=_options.DOCUMENTATION, supports=_options.refusal)
def f_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """PyTorch's own `F.cross_entropy`: the baseline, entered like any other.

    An example of a null result: its ratio to the baseline must come out as 1.
    Formula: `-log(exp(x[t]) / sum_j exp(x[j]))`, computed as `nll_loss(log_softmax(x), t)`.
    Shapes: logits `(C,)`, `(N, C)` or `(N, C, d1, …)`; target class indices `()`, `(N,)` or `(N, d1, …)`, or
    probabilities in the shape of the logits.
    """
    return functional.cross_entropy(
        logits,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )
