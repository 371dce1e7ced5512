"""`quack`: QuACK's cross-entropy, in CuTe DSL. Never run here: it takes a GPU of compute capability 8.0 or more.

    pip install quack-kernels
    xentbench bench quack --plugin examples/peers/quack_loss.py --device cuda --grid llm

Read in quack-kernels 0.6.5, `quack/cross_entropy.py`: logits `(N, C)` of float32, bfloat16 or float16 and labels of one
dimension, asserted; losses in float32 whatever the dtype of the logits; class weights, no label smoothing, no
probabilities; the log-sum-exp is saved. No Triton: nothing interprets it where there is no GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xentbench import WorkContract, implementation

if TYPE_CHECKING:
    from torch import Tensor

    from xentbench import Problem


def refusal(problem: Problem) -> str | None:
    """Return why it is not asked: by what its code asserts."""
    if not problem.device.startswith("cuda"):
        return "quack's loss takes tensors on a GPU: ask with --device cuda"
    if problem.dims or problem.batch_size is None or not problem.has_index_target:
        return "takes logits (N, C) with class indices"
    return "takes float32, bfloat16 and float16" if problem.dtype == "float64" else None


@implementation(
    "quack",
    source="https://github.com/Dao-AILab/quack",
    supports=refusal,
    work=WorkContract(result_dtype="float32"),
    packages=("quack-kernels:quack",),  # what pip installs, and what is imported: on PyPI `quack` is another
)
def quack(
    input: Tensor,  # noqa: A002 - the name that F.cross_entropy gives it
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """QuACK's cross-entropy, logits left as they are (`inplace_backward=False`)."""
    from quack.cross_entropy import cross_entropy  # noqa: PLC0415 - only where it is installed

    loss: Tensor = cross_entropy(input, target, weight=weight, ignore_index=ignore_index, reduction=reduction)
    return loss
