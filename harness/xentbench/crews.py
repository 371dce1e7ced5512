"""The workers of one implementation: the one that is examined, and the K that are timed together."""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from xentbench.examining import Examined, examine
from xentbench.inputs import timed_seed
from xentbench.spec import Description, Failure, Phase, Status, Verdict
from xentbench.worker import interpreting
from xentbench.workers import Worker, WorkerError, load, template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from xentbench.inputs import Recorded
    from xentbench.posing import Question


MOST_LOSSES: Final = 3
KEPT: Final = 1 / 3
"""Share of the time left that is kept for set-ups while only the first one's cost is known."""
OVERRUN: Final = 2.0
"""The most by which a cell's share is shortened because the cells before it took longer than theirs."""
QUICK_LOAD_S: Final = 0.2
"""A fork that loads its implementation in less is done anew for every problem."""


@dataclass(slots=True)
class Examinee:
    """The one plain worker that answers for an implementation; started when first asked, again when lost."""

    entry: Description
    environment: Mapping[str, str]
    flush_denormal: bool = False
    worker: Worker | None = None
    losses: int = 0
    given_up: Verdict | None = None

    def examine(self, question: Question, phases: Sequence[Phase], *, measure_memory: bool) -> Examined:
        """Examine one problem; a worker that cannot be started or was lost ends the problem, not the run.

        One that hung, or was lost three times, is not asked again: what is left ends as the last problem did.
        """
        if self.given_up is not None:
            return Examined(self.given_up)
        settings = dict(self.environment)
        if self.entry.interpreted:  # what it costs says nothing of the kernel
            settings, phases, measure_memory = settings | interpreting.settings(), [], False
        try:
            if self.worker is None:
                self.worker = Worker(settings, template=template(settings, compiles=self.entry.compiles))
                load(
                    self.worker,
                    self.entry,
                    threads=1,
                    flush_denormal=self.flush_denormal,
                    weighed=measure_memory,
                )
        except WorkerError as error:
            self.worker = None if error.lost else self.worker
            return Examined(Verdict(error.status, reason=error.reason))
        seen = examine(self.worker, self.entry, question, phases, measure_memory=measure_memory)
        if seen.lost:
            self._lost(seen.verdict)
        return seen

    def ask_again(self, question: Question) -> Verdict | None:
        """Return the verdict on its answer to one more question, or None where the worker is not there any more."""
        if self.worker is None or not self.worker.alive:
            return None
        return self.examine(question, [], measure_memory=False).verdict

    def _lost(self, verdict: Verdict) -> None:
        self.worker = None
        self.losses += 1
        if verdict.status is Status.TIMED_OUT or self.losses >= MOST_LOSSES:
            reason = f"not asked again after: {verdict.reason}"
            self.given_up = Verdict(verdict.status, failures=(Failure("exception", reason),), reason=reason)

    @property
    def forged(self) -> str:
        """What its closed worker wrote after its last answer, in words; '' where that is nothing."""
        ending = self.worker.ending if self.worker else None
        return ending[1] if ending and ending[0] is Status.FORGED else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.worker is not None:
            self.worker.__exit__(kind, error, trace)


@dataclass(slots=True)
class Crew:
    """The K workers that time one implementation.

    Attributes:
        entry: the implementation.
        size: K.
        environment: of the workers; each has a hash seed of its own besides.
        threads: of torch in each.
        core: that they are pinned to, or None.
        baseline: an implementation in the place of `F.cross_entropy`, where two are compared directly.
        flush_denormal: whether numbers below the normal range count as zero in each.
    """

    entry: Description
    size: int
    environment: Mapping[str, str]
    threads: int
    core: int | None
    baseline: Description | None = None
    flush_denormal: bool = False
    workers: list[Worker] = field(default_factory=list)
    _unloaded: set[int] = field(default_factory=set)
    _forked: bool = False
    _load_s: float = 0.0
    _forged: tuple[Status, str] | None = None

    def start(self) -> None:
        """Start what is missing or was lost; the first crew waits for the templates, which start together."""
        alive = [worker for worker in self.workers if worker.alive]
        settings = [{**self.environment, "PYTHONHASHSEED": str(number)} for number in range(len(alive), self.size)]
        compiles = self.entry.compiles or (self.baseline is not None and self.baseline.compiles)
        origins = [template(each, compiles=compiles) for each in settings]
        fresh = [Worker(each, self.core, origin) for each, origin in zip(settings, origins, strict=True)]
        self._forked = all(origin is not None for origin in origins) if origins else self._forked
        self.workers = [*alive, *fresh]
        self._unloaded |= {id(worker) for worker in fresh}

    def set_up(self, key: str, seed: int, phases: Sequence[Phase], recorded: Recorded | None) -> WorkerError | None:
        """Set a problem up in every worker; return the first error, which is the crew's, or None.

        Args:
            key: of the problem.
            seed: of the run, which no worker is told.
            phases: that will be timed.
            recorded: the workload, where the problem names one.
        """
        if self._forged:
            return WorkerError(*self._forged)
        record = {"problem": key, "seed": timed_seed(seed), "phases": list(phases)}
        named = {name: getattr(recorded, name, None) for name in ("logits", "target", "weight")}
        given = {name: tensor for name, tensor in named.items() if tensor is not None}
        try:
            self.load()
            for worker in self.workers:
                worker.ask("set-up", record, given)
        except WorkerError as error:
            return error
        return None

    def load(self) -> None:
        """Have every new worker load the implementation; raises WorkerError where one cannot."""
        for worker in self.workers:
            if id(worker) in self._unloaded:
                start_s = time.monotonic()
                load(worker, self.entry, self.threads, self.baseline, flush_denormal=self.flush_denormal)
                self._load_s = time.monotonic() - start_s
                self._unloaded.discard(id(worker))

    def free(self) -> None:
        """Let every living worker drop the problem's tensors, or end it where a fresh one costs next to nothing.

        A heap of some age has holes. The temporaries of a call wander through them, out of the caches, and ratios of
        one worker then differ from another's by as much as 15 %.
        """
        if self._forked and self._load_s < QUICK_LOAD_S:
            for worker in self.workers:
                worker.close()
                ending = worker.ending or (Status.PASSED, "")
                self._forged = ending if ending[0] is Status.FORGED else self._forged
            return
        for worker in self.workers:
            with contextlib.suppress(WorkerError):
                if worker.alive:
                    worker.ask("free")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.__exit__(kind, error, trace)


@dataclass(slots=True)
class Purse:
    """The measuring time that is left, dealt out over the worker-cells that are left.

    Attributes:
        deadline_s: on the parent's clock, when measuring has to end.
        weight_left: of all worker-cells still to be measured.
        problems_left: whose set-up is still to be paid.
    """

    deadline_s: float
    weight_left: float
    problems_left: int
    _overheads_s: list[float] = field(default_factory=list)
    _dealt_s: float = 0.0
    _paid_s: float = 0.0
    _paid_weight: float = 0.0

    def paid_overhead(self, seconds: float) -> None:
        """Note what one problem's set-up cost; the ones to come are taken to cost the median of those paid."""
        self._overheads_s.append(seconds)
        self.problems_left -= 1

    def spare(self, weight: float) -> None:
        """Note that worker-cells of this weight will not be measured: they are not ready."""
        self.weight_left -= weight

    def paid(self, weight: float, seconds: float) -> None:
        """Note what worker-cells of this weight together took: less than their share where they were narrow early."""
        self._paid_weight += weight
        self._paid_s += seconds

    def left_s(self, now_s: float) -> float:
        """Return how long measuring will go on: at the pace so far, at most until the deadline."""
        pace_s = self._paid_s / self._paid_weight if self._paid_weight else 0.0
        left_s = self.deadline_s - now_s
        return max(0.0, min(left_s, pace_s * self.weight_left + self._kept_s(left_s)))

    def _kept_s(self, left_s: float) -> float:
        """Return what is kept for the set-ups to come.

        The first one also pays for what is paid once (43 s where 3 s followed, with two entrants that compile): while
        it is the only one known, no more than `KEPT` of the time that is left.
        """
        if not self._overheads_s:
            return 0.0
        kept_s = statistics.median_low(self._overheads_s) * self.problems_left
        return min(kept_s, KEPT * left_s) if len(self._overheads_s) == 1 else kept_s

    def share_s(self, now_s: float, weight: float, workers: int, limit_s: float) -> float:
        """Return the seconds that each worker may spend on the next cell of this weight, at most `limit_s`.

        What it answers is checked besides, and a burst is finished that has begun: where cells took longer than what
        they were given, the next ones are given less by that factor, or the last would find nothing left. At most by
        `OVERRUN`: what takes no more than one burst takes longer than any share.
        """
        left_s = self.deadline_s - now_s
        share_s = max(0.0, left_s - self._kept_s(left_s)) * weight / max(weight * workers, self.weight_left)
        self.weight_left -= weight * workers
        overrun = self._paid_s / self._dealt_s if self._dealt_s else 1.0
        share_s = min(limit_s, share_s / min(max(1.0, overrun), OVERRUN))
        self._dealt_s += share_s * workers
        return share_s
