"""`liger`: Liger-Kernel's cross-entropy, a peer in Triton; needs the package liger-kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xentbench.implementations import _options

from xentbench import Deviation, WorkContract, implementation

if TYPE_CHECKING:
    from torch import Tensor

    from xentbench import Problem


def _refusal(problem: Problem) -> str | None:
    """Return what it does not offer: read in 0.8.5, and seen where the judge can ask it."""
    interpreted = problem.device.startswith("cpu")
    reasons = {
        "takes logits of two dimensions, (N, C)": problem.dims or problem.batch_size is None,
        "takes class indices, no probabilities": not problem.has_index_target,
        "raises for an empty batch": problem.rows == 0,
        "computes in float32, whatever the dtype of the logits": problem.dtype == "float64",
        "writes a gradient over each row, and expanded rows are one": problem.logits_layout == "expanded",
        "does not look at its arguments: any unknown word counts as sum": problem.invalid == "reduction",
        "does not look at its arguments: of too many labels the first count": problem.invalid == "target-long",
        "multiplies in bfloat16, of which Triton's interpreter takes the bits": interpreted
        and problem.dtype == "bfloat16",
        "with weight calls `.to` of what is no tensor in Triton's interpreter": interpreted
        and problem.weight != "none",
    }
    return next((reason for reason, applies in reasons.items() if applies), None) or _options.refusal(problem)


@implementation(
    "liger",
    source="https://github.com/linkedin/Liger-Kernel",
    supports=_refusal,
    work=WorkContract(gradient_in_forward=True, overwrites_input=True),
    deviations=[
        Deviation("all-ignored-mean", "a mean over no row is 0, where F.cross_entropy has NaN"),
        Deviation("second-backward", "backward scales the kept gradient in place: a second one scales it again"),
        Deviation("second-derivative", "backward of reduction none has a graph in which the logits are constants"),
    ],
    packages=("liger_kernel", "triton"),
    on_request=True,
)
def liger(
    input: Tensor,  # noqa: A002 - the name that F.cross_entropy gives it
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Liger-Kernel's loss as it is: the gradient is made in forward and written over the logits.

    An example of a peer whose phases are not those of others: its forward does what others do in forward and backward,
    so that only their sum is compared, and where the logits are needed later they have to be copied.
    Shapes: logits `(N, C)`; target `(N,)`.
    """
    from liger_kernel.transformers.functional import liger_cross_entropy  # noqa: PLC0415 - only where it is installed

    loss: Tensor = liger_cross_entropy(
        input, target, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )
    return loss
