"""The duel seen from the parent: bursts of all workers in random order -> samples -> ratio, interval and verdict.

Interleaving short bursts lets drift of the machine fall on all workers alike. A worker ends when its interval is narrow
enough at one of five looks, or its budget is spent; never because a difference was seen.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xentbench import statistics
from xentbench.spec import Comparison, Phase, Status
from xentbench.workers import Worker, WorkerError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

BURST_S: Final = 0.025
BURST_LEAST_ROUNDS: Final = 4
BURST_MOST_ROUNDS: Final = 20_000
LOW_CPU_SHARE: Final = 0.2
"""Below this share of CPU time in wall time the machine was not ours often enough to say anything."""
CANDIDATE, TWIN, ARMS = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Budget:
    """What one worker may spend on one cell.

    Attributes:
        seconds: of bursts, on the parent's clock.
        half_width: at which a worker's interval is narrow enough to stop (0.01 is 1 %).
        warm_calls: untimed calls of each arm before the first burst.
        warm_s: at which warming ends even so.
    """

    seconds: float
    half_width: float
    warm_calls: int = 10
    warm_s: float = 0.005


@dataclass(slots=True)
class Lane:
    """One worker's part in one cell: its bursts so far."""

    name: str
    worker: Worker
    bursts: list[npt.NDArray[np.int64]] = field(default_factory=list)
    cpu: list[npt.NDArray[np.int64]] = field(default_factory=list)
    minor_faults: int = 0
    spent_s: float = 0.0
    looks: int = 0
    done: bool = False
    error: WorkerError | None = None

    def logs(self, arm: int) -> npt.NDArray[np.float64]:
        """Return the kept rounds' log ratios of an arm over the baseline."""
        kept = [statistics.log_ratios(statistics.keep(burst), arm) for burst in self.bursts]
        return np.concatenate(kept) if kept else np.zeros(0)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a cell's duel showed; the fields carry the names of `results.CELL_COLUMNS`."""

    status: Status
    reason: str = ""
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    verdict: Comparison | None = None
    latency_s: float | None = None
    latency_p05_s: float | None = None
    latency_p95_s: float | None = None
    baseline_latency_s: float | None = None
    canary_low: float | None = None
    canary_high: float | None = None
    rounds: int = 0
    workers: int = 0
    cpu_share: float | None = None
    minor_faults: float | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields as the journal takes them: an infinite end of an interval is written as null."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in dataclasses.asdict(self).items()
        }


def duel(
    lanes: Sequence[Lane], phase: Phase, budget: Budget, order: random.Random, now_s: Callable[[], float]
) -> dict[str, Measured]:
    """Measure one group: every implementation's cell of one problem and phase, their bursts interleaved at random.

    Args:
        lanes: one for each worker of each implementation, already set up for the problem.
        phase: what is timed.
        budget: of each lane.
        order: source of the order and of the bursts' seeds.
        now_s: the parent's clock.
    """
    for lane in lanes:
        _ask(lane, "begin", {"phase": phase, "warm_calls": budget.warm_calls, "warm_s": budget.warm_s})
    while active := [lane for lane in lanes if not lane.done]:
        for lane in order.sample(active, len(active)):
            start = now_s()
            _burst(lane, order.getrandbits(63))
            lane.spent_s += now_s() - start
            _look(lane, budget)
            if lane.error is not None:  # the cell has ended: its other workers need not go on
                for other in lanes:
                    other.done |= other.name == lane.name
    names = dict.fromkeys(lane.name for lane in lanes)
    return {name: summarise([lane for lane in lanes if lane.name == name]) for name in names}


def _burst(lane: Lane, seed: int) -> None:
    record = {
        "seed": seed,
        "budget_s": BURST_S,
        "least_rounds": BURST_LEAST_ROUNDS,
        "most_rounds": BURST_MOST_ROUNDS,
    }
    answer = _ask(lane, "burst", record)
    if answer is None:
        return
    reply, times = answer
    try:
        wall, cpu = (times[name].numpy().astype(np.int64).reshape(-1, ARMS) for name in ("wall_ns", "cpu_ns"))
        lane.minor_faults += int(reply["minor_faults"])
    except (KeyError, TypeError, ValueError) as error:
        lane.error = WorkerError(Status.FORGED, f"its times are not understood: {type(error).__name__} {error}")
        lane.done = True
        return
    lane.bursts.append(wall)
    lane.cpu.append(cpu)


def _ask(lane: Lane, verb: str, record: dict[str, Any]) -> Any:  # noqa: ANN401 - a reply, or None after an error
    try:
        return lane.worker.ask(verb, record)
    except WorkerError as error:
        lane.error, lane.done = error, True
        return None


def _look(lane: Lane, budget: Budget) -> None:
    """End the lane when its budget is spent, or when its interval is narrow enough at one of the looks."""
    spent = lane.spent_s / budget.seconds if budget.seconds > 0 else 1.0
    looks = statistics.next_look(spent, lane.looks)
    if lane.done or looks is None:
        return
    lane.looks = looks
    narrow = statistics.median_interval(lane.logs(CANDIDATE)).half_width <= budget.half_width
    lane.done = spent >= 1.0 or narrow


def summarise(lanes: Sequence[Lane]) -> Measured:
    """Return what all workers of one implementation showed together; an error of any of them is the cell's."""
    error = next((lane.error for lane in lanes if lane.error), None)
    if error is not None:
        return Measured(error.status, f"while it was timed: {error.reason}", workers=len(lanes))
    wall = np.concatenate([statistics.keep(burst) for lane in lanes for burst in lane.bursts])
    if not len(wall):
        reason = f"rounds: 0 kept, {statistics.LEAST_ROUNDS} needed"
        return Measured(Status.PASSED, reason, verdict=Comparison.INCONCLUSIVE, workers=len(lanes))
    cpu = np.concatenate([statistics.keep(burst) for lane in lanes for burst in lane.cpu])
    ratio = statistics.combine([lane.logs(CANDIDATE) for lane in lanes])
    canary = statistics.combine([lane.logs(TWIN) for lane in lanes])
    cpu_share = float(cpu.sum() / wall.sum()) if wall.sum() else math.nan
    rounds = min(len(lane.logs(CANDIDATE)) for lane in lanes)
    verdict, reason = decide(ratio, canary, rounds, cpu_share, len(lanes))
    low, middle, high = np.percentile(wall[:, CANDIDATE], (5, 50, 95)) * 1e-9
    return Measured(
        status=Status.PASSED,
        reason=reason,
        ratio=ratio.ratio,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        verdict=verdict,
        latency_s=float(middle),
        latency_p05_s=float(low),
        latency_p95_s=float(high),
        baseline_latency_s=float(np.median(wall[:, 0])) * 1e-9,
        canary_low=canary.low,
        canary_high=canary.high,
        rounds=len(wall),
        workers=len(lanes),
        cpu_share=cpu_share,
        minor_faults=sum(lane.minor_faults for lane in lanes)
        / max(1, sum(map(len, (b for n in lanes for b in n.bursts)))),
    )


def decide(
    ratio: statistics.Interval, canary: statistics.Interval, rounds: int, cpu_share: float, workers: int
) -> tuple[Comparison, str]:
    """Return what the cell shows and, where that is nothing, the reason.

    Args:
        ratio: of the candidate.
        canary: of the baseline's twin; must hold 1 within the margin, or the clock cannot be believed.
        rounds: kept, in the worker that has fewest.
        cpu_share: CPU time over wall time of the timed calls.
        workers: how many processes measured.
    """
    if rounds < statistics.LEAST_ROUNDS:
        return Comparison.INCONCLUSIVE, f"rounds: {rounds} kept, {statistics.LEAST_ROUNDS} needed"
    if statistics.compare(canary, workers) in (Comparison.FASTER, Comparison.SLOWER):
        return Comparison.INCONCLUSIVE, f"canary: identical code measured {canary.ratio:.3f}"
    if cpu_share < LOW_CPU_SHARE:
        return Comparison.INCONCLUSIVE, f"CPU share: {cpu_share:.0%} of the time was ours"
    verdict = statistics.compare(ratio, workers)
    if verdict is Comparison.INCONCLUSIVE:
        lone = " (one worker never shows 'same')" if workers == 1 and ratio.half_width < statistics.SAME_MARGIN else ""
        return verdict, f"half-width: ±{ratio.half_width:.1%}{lone}"
    return verdict, ""
