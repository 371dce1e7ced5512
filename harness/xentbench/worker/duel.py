"""The inner loop of the duel: visits, rounds and bursts of one problem and phase, in one process.

A *visit* refreshes storage B (one logit in every row, and an eighth of the targets), makes one untimed call of the same
arm on storage A, then one timed call on B. A *round* visits every arm once in a fresh random order. A *burst* is a few
rounds. Fixed orders bias the ratio, unprimed calls let the neighbour arm decide the number, and blocks of calls swallow
whole preemptions; unchanged inputs could be answered from a memo.

What a timed call answered is copied by the first statement after the clock has stopped, the gradient of a few secret
calls when the visit is over: the parent knows what is right for each (see `challenge`).

Caches are *hot* where every timed call finds the same B, refreshed a moment ago. In the *pool* regime B is the next of
many storages, together larger than the last-level cache, and it was refreshed after its last call: the primed arm finds
its code in the caches, and not its input.
"""

from __future__ import annotations

import contextlib
import functools
import random
import resource
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from xentbench.drawing import Stream
from xentbench.spec import Phase, Problem
from xentbench.worker.calls import plain
from xentbench.worker.storage import Cells, Numbers, Storage
from xentbench.worker.twice import twice
from xentbench.worker.visits import CANDIDATE, SLOTS, Keeper, orders, remembered_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from xentbench.inputs import Inputs
    from xentbench.worker.calls import Loss
    from xentbench.worker.clock import Clock

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Meter = Callable[[], tuple[int, int]]

METERED_NS: Final = 100_000
"""Calls from here on have their CPU time and page faults read one by one: the readings cost two microseconds."""
GAP_BYTES: Final = 2**20
"""Largest gap between inputs: smaller ones leave workers as unlike as they were."""
LAID_OUT_BYTES: Final = 16 * 2**20
"""Largest input that is placed anew: between larger ones the heap would grow by holes that nothing fits."""
MOST_STORAGES: Final = 4096
"""Of a pool: as many small inputs are no longer in the first- and second-level caches, and take a second to make."""
# Bound before any implementation is loaded.
_TENSOR, _item, _clone = torch.Tensor, torch.Tensor.item, torch.Tensor.clone


@dataclass(frozen=True, slots=True)
class Burst:
    """Raw times of one burst: rows are rounds in the order they ran, columns are arms in the order they were given.

    Attributes:
        wall_ns: int64 `(rounds, arms)`.
        busy_ns: int64 `(rounds, arms)`, CPU time of the thread during the same calls, on a device the time between its
            events; `(0, arms)` where the calls are too short to be metered.
        faults: int64 `(rounds, arms)`, page faults without disk access during the calls; shaped as `busy_ns`.
        elapsed_ns: wall time of the whole burst.
        cpu_ns: CPU time of the thread over the whole burst.
        losses: float64 `(rounds, numel)`, what the candidate's timed calls answered.
        prime_ns: int64 `(rounds, arms)`, wall time of the untimed call before each: work done there is not saved.
    """

    wall_ns: Ints
    busy_ns: Ints
    faults: Ints
    elapsed_ns: int
    cpu_ns: int
    losses: Floats
    prime_ns: Ints


def pool_size(pool_bytes: int, input_bytes: int) -> int:
    """Return how many inputs of so many bytes go round."""
    return min(MOST_STORAGES, max(1, -(-pool_bytes // max(1, input_bytes))))


class Duel:
    """Arms that answer the same problem in the same phase, timed call by call.

    Args:
        problem: what is asked.
        phase: which stretch is timed.
        arms: bound losses; by convention baseline, candidate, the baseline's twin.
        inputs: values that all storages begin with.
        clock: injected.
        restore: give the logits back before every call (an arm overwrites them by declaration).
        pool_bytes: least size of the pool of timed inputs, bounded by `MOST_STORAGES`; 0: one input, hot.
    """

    def __init__(
        self,
        problem: Problem,
        phase: Phase,
        arms: list[Loss],
        inputs: Inputs,
        clock: Clock,
        *,
        restore: bool = False,
        pool_bytes: int = 0,
    ) -> None:
        self.problem, self.phase, self.arms, self.clock = problem, phase, arms, clock
        self._storage = functools.partial(Storage, problem, inputs, phase, restore=restore)
        self._gaps: list[torch.Tensor] = []
        self.prime = self._storage()
        count = 1 if clock.flush else pool_size(pool_bytes, self.prime.nbytes)
        self.pool = [self._storage() for _ in range(count)]
        if count > 1:  # no two of them alike, so that not even the first turn can be answered from a memo
            numbers = Numbers(problem, Stream(problem.key, phase, "pool"))
            for storage in self.pool:
                storage.refresh(numbers)
        self.metered = False
        # A device's cache is too large for a pool: it is overwritten instead.
        self._flush = clock.flush if pool_bytes else None
        self._turn = self._primed_ns = 0
        self._upstream = inputs.upstream
        # What a call answered is brought to where later calls cannot change it.
        self._copied = _item if inputs.upstream.numel() == 1 else _clone
        self._told: Any = None
        self._gradient: torch.Tensor | None = None
        self.remembered: list[Floats | None] = [None] * SLOTS
        self._visit: Callable[[Loss, Storage, Meter], tuple[int, int, int]] = {
            Phase.FORWARD_NO_GRAD: self._forward,
            Phase.FORWARD: self._forward,
            Phase.BACKWARD: self._backward,
            Phase.FORWARD_BACKWARD: self._both,
        }[phase]

    def warm_up(self, calls: int, budget_s: float) -> None:
        """Call every arm a few times, untimed: first calls cost 3 to 300 times as much as later ones.

        The quickest of them decides whether calls are metered one by one.
        """
        lasted = []
        with self._context():
            for arm in self.arms:
                start = self.clock.now_ns()
                for done in range(calls):
                    lasted.append(self._visit(arm, self.prime, _nothing)[0])
                    if done and self.clock.now_ns() - start > budget_s * 1e9:
                        break
        self.metered = min(lasted, default=0) >= METERED_NS

    def empty_call_ns(self, calls: int = 101) -> float:
        """Return the median time of a call that does nothing, taken as every other call's is: what each carries."""
        answer = torch.zeros_like(self._upstream)

        def empty(_logits: torch.Tensor, _target: torch.Tensor) -> torch.Tensor:
            return answer

        return statistics.median(self._forward(empty, self.prime, _nothing)[0] for _ in range(calls))

    def faults_a_call(self, calls: int = 20) -> list[float]:
        """Return every arm's page faults in a typical call: short calls are not metered while they are timed."""
        with self._context():
            counts = [[self._visit(arm, self.prime, self._meter)[2] for _ in range(calls)] for arm in self.arms]
        return [float(statistics.median(several)) for several in counts]

    def burst(self, seed: int, budget_s: float, least_rounds: int, most_rounds: int) -> Burst:
        """Run rounds until the budget is spent, at least `least_rounds` and at most `most_rounds` of them."""
        places = random.Random(seed)  # noqa: S311 - no secret
        numbers = Numbers(self.problem, Stream(self.problem.key, self.phase, seed, "refresh"))
        meter = self._meter if self.metered else _nothing
        # A pool lies in as many places already, and a large input streams through the caches wherever it lies.
        if len(self.pool) == 1 and self.prime.nbytes <= LAID_OUT_BYTES:
            self._lay_out(places)
        keeper, told, primed = Keeper(seed), list[Any](), list[list[int]]()
        self.remembered = [None] * SLOTS
        read: list[list[tuple[int, int, int]]] = []
        cpu, start = self.clock.cpu_ns(), self.clock.now_ns()
        with self._context():
            for order in orders(seed, len(self.arms)):
                one, before = [(0, 0, 0)] * len(self.arms), [0] * len(self.arms)
                for arm in order:
                    one[arm] = self._one(self.arms[arm], numbers, meter)
                    before[arm] = self._primed_ns
                    if arm == CANDIDATE:
                        told.append(self._told)
                        self._remember(keeper.next(), seed, len(read))
                read.append(one)
                primed.append(before)
                is_over = self.clock.now_ns() - start >= budget_s * 1e9
                if len(read) >= most_rounds or (is_over and len(read) >= least_rounds):
                    break
        elapsed, cpu = self.clock.now_ns() - start, self.clock.cpu_ns() - cpu
        times = np.array(read, dtype=np.int64)
        kept = len(read) if self.metered else 0
        primes = np.array(primed, dtype=np.int64)
        return Burst(times[..., 0], times[:kept, :, 1], times[:kept, :, 2], elapsed, cpu, _table(told), primes)

    def repeat(self) -> tuple[str, bool]:
        """Call the candidate twice, as `twice` says; of a single arm there is nothing to know."""
        if len(self.arms) <= CANDIDATE:
            return "", False
        given = self._storage(), self._storage()
        with self._context():
            return twice(self.arms[CANDIDATE], self.phase, given, self._upstream)

    def _remember(self, slots: list[int], seed: int, call: int) -> None:
        """Copy some rows of the gradient of this call, where its turn has come."""
        if slots and self._gradient is not None:
            kept = self._rows_of(self._gradient, remembered_rows(self.problem, self.phase, seed, call))
            for slot in slots:
                self.remembered[slot] = kept
        self._gradient = None

    def _rows_of(self, gradient: torch.Tensor, rows: Ints) -> Floats:
        problem, cells, classes = self.problem, Cells(gradient.detach()), np.arange(self.problem.num_classes)
        if problem.batch_size is None:
            return cells.decoded(cells.read((classes,)))[None, :]
        first, *rest = (place[:, None] for place in np.unravel_index(rows, problem.row_shape))
        return cells.decoded(cells.read((first, classes[None, :], *rest)))

    def _lay_out(self, order: random.Random) -> None:
        """Let the inputs lie elsewhere, behind gaps of random size: where they lie moves a ratio by 1 to 2 %."""
        del self.prime, self.pool, self._gaps
        gaps = [torch.empty(order.randrange(1, GAP_BYTES), dtype=torch.uint8)]
        self.prime = self._storage()
        gaps.append(torch.empty(order.randrange(1, GAP_BYTES), dtype=torch.uint8))
        self.pool = [self._storage()]
        # The last one is for the temporaries of the calls, which lie behind it.
        self._gaps = [*gaps, torch.empty(order.randrange(1, GAP_BYTES), dtype=torch.uint8)]

    def _one(self, arm: Loss, numbers: Numbers, meter: Meter) -> tuple[int, int, int]:
        """Make one visit. In a pool the input refreshed is the one timed last; alone, it is the one timed next."""
        self._turn = (self._turn + 1) % len(self.pool)
        self.pool[self._turn - 1].refresh(numbers)
        self.prime.restore()
        self._primed_ns = self._visit(arm, self.prime, _nothing)[0]
        if self._flush is not None:
            self._flush()
        return self._visit(arm, self.pool[self._turn], meter)

    def _context(self) -> Any:  # noqa: ANN401 - a context manager of torch or none
        # Entering torch.no_grad costs as much as a small loss: outside the window.
        return torch.no_grad() if self.phase is Phase.FORWARD_NO_GRAD else contextlib.nullcontext()

    def _meter(self) -> tuple[int, int]:
        return self.clock.busy_ns(), _minor_faults()

    def _forward(self, loss: Loss, at: Storage, meter: Meter) -> tuple[int, int, int]:
        logits, target, now_ns = at.logits, at.target, self.clock.now_ns
        busy, faults = meter()
        start = now_ns()
        result = loss(logits, target)
        stop = now_ns()
        self._told = self._copied(plain(result))
        after = meter()
        return stop - start, after[0] - busy, after[1] - faults

    def _backward(self, loss: Loss, at: Storage, meter: Meter) -> tuple[int, int, int]:
        upstream, now_ns = self._upstream, self.clock.now_ns
        result = loss(at.logits, at.target)
        self._told = self._copied(plain(result))
        busy, faults = meter()
        start = now_ns()
        result.backward(upstream)  # type: ignore[no-untyped-call]
        stop = now_ns()
        after = meter()
        self._gradient = at.logits.grad
        at.logits.grad = at.target.grad = None
        return stop - start, after[0] - busy, after[1] - faults

    def _both(self, loss: Loss, at: Storage, meter: Meter) -> tuple[int, int, int]:
        logits, target, upstream, now_ns = at.logits, at.target, self._upstream, self.clock.now_ns
        busy, faults = meter()
        start = now_ns()
        result = loss(logits, target)
        result.backward(upstream)  # type: ignore[no-untyped-call]
        stop = now_ns()
        self._told = self._copied(plain(result))
        after = meter()
        self._gradient = logits.grad
        logits.grad = target.grad = None
        return stop - start, after[0] - busy, after[1] - faults


def _table(told: list[Any]) -> Floats:
    """Return the copied answers as `(calls, numel)`; they may be of several sizes where they are wrong."""
    flat = [one.detach().double().cpu().reshape(-1).numpy() if isinstance(one, _TENSOR) else (one,) for one in told]
    if not flat:
        return np.zeros((0, 1))
    try:
        return np.array(flat, dtype=np.float64).reshape(len(told), -1)
    except ValueError:
        return np.full((len(told), 1), np.nan)


def _nothing() -> tuple[int, int]:
    """Read nothing, where reading would cost more than it tells."""
    return 0, 0


def _minor_faults() -> int:
    # Of this thread where the system can tell (Linux), else of the process.
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_minflt
