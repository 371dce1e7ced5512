"""`from-scratch`: cross-entropy from elementary operations, shifted by the maximum so that nothing overflows."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from xentbench.implementations import _options

from xentbench import implementation

# "*N" stands for any number of row axes: none, (N) or (N, d1, …). The names are documentation: jaxtyping checks nothing
# at run time unless a type checker is switched on.
Logits = Float[Tensor, "*N C"]
Labels = Int[Tensor, "*N"]
ClassLosses = Float[Tensor, "*N C"]
RowLosses = Float[Tensor, "*N"]


def shift(logits: Logits) -> Logits:
    """Return `x - max(x)`, at most 0, so that exp cannot overflow.

    The loss does not depend on the shift, so no gradient needs to flow through the maximum.
    """
    return logits - logits.detach().amax(dim=-1, keepdim=True)


def label_loss(logits: Logits, label: Labels) -> RowLosses:
    """Return `log(sum_j exp(z[j])) - z[label]` with `z = x - max(x)`."""
    shifted = shift(logits)
    log_sum = shifted.exp().sum(dim=-1).log()
    return log_sum - shifted.gather(-1, label.unsqueeze(-1)).squeeze(-1)


def class_losses(logits: Logits) -> ClassLosses:
    """Return `-log softmax(x)[j] = log(sum_k exp(z[k])) - z[j]` of every class."""
    shifted = shift(logits)
    return shifted.exp().sum(dim=-1, keepdim=True).log() - shifted


@implementation(
    "from-scratch",
    source="Blanchard, Higham & Higham 2021, doi:10.1093/imanum/draa038 (shifted log-sum-exp and its rounding errors)",
    supports=_options.refusal,
)
def from_scratch(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Stable cross-entropy from exp, sum and log: the one to read first.

    An example of what every stable implementation does: subtract the row's maximum before the exponential, and subtract
    the *shifted* label logit, so that large logits of a row cancel before anything is rounded.
    Formula: `z = x - max(x)`; `loss = log(sum_j exp(z[j])) - z[t]`.
    Shapes: logits `(C,)`, `(N, C)` or `(N, C, d1, …)`; target as `F.cross_entropy` takes it.
    """
    return _options.with_options(
        label_loss, class_losses, logits, target, weight, ignore_index, reduction, label_smoothing
    )
