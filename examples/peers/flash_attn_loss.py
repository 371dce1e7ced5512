"""`flash-attn`: flash-attention's cross-entropy, in Triton. Never run here: it takes a GPU.

    pip install flash-attn --no-build-isolation
    xentbench bench flash-attn --plugin examples/peers/flash_attn_loss.py --device cuda --grid llm

Read in flash-attn 2.8.3.post2, `flash_attn/losses/cross_entropy.py`: logits `(N, C)` and labels on a GPU, asserted;
losses in float32 whatever the dtype of the logits; no class weights; the log-sum-exp is saved. A label out of range is
a loss of 0 there, where `F.cross_entropy` raises: expect the judge to say so. The package imports its compiled
attention as it is imported, so that Triton's interpreter does not get as far as this loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xentbench import WorkContract, implementation

if TYPE_CHECKING:
    from torch import Tensor

    from xentbench import Problem


def refusal(problem: Problem) -> str | None:
    """Return why it is not asked: by what its code asserts, and computes in."""
    if not problem.device.startswith("cuda"):
        return "flash-attn's loss takes tensors on a GPU: ask with --device cuda"
    if problem.dims or problem.batch_size is None or not problem.has_index_target:
        return "takes logits (N, C) with class indices"
    return "computes in float32, whatever the dtype of the logits" if problem.dtype == "float64" else None


@implementation(
    "flash-attn",
    source="https://github.com/Dao-AILab/flash-attention",
    supports=refusal,
    work=WorkContract(result_dtype="float32"),
    packages=("flash_attn", "triton"),
)
def flash_attn(
    input: Tensor,  # noqa: A002 - the name that F.cross_entropy gives it
    target: Tensor,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """flash-attention's cross-entropy, logits left as they are (`inplace_backward=False`)."""
    from flash_attn.losses.cross_entropy import CrossEntropyLoss  # noqa: PLC0415 - only where it is installed

    module = CrossEntropyLoss(ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing)
    loss: Tensor = module(input, target)
    return loss
