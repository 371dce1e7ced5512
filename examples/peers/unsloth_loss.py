"""`unsloth`: Unsloth's fast cross-entropy, in Triton. Never run here: it takes a GPU, and the whole of Unsloth.

    pip install unsloth
    xentbench bench unsloth --plugin examples/peers/unsloth_loss.py --device cuda --grid llm

Read in unsloth 2026.10.9, `unsloth/kernels/cross_entropy_loss.py`: logits `(batch, sequence, C)` and labels of their
first two dimensions; the mean alone, and -100 as the only label to ignore; losses in float32 whatever the dtype of the
logits; the log-sum-exp is saved. A mean over no row is 0 there, where `F.cross_entropy` has NaN: expect the judge to
say so. To import it is to patch other libraries: its worker is its own, so that nobody else is touched, but what it
changes in torch may be held against it (status `tampered`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xentbench import WorkContract, implementation

if TYPE_CHECKING:
    from torch import Tensor

    from xentbench import Problem


def refusal(problem: Problem) -> str | None:
    """Return why it is not asked: by what its code takes for granted."""
    if not problem.device.startswith("cuda"):
        return "unsloth's loss takes tensors on a GPU: ask with --device cuda"
    if problem.dims or problem.batch_size is None or not problem.has_index_target:
        return "takes logits (N, C) with class indices"
    if problem.ignores and problem.ignore_index != -100:  # noqa: PLR2004 - the only one that it knows
        return f"ignores -100 alone, got ignore_index={problem.ignore_index}"
    return "computes in float32, whatever the dtype of the logits" if problem.dtype == "float64" else None


@implementation(
    "unsloth",
    source="https://github.com/unslothai/unsloth",
    supports=refusal,
    work=WorkContract(result_dtype="float32"),
    packages=("unsloth", "triton"),
)
def unsloth(input: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:  # noqa: A002, ARG001 - see `refusal`
    """Unsloth's cross-entropy, a batch of one sequence."""
    from unsloth.kernels.cross_entropy_loss import fast_cross_entropy_loss  # noqa: PLC0415 - only where installed

    loss: Tensor = fast_cross_entropy_loss(input.unsqueeze(0), target.unsqueeze(0))
    return loss
