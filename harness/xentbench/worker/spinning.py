"""`F.cross_entropy` made slower by a known share: live injections that the clock is tried with (`selftest clock`).

Each arm calls the function, then busy-waits for its share of that very call's own time. `plus_0` is the control: the
same wrapper, and the same two readings of the clock, without the wait.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Loss = Callable[..., torch.Tensor]

SHARES: Final = {"plus_0": 0.0, "plus_2": 0.02, "plus_5": 0.05, "plus_10": 0.10}
"""Name of an arm -> what it adds to its own time."""


def slowed(loss: Loss, share: float, now_ns: Callable[[], int] = time.perf_counter_ns) -> Loss:
    """Return the loss with a busy wait of `share` of each call's own time after it.

    Args:
        loss: called as it is.
        share: of the call's time (0.05 is five per cent).
        now_ns: clock, in nanoseconds.
    """

    def slow(input: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:  # noqa: A002, ANN401 - torch's
        start = now_ns()
        result = loss(input, target, **options)
        stop = now_ns()
        until = stop + share * (stop - start)
        while now_ns() < until:
            pass
        return result

    return slow


plus_0, plus_2, plus_5, plus_10 = (slowed(functional.cross_entropy, share) for share in SHARES.values())
