"""`compiled-f-cross-entropy`: the baseline through `torch.compile`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from xentbench.implementations import _options, f_cross_entropy

from xentbench import implementation

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@implementation(
    "compiled-f-cross-entropy",
    source="Ansel et al. 2024 (PyTorch 2), doi:10.1145/3620665.3640366",
    factory=True,
    compiles=True,
    supports=_options.compiled_refusal,
)
def compiled_f_cross_entropy() -> Callable[..., Tensor]:
    """`torch.compile` of `F.cross_entropy`: does a compiler add anything to a tuned function?

    An example of an entrant with set-up: a factory, called once a problem. `fullgraph` makes a graph break an error;
    `dynamic=False` gives every problem a graph of its own, for its very sizes.
    Formula and shapes: those of `F.cross_entropy`.
    """
    return torch.compile(f_cross_entropy.f_cross_entropy.function, fullgraph=True, dynamic=False)
