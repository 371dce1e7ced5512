"""`nn-cross-entropy-loss`: the module class, constructed once a problem with its options, then called.

An example of an entrant that is a class: the harness passes the options to the constructor, so that what is timed is
the module's call, as in a training loop, and not its construction.
Formula and shapes: those of `F.cross_entropy`, which the module calls.
"""

from __future__ import annotations

from torch import nn
from xentbench.implementations import _options

from xentbench import implementation

nn_cross_entropy_loss = implementation(
    "nn-cross-entropy-loss",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html",
    summary="The module nn.CrossEntropyLoss: what a module's call costs above the function.",
    supports=_options.refusal,
)(nn.CrossEntropyLoss)
