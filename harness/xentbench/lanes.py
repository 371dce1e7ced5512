"""One worker's part in one cell: the bursts that it has answered so far, and what they say by either clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from xentbench import statistics
from xentbench.spec import Status
from xentbench.worker.visits import ARMS, BASELINE
from xentbench.workers import Worker, WorkerError

if TYPE_CHECKING:
    from xentbench.replies import Reply
    from xentbench.statistics import Floats
    from xentbench.witness import Witness
    from xentbench.worker.duel import Burst, Ints
    from xentbench.worker.wire import Record

    Clock = Literal["wall", "busy"]


HASTE: Final = 1.15
"""A process that the system saw work so many times as long as its own clock did has a clock that runs slow."""
SLACK_S: Final = 0.003
"""For each burst: what a worker does before and after its clock is read, to take a request and send a reply."""


@dataclass(slots=True)
class Lane:
    """One worker's part in one cell.

    Attributes:
        name: of the implementation.
        worker: that is asked.
        witness: holds what was answered while it was timed against what is right; None: nobody does.
        bursts: answered so far.
        empty_call_ns: what a call that does nothing takes there.
        faults: page faults a call of every arm, where calls are too short to be metered one by one.
        spent_s: on its bursts, by the parent's clock.
        told_s: on them, by its own clock.
        delegates: whether the reference operator was seen to do the work.
        system_s: CPU time that the system says its process took for them.
        looks: taken at its interval.
        repeated: whether two of its calls were made side by side.
        planted: whether its watch was tried.
        is_enough: whether it has been timed for long enough.
        done: whether it is asked no more.
        error: that ended it.
    """

    name: str
    worker: Worker
    witness: Witness | None = None
    bursts: list[Burst] = field(default_factory=list)
    empty_call_ns: float = 0.0
    faults: tuple[float, ...] = (0.0,) * ARMS
    spent_s: float = 0.0
    told_s: float = 0.0
    delegates: bool = False
    system_s: float = 0.0
    looks: int = 0
    repeated: bool = False
    planted: bool = False
    is_enough: bool = False
    done: bool = False
    error: WorkerError | None = None

    def began(self, reply: Record) -> None:
        """Note what a worker told when its duel was prepared."""
        try:
            self.empty_call_ns = float(reply["empty_call_ns"])
            faults = tuple(map(float, reply["faults"])) or self.faults
            if len(faults) != ARMS:
                msg = f"page faults of {len(faults)} arms"
                raise ValueError(msg)  # noqa: TRY301 - one kind of damage among others
            self.faults = faults
        except (KeyError, TypeError, ValueError) as error:
            self.end(WorkerError(Status.FORGED, f"its beginning is not understood: {type(error).__name__} {error}"))

    def take(self, reply: Reply) -> None:
        """Add one burst."""
        self.delegates |= reply.delegates
        self.told_s += reply.whole_ns * 1e-9
        self.bursts.append(reply.burst)

    def end(self, error: WorkerError) -> None:
        """Ask no more of this worker: it has failed."""
        self.error, self.done = error, True

    def settle(self) -> None:
        """Judge the bursts as a whole, once they are over: the worker's clock by others, and its answers together."""
        if self.error is not None:
            return
        told_s, slack_s = self.told_s, SLACK_S * len(self.bursts)
        if told_s > self.spent_s + slack_s:
            msg = f"its clock told {told_s:.3f} s of bursts that were over in {self.spent_s:.3f} s"
            self.end(WorkerError(Status.TAMPERED, msg))
        elif self.system_s > HASTE * told_s + slack_s:
            msg = f"its clock told {told_s:.3f} s of bursts for which the system counted {self.system_s:.3f} s of work"
            self.end(WorkerError(Status.TAMPERED, msg))
        elif self.witness is not None:
            try:
                self.witness.follow()
            except WorkerError as error:
                self.end(error)

    @property
    def metered(self) -> bool:
        """Whether the time that the processor or device was busy is known call by call."""
        return bool(self.bursts) and all(len(burst.busy_ns) for burst in self.bursts)

    def kept(self, clock: Clock = "wall") -> Ints:
        """Return the times of the kept rounds `(rounds, arms)`."""
        tables = [statistics.keep(burst.wall_ns if clock == "wall" else burst.busy_ns) for burst in self.bursts]
        return np.concatenate(tables) if tables else np.zeros((0, ARMS), dtype=np.int64)

    def primed(self) -> Floats:
        """Return for every arm how many times as long as its timed call the untimed one before it took; the median."""
        ratios = [
            np.maximum(1, statistics.keep(burst.prime_ns)) / np.maximum(1, statistics.keep(burst.wall_ns))
            for burst in self.bursts
        ]
        return np.median(np.concatenate(ratios), axis=0) if ratios else np.ones(ARMS)

    def logs(self, arm: int, clock: Clock = "wall") -> list[Floats]:
        """Return for every burst the kept rounds' log ratios of an arm over the baseline."""
        tables = (burst.wall_ns if clock == "wall" else burst.busy_ns for burst in self.bursts)
        return [statistics.log_ratios(statistics.keep(table), arm, BASELINE) for table in tables]
