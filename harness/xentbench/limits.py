"""What a phase must do at least: bytes held, bytes moved, and the time that this machine's memory needs for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import numpy as np

from xentbench.spec import DTYPE_BYTES, Phase, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_INDEX_BYTES: Final = 8
COPY_SIZES_BYTES: Final = (2**16, 2**20, 2**24, 2**26)
"""Sizes at which copying is measured: first and second level cache, last level, main memory."""


def minimum_bytes(problem: Problem, phase: Phase) -> int:
    """Return the least extra memory at the peak of a phase: its results, nothing else.

    Forward: the loss. Backward: one gradient. Forward+backward: both. O(N) of saved state is not counted.
    """
    size = DTYPE_BYTES[problem.dtype]
    loss = size * (problem.rows if problem.reduction == "none" else 1)
    gradient = problem.logits_bytes * (2 if problem.target_grad else 1)
    return {
        Phase.FORWARD_NO_GRAD: loss,
        Phase.FORWARD: loss,
        Phase.BACKWARD: gradient,
        Phase.FORWARD_BACKWARD: loss + gradient,
    }[phase]


def moved_bytes(problem: Problem, phase: Phase) -> int:
    """Return the least memory traffic of a phase: each input read once, each result written once.

    Forward+backward may read the logits once only, if the gradient is made in the same pass.
    """
    target = problem.rows * _INDEX_BYTES if problem.has_index_target else problem.logits_bytes
    return problem.logits_bytes + target + minimum_bytes(problem, phase)


def copy_bandwidths(clock: Callable[[], float] = time.perf_counter) -> dict[int, float]:
    """Measure this machine's copy bandwidth: size in bytes -> bytes read and written per second, one thread.

    The best of several copies counts, since a floor must not be raised by somebody else's load.
    """
    bandwidths = {}
    for size in COPY_SIZES_BYTES:
        source, sink = np.ones(size, dtype=np.uint8), np.empty(size, dtype=np.uint8)
        repeats = max(1, 2**22 // size)
        best = float("inf")
        for _ in range(7):
            start = clock()
            for _ in range(repeats):
                np.copyto(sink, source)
            best = min(best, (clock() - start) / repeats)
        bandwidths[size] = 2 * size / best if best > 0 else float("inf")
    return bandwidths


def floor_s(problem: Problem, phase: Phase, bandwidths: Mapping[int, float]) -> float:
    """Return the time in seconds below which no implementation can end that reads its input: bytes over bandwidth.

    The bandwidth is that of the largest measured size not above the logits', so that data in cache is not judged by
    main memory's speed.
    """
    fitting = [size for size in sorted(bandwidths) if size <= problem.logits_bytes] or [min(bandwidths)]
    return moved_bytes(problem, phase) / bandwidths[fitting[-1]]
