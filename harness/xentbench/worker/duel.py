"""The inner loop of the duel: visits, rounds and bursts of one problem and phase, in one process.

A *visit* refreshes storage B (one logit in every row, and an eighth of the targets), makes one untimed call of the same
arm on storage A, then one timed call on B. A *round* visits every arm once in a fresh random order. A *burst* is a few
rounds. Fixed orders bias the ratio, unprimed calls let the neighbour arm decide the number, and blocks of calls swallow
whole preemptions; unchanged inputs could be answered from a memo.
"""

from __future__ import annotations

import contextlib
import random
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xentbench.drawing import Stream
from xentbench.spec import Phase, Problem
from xentbench.worker.storage import Numbers, Storage

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from xentbench.inputs import Inputs
    from xentbench.worker.calls import Loss
    from xentbench.worker.clock import Clock


@dataclass(frozen=True, slots=True)
class Burst:
    """Raw times of one burst: rows are rounds in the order they ran, columns are arms in the order they were given.

    Attributes:
        wall_ns: int64 `(rounds, arms)`.
        cpu_ns: int64 `(rounds, arms)`, CPU time of the thread around the same calls.
        minor_faults: page faults without disk access during the burst.
    """

    wall_ns: npt.NDArray[np.int64]
    cpu_ns: npt.NDArray[np.int64]
    minor_faults: int


class Duel:
    """Arms that answer the same problem in the same phase, timed call by call.

    Args:
        problem: what is asked.
        phase: which stretch is timed.
        arms: bound losses; by convention baseline, candidate, the baseline's twin.
        inputs: values that both storages begin with.
        clock: injected.
        restore: give the logits back before every call (an arm overwrites them by declaration).
    """

    def __init__(
        self, problem: Problem, phase: Phase, arms: list[Loss], inputs: Inputs, clock: Clock, *, restore: bool = False
    ) -> None:
        self.problem, self.phase, self.arms, self.clock = problem, phase, arms, clock
        self.prime, self.timed = (Storage(problem, inputs, phase, restore=restore) for _ in range(2))
        self._upstream = inputs.upstream
        self._visit: Callable[[Loss, Storage], tuple[int, int]] = {
            Phase.FORWARD_NO_GRAD: self._forward,
            Phase.FORWARD: self._forward,
            Phase.BACKWARD: self._backward,
            Phase.FORWARD_BACKWARD: self._both,
        }[phase]

    def warm_up(self, calls: int, budget_s: float) -> None:
        """Call every arm a few times, untimed: first calls cost 3 to 300 times as much as later ones."""
        with self._context():
            for arm in self.arms:
                start = self.clock.now_ns()
                for done in range(calls):
                    self._visit(arm, self.prime)
                    if done and self.clock.now_ns() - start > budget_s * 1e9:
                        break

    def burst(self, seed: int, budget_s: float, least_rounds: int, most_rounds: int) -> Burst:
        """Run rounds until the budget is spent, at least `least_rounds` and at most `most_rounds` of them."""
        order = random.Random(seed)  # noqa: S311 - no secret
        numbers = Numbers(self.problem, Stream(self.problem.key, self.phase, seed, "refresh"))
        wall: list[list[int]] = []
        cpu: list[list[int]] = []
        faults = _minor_faults()
        start = self.clock.now_ns()
        with self._context():
            while len(wall) < most_rounds and (
                len(wall) < least_rounds or self.clock.now_ns() - start < budget_s * 1e9
            ):
                wall_round, cpu_round = [0] * len(self.arms), [0] * len(self.arms)
                for arm in order.sample(range(len(self.arms)), len(self.arms)):
                    self.timed.refresh(numbers)
                    self.prime.restore()
                    self._visit(self.arms[arm], self.prime)
                    wall_round[arm], cpu_round[arm] = self._visit(self.arms[arm], self.timed)
                wall.append(wall_round)
                cpu.append(cpu_round)
        return Burst(np.array(wall, dtype=np.int64), np.array(cpu, dtype=np.int64), _minor_faults() - faults)

    def _context(self) -> Any:  # noqa: ANN401 - a context manager of torch or none
        # Entering torch.no_grad costs as much as a small loss: outside the window.
        return torch.no_grad() if self.phase is Phase.FORWARD_NO_GRAD else contextlib.nullcontext()

    def _forward(self, loss: Loss, at: Storage) -> tuple[int, int]:
        logits, target, now_ns, cpu_ns = at.logits, at.target, self.clock.now_ns, self.clock.cpu_ns
        cpu = cpu_ns()
        start = now_ns()
        result = loss(logits, target)
        stop = now_ns()
        cpu = cpu_ns() - cpu
        del result
        return stop - start, cpu

    def _backward(self, loss: Loss, at: Storage) -> tuple[int, int]:
        upstream, now_ns, cpu_ns = self._upstream, self.clock.now_ns, self.clock.cpu_ns
        result = loss(at.logits, at.target)
        cpu = cpu_ns()
        start = now_ns()
        result.backward(upstream)  # type: ignore[no-untyped-call]
        stop = now_ns()
        cpu = cpu_ns() - cpu
        at.logits.grad = at.target.grad = None
        return stop - start, cpu

    def _both(self, loss: Loss, at: Storage) -> tuple[int, int]:
        logits, target, upstream = at.logits, at.target, self._upstream
        now_ns, cpu_ns = self.clock.now_ns, self.clock.cpu_ns
        cpu = cpu_ns()
        start = now_ns()
        loss(logits, target).backward(upstream)  # type: ignore[no-untyped-call]
        stop = now_ns()
        cpu = cpu_ns() - cpu
        logits.grad = target.grad = None
        return stop - start, cpu


def _minor_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
