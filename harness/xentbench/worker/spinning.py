"""`F.cross_entropy` made slower by a known share: live injections that the clock is tried with (`selftest clock`).

Each arm calls the function, then waits busily for its share of that very call's own time. `plus_0` is the control: the
same wrapper, and the same readings of the clock, without the wait.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    Loss = Callable[..., torch.Tensor]

SHARES: Final = {"plus_0": 0.0, "plus_2": 0.02, "plus_5": 0.05, "plus_10": 0.10}
"""Name of an arm -> what it adds to its own time."""
_TRIALS: Final = 301


def look_ns(now_ns: Callable[[], int] = time.perf_counter_ns) -> float:
    """Return what one look at the clock takes in a busy wait, in nanoseconds: the median of many waits."""
    trials = []
    for _ in range(_TRIALS):
        looks, start = 0, now_ns()
        until = start + 5_000.0
        while now_ns() < until:
            looks += 1
        trials.append((now_ns() - start) / (looks + 2))
    return statistics.median(trials)


def slowed(
    loss: Loss,
    share: float,
    each_ns: float,
    own_ns: float = 0.0,
    now_ns: Callable[[], int] = time.perf_counter_ns,
) -> Loss:
    """Return the loss with a busy wait after it of `share` of each call's own time.

    A wait ends with the first look at the clock that finds it over, so it is rounded up to whole looks, and one of no
    length takes one look: half a look longer, it is right on the average, and in the control the same.

    Args:
        loss: called as it is.
        share: of the call's time (0.05 is five per cent).
        each_ns: what one look at the clock takes.
        own_ns: what this wrapper takes without loss and wait, which counts as time of the call too.
        now_ns: clock, in nanoseconds.
    """

    def slow(input: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:  # noqa: A002, ANN401 - torch's
        start = now_ns()
        result = loss(input, target, **options)
        wait = share * (now_ns() - start + own_ns) + each_ns / 2
        until = now_ns() + wait
        while now_ns() < until:
            pass
        return result

    return slow


def wrapper_ns(each_ns: float, now_ns: Callable[[], int] = time.perf_counter_ns) -> float:
    """Return what the wrapper takes around a loss that does nothing, in nanoseconds: the median of many calls."""
    empty, nothing = slowed(lambda logits, _target: logits, 0.0, each_ns), torch.empty(0)
    trials = []
    for _ in range(_TRIALS):
        start = now_ns()
        empty(nothing, nothing)
        trials.append(now_ns() - start)
    return statistics.median(trials)


EACH_NS: Final = look_ns()
OWN_NS: Final = wrapper_ns(EACH_NS)


def slower(loss: Loss, share: float) -> Loss:
    """Return the loss slowed by a share of its own time, by what was measured in this process when it was imported."""
    return slowed(loss, share, EACH_NS, OWN_NS)


plus_0, plus_2, plus_5, plus_10 = (slower(functional.cross_entropy, share) for share in SHARES.values())
