"""What the lanes of one cell showed together: ratio, interval, conditions and verdict, or why there is none."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xentbench import statistics
from xentbench.spec import Comparison, Status
from xentbench.worker.visits import BASELINE, CANDIDATE, TWIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xentbench.lanes import Clock, Lane
    from xentbench.statistics import Floats, Interval

LOW_CPU_SHARE: Final = 0.2
"""Below this share of CPU time in wall time the machine was not ours often enough to say anything."""
CPU_DECIDES_S: Final = 1e-3
"""From here on CPU time has the narrower interval (4.4 % against 6.5 % at 512 x 32000): preemption is no part of it."""
FAULT_S: Final = 3e-6
"""About what a page fault costs: 2.6 to 3.6 microseconds where it was measured."""
FAULTS_SHARE: Final = 0.05
"""From this share of the time on, page faults make a cell that should have none inconclusive."""
SLOW_BASELINE: Final = 1.5
"""Times as slow as beside the others: heaps of unlike age make 1.15."""
PRIMED: Final = 2.0
"""Who works so many times as long in untimed calls as the baseline does, against timed ones, works ahead of time."""
SPREAD: Final = 3.0
"""An interval across workers so many times as wide as the one within tells of the processes, not of the rounds."""


@dataclass(frozen=True, slots=True)
class Regime:
    """Under which conditions a group is timed.

    Attributes:
        pool_bytes: of timed inputs; 0: the input is hot in the caches.
        one_thread: on the CPU, so that CPU time is the whole cost of a call.
        kept_heap: page faults are not expected.
        rule: how sure intervals are, and from where on a difference counts.
    """

    pool_bytes: int = 0
    one_thread: bool = True
    kept_heap: bool = True
    rule: statistics.Rule = statistics.USUAL


@dataclass(frozen=True, slots=True)
class Measured:
    """What a cell's duel showed; the fields carry the names of `columns.CELL_COLUMNS`."""

    status: Status
    reason: str = ""
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    clock: str | None = None
    other_ratio: float | None = None
    other_low: float | None = None
    other_high: float | None = None
    worker_log_ratios: tuple[float, ...] | None = None
    worker_quickest_log_ratios: tuple[float, ...] | None = None
    verdict: Comparison | None = None
    latency_s: float | None = None
    latency_p05_s: float | None = None
    latency_p95_s: float | None = None
    baseline_latency_s: float | None = None
    empty_call_s: float | None = None
    canary_low: float | None = None
    canary_high: float | None = None
    rounds: int = 0
    workers: int = 0
    cpu_share: float | None = None
    minor_faults: float | None = None
    baseline_minor_faults: float | None = None
    labels: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """Return the fields as the journal takes them: an infinite end of an interval is written as null."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in dataclasses.asdict(self).items()
            if name != "labels"
        }


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict is decided on.

    Attributes:
        logs: for every worker the log ratios of each burst, by the clock that decides.
        ratio: of the candidate, by the same clock.
        within: half-width that a worker has by its own rounds, the median over workers.
        other: by the other clock, or None.
        canary: of the baseline's twin; must hold 1 within the margin, or the clock cannot be believed.
        rounds: kept, in the worker that has fewest.
        cpu_share: CPU time over wall time of the bursts.
        faults: page faults a call.
        faults_share: what they cost, as a share of the time, where none are expected; else 0.
        workers: how many processes measured.
        primed: how many times as long as its timed call the candidate's untimed one takes, over the same of the
            baseline.
        rule: by which it is decided.
    """

    logs: Sequence[Sequence[Floats]]
    ratio: Interval
    within: float
    other: Interval | None
    canary: Interval
    rounds: int
    cpu_share: float
    faults: float
    faults_share: float
    workers: int
    primed: float = 1.0
    rule: statistics.Rule = statistics.USUAL


def summarise(lanes: Sequence[Lane], regime: Regime) -> Measured:
    """Return what all workers of one implementation showed together; an error of any of them is the cell's."""
    error = next((lane.error for lane in lanes if lane.error), None)
    if error is not None:
        return Measured(error.status, f"while it was timed: {error.reason}", workers=len(lanes))
    wall = np.concatenate([lane.kept() for lane in lanes])
    if not len(wall):
        reason = f"rounds: 0 kept, {statistics.LEAST_ROUNDS} needed"
        return Measured(Status.PASSED, reason, verdict=Comparison.INCONCLUSIVE, workers=len(lanes))
    evidence = _evidence(lanes, regime)
    verdict, reason = decide(evidence)
    delegates = any(lane.delegates for lane in lanes)
    labels = (*(("primed",) if evidence.primed > PRIMED else ()), *(("delegate",) if delegates else ()))
    faults = [_faults(lanes, arm) for arm in (CANDIDATE, BASELINE)]
    low, middle, high = np.percentile(wall[:, CANDIDATE], (5, 50, 95)) * 1e-9
    other = evidence.other or statistics.UNKNOWN
    clock = deciding(lanes, regime)
    kept = [times for lane in lanes if len(times := lane.kept(clock))]
    return Measured(
        status=Status.PASSED,
        reason=reason,
        ratio=evidence.ratio.ratio,
        ratio_low=evidence.ratio.low,
        ratio_high=evidence.ratio.high,
        clock="wall" if clock == "wall" else "cpu",
        other_ratio=other.ratio,
        other_low=other.low,
        other_high=other.high,
        worker_log_ratios=tuple(map(statistics.worker_median, statistics.answered(evidence.logs))),
        worker_quickest_log_ratios=tuple(statistics.quickest_log_ratio(times, CANDIDATE, BASELINE) for times in kept),
        verdict=verdict,
        latency_s=float(middle),
        latency_p05_s=float(low),
        latency_p95_s=float(high),
        baseline_latency_s=float(np.median(wall[:, BASELINE])) * 1e-9,
        empty_call_s=float(np.median([lane.empty_call_ns for lane in lanes])) * 1e-9,
        canary_low=evidence.canary.low,
        canary_high=evidence.canary.high,
        rounds=len(wall),
        workers=len(lanes),
        cpu_share=evidence.cpu_share,
        minor_faults=faults[0],
        baseline_minor_faults=faults[1],
        labels=labels,
    )


def beside_others(measured: Mapping[str, Measured]) -> dict[str, Measured]:
    """Return the cells of a group; no verdict has one beside whom the baseline was far slower than beside the others.

    Bursts of all are interleaved, so the machine's moods fall on all alike: it is something in the process.
    """
    times = {name: cell.baseline_latency_s for name, cell in measured.items() if cell.baseline_latency_s}
    found = dict(measured)
    for name, own_s in times.items():
        others = [other_s for other, other_s in times.items() if other != name]
        if others and own_s > SLOW_BASELINE * float(np.median(others)):
            by = own_s / float(np.median(others))
            reason = f"baseline: {by:.1f} times as slow as beside the others"
            labels = (*measured[name].labels, "slow-baseline")
            verdict = Comparison.INCONCLUSIVE
            found[name] = dataclasses.replace(measured[name], verdict=verdict, reason=reason, labels=labels)
    return found


def deciding(lanes: Sequence[Lane], regime: Regime) -> Clock:
    """Return by which clock a cell is decided: CPU time for calls of a millisecond and more, on one thread."""
    wall_ns = np.concatenate([lane.kept() for lane in lanes])
    if not len(wall_ns) or not regime.one_thread or not all(lane.metered for lane in lanes):
        return "wall"
    least_ns = np.median(wall_ns, axis=0)[[BASELINE, CANDIDATE]].min()
    return "busy" if least_ns * 1e-9 >= CPU_DECIDES_S else "wall"


def _evidence(lanes: Sequence[Lane], regime: Regime) -> Evidence:
    clock, rule = deciding(lanes, regime), regime.rule
    another: Clock = "busy" if clock == "wall" else "wall"
    metered = all(lane.metered for lane in lanes)
    logs = [lane.logs(CANDIDATE, clock) for lane in lanes]
    bursts = [burst for lane in lanes for burst in lane.bursts]
    elapsed_ns = sum(burst.elapsed_ns for burst in bursts)
    shares = [_faults(lanes, arm) * FAULT_S / _latency_s(lanes, arm) for arm in (BASELINE, CANDIDATE)]
    worst = int(np.argmax(shares))
    return Evidence(
        logs=logs,
        ratio=statistics.combine(logs, rule),
        within=float(np.median([statistics.median_interval(np.concatenate(bursts)).half_width for bursts in logs])),
        other=statistics.combine([lane.logs(CANDIDATE, another) for lane in lanes], rule) if metered else None,
        canary=statistics.combine([lane.logs(TWIN, clock) for lane in lanes], rule),
        rounds=min(sum(map(len, bursts)) for bursts in logs),
        cpu_share=sum(burst.cpu_ns for burst in bursts) / elapsed_ns if elapsed_ns else math.nan,
        faults=_faults(lanes, (BASELINE, CANDIDATE)[worst]),
        # Of calls too short to be metered only some others were counted: no ground to refuse a verdict.
        faults_share=shares[worst] if regime.kept_heap and metered else 0.0,
        workers=len(lanes),
        primed=float(np.median([primed[CANDIDATE] / primed[BASELINE] for primed in (lane.primed() for lane in lanes)])),
        rule=rule,
    )


def _latency_s(lanes: Sequence[Lane], arm: int) -> float:
    """Return an arm's median time; a clock that stands still gives infinity, by which anything may be divided."""
    return float(np.median(np.concatenate([lane.kept() for lane in lanes])[:, arm])) * 1e-9 or math.inf


def _faults(lanes: Sequence[Lane], arm: int) -> float:
    """Return an arm's page faults in a typical call: a timed one where they were metered, else one before them."""
    if not all(lane.metered for lane in lanes):
        return float(np.mean([lane.faults[arm] for lane in lanes]))
    counts = [statistics.keep(burst.faults) for lane in lanes for burst in lane.bursts]
    return float(np.median(np.concatenate(counts)[:, arm]))


def decide(seen: Evidence) -> tuple[Comparison, str]:
    """Return what the cell shows and, where that is nothing, the reason."""
    reason = _disturbance(seen)
    if reason:
        return Comparison.INCONCLUSIVE, reason
    verdict = statistics.compare(seen.ratio, seen.workers, seen.rule)
    if verdict is not Comparison.INCONCLUSIVE:
        return verdict, ""
    width = seen.ratio.half_width
    if width > SPREAD * seen.within:
        return verdict, f"worker spread: ±{width:.1%} across {seen.workers} workers, ±{seen.within:.1%} within them"
    lone = " (one worker never shows 'same')" if seen.workers == 1 and width < seen.rule.same_margin else ""
    return verdict, f"half-width: ±{width:.1%}{lone}"


def _disturbance(seen: Evidence) -> str:
    """Return what forbids any verdict, or nothing."""
    return next(_disturbances(seen), "")


def _disturbances(seen: Evidence) -> Iterator[str]:
    if seen.rounds < statistics.LEAST_ROUNDS:
        yield f"rounds: {seen.rounds} kept, {statistics.LEAST_ROUNDS} needed"
    if statistics.compare(seen.canary, seen.workers, seen.rule) in (Comparison.FASTER, Comparison.SLOWER):
        yield f"canary: identical code measured {seen.canary.ratio:.3f}"
    if seen.cpu_share < LOW_CPU_SHARE:
        yield f"CPU share: {seen.cpu_share:.0%} of the time was ours"
    if seen.faults_share > FAULTS_SHARE:
        yield f"page faults: {seen.faults:.0f} a call are {seen.faults_share:.0%} of its time, though the heap is kept"
    if seen.primed > PRIMED:
        yield f"untimed calls: they take {seen.primed:.1f} times as long, against timed ones, as the baseline's"
    if seen.other is not None and _disagree(seen.ratio, seen.other, seen.rule.margin):
        yield f"wall and CPU time disagree: {seen.ratio.ratio:.3f} by the one that decides, {seen.other.ratio:.3f}"


def _disagree(one: Interval, other: Interval, margin: float) -> bool:
    """Whether two intervals of one ratio lie apart by more than the margin."""
    apart = abs(math.log(one.ratio) - math.log(other.ratio))
    return apart > one.half_width + other.half_width + margin
