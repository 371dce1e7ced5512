"""`compiled-from-scratch`: the elementary operations of `from-scratch`, fused by `torch.compile`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from xentbench.implementations import _options, from_scratch

from xentbench import implementation

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@implementation(
    "compiled-from-scratch",
    source="Ansel et al. 2024 (PyTorch 2), doi:10.1145/3620665.3640366",
    factory=True,
    compiles=True,
    supports=_options.compiled_refusal,
)
def compiled_from_scratch() -> Callable[..., Tensor]:
    """`torch.compile` of `from-scratch`: the readable code, fused into a few loops.

    An example of what fusion is for: eager, each elementary operation reads and writes an `(N, C)` array; compiled, the
    maximum, the exponentials and their sum become passes over the logits without arrays between them.
    Formula and shapes: those of `from-scratch`.
    """
    return torch.compile(from_scratch.from_scratch.function, fullgraph=True, dynamic=False)
