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

from xentbench.drawing import Stream
from xentbench.spec import Phase, Problem
from xentbench.worker.calls import fresh

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from xentbench.inputs import Inputs
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


class Cells:
    """A tensor's memory, read and written at an index past autograd and past the version counter.

    On the CPU through a NumPy view, bfloat16 as its bits: ten times cheaper than an indexed write of torch's, which
    matters beside calls of five microseconds. Elsewhere through `.data`.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        whole = tensor.data if tensor.dim() else tensor.data.view(1)
        self._device, self._is_bfloat16 = whole.device, whole.dtype is torch.bfloat16
        self._values: Any = whole
        if whole.device.type == "cpu":
            self._values = (whole.view(torch.int16) if self._is_bfloat16 else whole).numpy()

    def read(self, index: tuple[Any, ...]) -> Any:  # noqa: ANN401 - an array or a tensor, as stored
        """Return the stored values at the index, a copy."""
        return self._values[self._here(index)]

    def write(self, index: tuple[Any, ...], stored: Any) -> None:  # noqa: ANN401 - as `read` gives them
        """Store values at the index."""
        self._values[self._here(index)] = stored

    def moved(self, stored: Any, steps: npt.NDArray[np.float64]) -> Any:  # noqa: ANN401 - as `read` gives them
        """Return stored values moved by so many steps of 1, or of a sixteenth of their size; not finite ones stay."""
        old = stored.double().cpu().numpy() if isinstance(stored, torch.Tensor) else self._decoded(stored)
        finite = np.isfinite(old)
        size = np.where(finite, 1.0 + np.abs(old) / 16.0, 0.0)
        new = np.where(finite, old, 0.0) + steps.reshape(old.shape) * size
        new = np.where(finite, new, old)
        if isinstance(stored, torch.Tensor):
            return torch.from_numpy(new).to(stored)
        if self._is_bfloat16:  # the upper half of a float32's bits, cut off rather than rounded: any value will do
            return (new.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
        return new.astype(stored.dtype)

    def _decoded(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        if self._is_bfloat16:
            stored = (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float64)

    def _here(self, index: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._device.type == "cpu":
            return index
        return tuple(torch.as_tensor(part, device=self._device) for part in index)


class Storage:
    """One pair of logits and target that is refreshed in place between visits.

    A refresh departs from the original values every time, so that real logits stay real however often they are timed.
    """

    def __init__(self, problem: Problem, inputs: Inputs, phase: Phase, *, restore: bool) -> None:
        self.problem = problem
        self.logits, self.target = fresh(problem, inputs, phase)
        self._logits, self._target = Cells(self.logits), Cells(self.target)
        self._row_shape = problem.row_shape or (1,)
        self._rows = tuple(np.unravel_index(np.arange(problem.rows), self._row_shape))
        self._undo: list[tuple[Cells, tuple[Any, ...], Any]] = []
        # An implementation that overwrites its logits by design gets them back before every call, as every arm does.
        self._master = self.logits.detach().clone() if restore else None

    def refresh(self, numbers: Numbers) -> None:
        """Change one logit in every row, and one label in eight, without a trace in the tensors' version counters."""
        for cells, index, original in reversed(self._undo):
            cells.write(index, original)
        self._undo = []
        self.restore()
        if not self.problem.rows:
            return
        steps, classes, donors = numbers.next()
        first, *rest = self._rows
        # Logits are (N, C, d1, …), or (C,) for the one row of an unbatched problem.
        index = (classes,) if self.problem.batch_size is None else (first, classes, *rest)
        old = self._logits.read(index)
        self._change(self._logits, index, old, self._logits.moved(old, steps))
        if self.problem.has_index_target:
            self._relabel(int(classes[0]), donors)

    def restore(self) -> None:
        """Bring back logits that a declared implementation overwrites."""
        if self._master is not None:
            with torch.no_grad():
                self.logits.copy_(self._master)

    def _relabel(self, first: int, donors: npt.NDArray[np.int64]) -> None:
        """Give every eighth row the label of another, so that their distribution stays; ignored rows stay ignored."""
        some = slice(first % REFRESHED_TARGETS, None, REFRESHED_TARGETS)
        index = tuple(part[some] for part in self._rows)
        old = self._target.read(index)
        new = self._target.read(tuple(part[donors[some]] for part in self._rows))
        kept = (old == self.problem.ignore_index) | (new == self.problem.ignore_index)
        where: Any = torch.where if isinstance(old, torch.Tensor) else np.where
        self._change(self._target, index, old, where(kept, old, new))

    def _change(self, cells: Cells, index: tuple[Any, ...], old: Any, new: Any) -> None:  # noqa: ANN401 - as stored
        self._undo.append((cells, index, old))
        cells.write(index, new)


class Numbers:
    """Random numbers of the refreshes of one burst, drawn many visits at a time: a draw costs more than its use."""

    def __init__(self, problem: Problem, stream: Stream) -> None:
        self._rows, self._classes, self._stream = problem.rows, problem.num_classes, stream
        self._visits = max(1, 4096 // max(1, problem.rows))
        self._drawn: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []

    def next(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return for every row a step, a class, and the row that its new label comes from."""
        if not self._drawn:
            shape = (self._visits, self._rows)
            steps, classes = self._stream.normal(*shape), self._stream.integers(self._classes, *shape)
            self._drawn = list(zip(steps, classes, self._stream.integers(self._rows, *shape), strict=True))
        return self._drawn.pop()


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
