"""Who is called when in a burst, and which calls are remembered: both ends derive it from the burst's seed alone."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import numpy as np

from xentbench.drawing import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from xentbench.spec import Phase, Problem

BASELINE, CANDIDATE, TWIN, ARMS = 0, 1, 2, 3
SLOTS: Final = 2
"""Gradients that a worker remembers of a burst: which of them is asked for it learns when the burst is over."""
GRADIENT_ELEMENTS: Final = 1 << 14
"""Of a larger gradient only so many numbers are remembered, in whole rows drawn for each call."""


def orders(seed: int, arms: int = ARMS) -> Iterator[list[int]]:
    """Yield for every round of a burst the arms in the order of their visits."""
    order = random.Random(f"order {seed}")  # noqa: S311 - both ends derive it
    while True:
        yield order.sample(range(arms), arms)


class Keeper:
    """Chooses which calls of the candidate are remembered: each slot holds any call of the burst with equal chance."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"keep {seed}")  # noqa: S311 - both ends derive it
        self.slots = [0] * SLOTS
        self._calls = 0

    def next(self) -> list[int]:
        """Return the slots that the next call replaces, by reservoir sampling."""
        taken = [slot for slot in range(SLOTS) if self._chance.randrange(self._calls + 1) == 0]
        for slot in taken:
            self.slots[slot] = self._calls
        self._calls += 1
        return taken


def remembered_rows(problem: Problem, phase: Phase, seed: int, call: int) -> npt.NDArray[np.int64]:
    """Return which rows of the gradient are remembered of the candidate's `call` in the burst of this seed."""
    count = max(1, GRADIENT_ELEMENTS // max(1, problem.num_classes))
    if problem.rows <= count:
        return np.arange(problem.rows)
    return Stream(problem.key, phase, seed, "rows", call).integers(problem.rows, count)


def timed_last_refreshed(visit: int, pool: int) -> int:
    """Return by which refresh, counted from 1 over all bursts, the input of a visit (from 1 too) was made.

    A number below 1 is one of the pool's first values: the storage of that index, less the pool's size.
    """
    return visit if pool == 1 else visit + 1 - pool
