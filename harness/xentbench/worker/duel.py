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
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from xentbench.inputs import Inputs, Stream
from xentbench.spec import Phase, Problem
from xentbench.worker.calls import fresh

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from xentbench.worker.calls import Loss
    from xentbench.worker.clock import Clock

REFRESHED_TARGETS: Final = 8
"""One target in so many is drawn anew for every visit."""


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


class Storage:
    """One pair of logits and target that is refreshed in place between visits."""

    def __init__(self, problem: Problem, inputs: Inputs, phase: Phase, *, restore: bool) -> None:
        self.problem = problem
        self.logits, self.target = fresh(problem, inputs, phase)
        self._logits_view = _writable(self.logits)
        self._target_view = _writable(self.target) if problem.has_index_target else None
        # An implementation that overwrites its logits by design gets them back before every call, as every arm does.
        self._master = self.logits.detach().clone() if restore else None

    def refresh(self, values: npt.NDArray[np.float64], classes: npt.NDArray[np.int64]) -> None:
        """Change one logit in every row, and one target in eight, without a trace in the tensors' version counters."""
        self.restore()
        if not self.problem.rows:
            return
        index = _class_index(self.problem, classes)
        if self._logits_view is None:
            self._refresh_on_device(values, index)
            return
        self._logits_view[index] = _encode(values, self.logits.dtype).reshape(self._logits_view[index].shape)
        if self._target_view is not None and self._target_view.ndim == 1:
            some = slice(int(classes[0]) % REFRESHED_TARGETS, None, REFRESHED_TARGETS)
            kept = self._target_view[some] == self.problem.ignore_index
            self._target_view[some] = np.where(kept, self._target_view[some], classes[some])

    def _refresh_on_device(self, values: npt.NDArray[np.float64], index: tuple[Any, ...]) -> None:
        """Change one logit in every row where NumPy cannot reach; `.data` leaves the version counter alone as well."""
        places = tuple(torch.as_tensor(part, device=self.logits.device) for part in index)
        fresh_values = torch.from_numpy(values).to(self.logits.dtype).to(self.logits.device)
        self.logits.data[places] = fresh_values.reshape(self.logits.data[places].shape)

    def restore(self) -> None:
        """Bring back logits that a declared implementation overwrites."""
        if self._master is not None:
            with torch.no_grad():
                self.logits.copy_(self._master)


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
        order, stream = random.Random(seed), Stream(self.problem.key, self.phase, seed, "refresh")  # noqa: S311 - no secret
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
                    rows = self.problem.rows
                    self.timed.refresh(stream.normal(rows), stream.integers(self.problem.num_classes, rows))
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


def _writable(tensor: torch.Tensor) -> npt.NDArray[Any] | None:
    """Return a NumPy view of the tensor's memory (bfloat16 through int16), or None off the CPU."""
    if tensor.device.type != "cpu":
        return None
    plain = tensor.detach()
    view: npt.NDArray[Any] = (plain.view(torch.int16) if plain.dtype is torch.bfloat16 else plain).numpy()
    return view


def _class_index(problem: Problem, classes: npt.NDArray[np.int64]) -> tuple[Any, ...]:
    """Return an index that picks one logit of every row: `[c]`, `[n, c]`, or `[n, c, …]` over the extra dimensions."""
    if problem.batch_size is None:
        return (classes[:1],)
    shape = (problem.batch_size, *problem.dims)
    rows, *rest = np.indices(shape, sparse=True)
    return (rows, classes.reshape(shape), *rest)


def _encode(values: npt.NDArray[np.float64], dtype: torch.dtype) -> npt.NDArray[Any]:
    rounded = torch.from_numpy(values).to(dtype)
    encoded: npt.NDArray[Any] = (rounded.view(torch.int16) if dtype is torch.bfloat16 else rounded).numpy()
    return encoded


def _minor_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
