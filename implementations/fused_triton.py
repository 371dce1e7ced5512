"""`fused-triton`: this project's kernel for GPUs, in Triton; judged through Triton's interpreter, and not measured yet.

Needs the package triton; its kernels are in `_fused_triton.py`, which nothing imports before the loss is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from xentbench.implementations import _options

from xentbench import implementation

if TYPE_CHECKING:
    from torch import Tensor

    from xentbench import Problem

DEVICES: Final = ("cpu", "cuda", "xpu")
"""Where Triton runs; on the first by its interpreter, for the judge."""


def _refusal(problem: Problem) -> str | None:
    kind = problem.device.partition(":")[0]
    return _options.refusal(problem) if kind in DEVICES else f"Triton has no such device, got {problem.device}"


@implementation(
    "fused-triton",
    source="Milakov & Gimelshein 2018, arXiv:1805.02867",
    supports=_refusal,
    packages=("triton",),
    on_request=True,
)
def cross_entropy(
    input: Tensor,  # noqa: A002 - the name that F.cross_entropy gives it
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """This project's kernel for GPUs, in Triton: judged through its interpreter, unmeasured so far.

    An example of a kernel that is written where no GPU is. Logits are read once forward, read once and the gradient
    written once backward; beside them there are two numbers a row (three with label smoothing or probabilities), and
    of memory no more than the gradient. One launch and two or three small reductions forward, one launch backward.
    Maximum m and sum s are kept apart. Labels out of range end in an assertion of the device, as with torch's loss. A
    second derivative is refused.
    Formula: `loss = log s - (x[t] - m)`; gradient `(exp(x - m) / s - y) * upstream`.
    Shapes: logits `(C,)`, `(N, C)` or `(N, C, d1, …)`, the last and rows that are not contiguous by a copy; target as
    `F.cross_entropy` takes it.
    """
    _options.check(input, target, weight, ignore_index, reduction, label_smoothing)
    from xentbench.implementations import _fused_triton as kernels  # noqa: PLC0415 - only where triton is

    classes = _options.classes_last(input)
    logits = _rows(classes)
    is_probability = target.shape == input.shape
    labels = _rows(_options.classes_last(target)) if is_probability else target.reshape(-1)
    smoothing = max(0.0, label_smoothing)
    options = kernels.Options(ignore_index, reduction, 1.0 - smoothing, smoothing / logits.shape[1])
    if input.is_cpu and not is_probability:
        _check_labels(labels, ignore_index, logits.shape[1])
    weight = _options.constant(weight)
    weight = None if weight is None else weight.contiguous()
    loss: Tensor = kernels.CrossEntropy.apply(logits, labels, weight, options)  # type: ignore[no-untyped-call]
    dtype = torch.promote_types(input.dtype, target.dtype) if is_probability else input.dtype
    return (loss.reshape(classes.shape[:-1]) if reduction == "none" else loss).to(dtype)


def _rows(classes: Tensor) -> Tensor:
    """Return `(*N, C)` as `(N, C)` whose rows are contiguous in themselves, a view where it can be."""
    rows = classes.reshape(-1, classes.shape[-1])
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def _check_labels(labels: Tensor, ignore_index: int, classes: int) -> None:
    """Raise IndexError where the interpreter, which leaves assertions out, would see a label out of range."""
    if ((labels != ignore_index) & ((labels < 0) | (labels >= classes))).any():
        msg = f"labels must lie between 0 and {classes - 1}, or be ignore_index ({ignore_index})"
        raise IndexError(msg)
