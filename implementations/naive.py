"""`naive`: the logarithm of the softmax as it is defined, with no shift; the one that overflows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xentbench.implementations import _options

from xentbench import Deviation, implementation

if TYPE_CHECKING:
    from torch import Tensor

UNSHIFTED = Deviation(
    "unshifted-exponent",
    "exp(logit) is summed without subtracting the maximum: the sum overflows where logits exceed 88.7 - log C in "
    "float32 and bfloat16 (709.7 - log C in float64, 11.0 - log C in float16), and loses digits or vanishes where all "
    "logits of a row lie below -87.3 (-708.3, -9.7).",
)


def label_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return `log(sum_j exp(x[j])) - x[label]`: `(*N, C)`, `(*N)` to `(*N)`."""
    log_sum = logits.exp().sum(dim=-1).log()
    return log_sum - logits.gather(-1, label.unsqueeze(-1)).squeeze(-1)


def class_losses(logits: Tensor) -> Tensor:
    """Return `-log softmax(x)[j] = log(sum_k exp(x[k])) - x[j]` of every class: `(*N, C)` to `(*N, C)`."""
    return logits.exp().sum(dim=-1, keepdim=True).log() - logits


@implementation(
    "naive",
    source="Goodfellow, Bengio, Courville: Deep Learning (2016), section 4.1 (what overflows, and why to shift)",
    supports=_options.refusal,
    deviations=[UNSHIFTED],
)
def naive(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Log of softmax with no shift: right in exact arithmetic, infinite or NaN for large logits.

    An example of a formula that is correct on paper. Its range, not its rounding, is what fails: exp(89) is more than
    the largest float32, exp(12) more than the largest float16.
    Formula: `-log(exp(x[t]) / sum_j exp(x[j])) = log(sum_j exp(x[j])) - x[t]`.
    Shapes: logits `(C,)`, `(N, C)` or `(N, C, d1, …)`; target as `F.cross_entropy` takes it.
    """
    return _options.with_options(
        label_loss, class_losses, logits, target, weight, ignore_index, reduction, label_smoothing
    )
