"""What a phase must do at least, what this machine can do, and so how close to the possible a time comes.

Two bounds, of two kinds. The *floor* is physical: every input read once and every result written once, over the best
bandwidth that this machine showed. A time below it is an error of measurement, or did not do the work, and is flagged.
The *limit* also counts exponentials, at the best rate of the libraries at hand. A kernel may exponentiate faster than
they do, so that more than all of the limit can be reached: that is told, never flagged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from xentbench.spec import DTYPE_BYTES, Phase, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from xentbench.inputs import Inputs
    from xentbench.machine import Machine

_INDEX_BYTES: Final = 8
STORAGES: Final = 2
"""A timed call finds in cache what a prime call on as many other logits left there, so the working set is both."""


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


def counted_rows(problem: Problem, target: torch.Tensor, weight: torch.Tensor | None) -> int:
    """Return how many rows of logits must be looked at: not those that are ignored, nor those that weigh nothing.

    Args:
        problem: what is asked.
        target: class indices, or probabilities shaped as the logits.
        weight: `(C,)` or None. Where any class weighs 0 no row is counted: which rows those are changes from call to
            call, as labels are refreshed, and a bound must hold for all of them.
    """
    if weight is not None and bool((weight == 0).any()):
        return 0
    if problem.has_index_target:
        return int((target != problem.ignore_index).sum())
    return int(target.bool().any(0 if problem.batch_size is None else 1).sum())


def read_bytes(problem: Problem, rows: int | None = None) -> int:
    """Return the least bytes of logits that a phase reads: `rows` of them, N where None; repeated rows (stride 0) once.

    A backward reads the logits, or as much that the forward left in their place.
    """
    counted = problem.rows if rows is None else rows
    repeats = problem.logits_shape[0] if problem.logits_layout == "expanded" else 1
    return counted * problem.num_classes * DTYPE_BYTES[problem.dtype] // max(1, repeats)


def moved_bytes(problem: Problem, phase: Phase, rows: int | None = None) -> int:
    """Return the least memory traffic of a phase: the target and `rows` of logits read once, each result written once.

    Forward+backward may read the logits once only, if the gradient is made in the same pass. The gradient of rows that
    are ignored is written too: zeros. Class weights are left out.
    """
    target = problem.rows * _INDEX_BYTES if problem.has_index_target else problem.logits_bytes
    repeats = (problem.batch_size or 1) if problem.target_layout == "expanded" else 1
    return read_bytes(problem, rows) + target // max(1, repeats) + minimum_bytes(problem, phase)


def exponentials(problem: Problem, phase: Phase, rows: int | None = None) -> int:
    """Return the least exponentials of a phase: C - 1 for each of `rows`, N where None.

    `logsumexp(x) = m + log(1 + sum exp(x_j - m))` over all but the largest, m. Backward: none, the forward may have
    saved them. Forward+backward: once, for the same reason. Logarithms, one a row, are not counted. Assumed is that
    every term is computed: a row whose other logits lie so far below its largest that they vanish could do with none.
    """
    counted = problem.rows if rows is None else rows
    return 0 if phase is Phase.BACKWARD else counted * (problem.num_classes - 1)


@dataclass(frozen=True, slots=True)
class Limit:
    """The bounds of one cell.

    Attributes:
        floor_s: bytes over bandwidth, in seconds: no right answer takes less.
        limit_s: that, or the time of the exponentials where it is longer.
        by: which of the two it is, `bytes` or `exp`.
    """

    floor_s: float
    limit_s: float
    by: str

    def fields(self, latency_s: float | None) -> dict[str, Any]:
        """Return what a cell's line holds of it; `reached_ratio` is the share of the limit that this time reached."""
        reached = self.limit_s / latency_s if latency_s else None
        return {"floor_s": self.floor_s, "limit_s": self.limit_s, "limit_by": self.by, "reached_ratio": reached}


def limit(
    problem: Problem,
    phase: Phase,
    machine: Machine,
    *,
    rows: int | None = None,
    threads: int = 1,
    gradient_in_forward: bool = False,
) -> Limit:
    """Return the bounds of a phase on a machine.

    Args:
        problem: what is asked.
        phase: which stretch is timed.
        machine: what the problem's device was seen to do.
        rows: that must be looked at, see `counted_rows`; all where None.
        threads: that the processor may use: each may be as fast as one alone, with a cache of its own.
        gradient_in_forward: the implementation declares so; its backward of an upstream gradient of 1 then has nothing
            left to do.
    """
    if gradient_in_forward and phase is Phase.BACKWARD and problem.upstream == "one":
        return Limit(0.0, 0.0, "bytes")
    lanes = threads if problem.device == "cpu" else 1
    bandwidth = lanes * machine.bytes_per_s(STORAGES * read_bytes(problem, rows) // lanes)
    floor_s = moved_bytes(problem, phase, rows) / bandwidth
    rate = lanes * machine.exp_per_s.get("float64" if problem.dtype == "float64" else "float32", math.inf)
    exp_s = exponentials(problem, phase, rows) / rate
    return Limit(floor_s, max(floor_s, exp_s), "exp" if exp_s > floor_s else "bytes")


@dataclass(slots=True)
class Survey:
    """What a run finds out for its bounds.

    Attributes:
        measure: measures a device: its name, bytes of the largest working set.
        machines: what each device was seen to do so far.
        counted_rows: rows that must be looked at, by problem key.
    """

    measure: Callable[[str, int], Machine]
    machines: dict[str, Machine] = field(default_factory=dict)
    counted_rows: dict[str, int] = field(default_factory=dict)

    def look(self, problem: Problem) -> None:
        """Measure the problem's device now: its speed may drift, so the best of the run counts."""
        seen = self.measure(problem.device, STORAGES * problem.logits_bytes)
        known = self.machines.get(problem.device)
        self.machines[problem.device] = known.better(seen) if known else seen

    def count(self, problem: Problem, given: Inputs) -> None:
        """Count the rows of the tensors that the problem is asked with."""
        self.counted_rows[problem.key] = counted_rows(problem, given.target, given.weight)

    def limit(self, problem: Problem, phase: Phase, *, threads: int, gradient_in_forward: bool) -> Limit:
        """Return the bounds of a phase, as `limit` does, once `count` and `look` were told of the problem."""
        return limit(
            problem,
            phase,
            self.machines[problem.device],
            rows=self.counted_rows[problem.key],
            threads=threads,
            gradient_in_forward=gradient_in_forward,
        )
