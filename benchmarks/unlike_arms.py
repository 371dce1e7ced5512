"""A loss unlike the baseline, under two names, and slowed down live by known shares: for whoever compares workers.

Log-sum-exp and gather in elementary operations: eight times as slow as `F.cross_entropy` on small problems, so that the
machine's moods treat the two differently, as they do real entrants.
"""

from __future__ import annotations

from typing import Any

import torch  # noqa: TC002 - annotations of a loss are read at run time

from xentbench.worker.spinning import slower


def unlike(input: torch.Tensor, target: torch.Tensor, **_options: Any) -> torch.Tensor:  # noqa: A002, ANN401 - torch's
    """Return the mean cross-entropy of logits (N, C) and labels (N,)."""
    return (input.logsumexp(1) - input.gather(1, target.unsqueeze(1)).squeeze(1)).mean()


plus_0, again_0, plus_5, plus_10 = (slower(unlike, share) for share in (0.0, 0.0, 0.05, 0.10))
