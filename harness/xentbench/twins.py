"""The clock judged on the user's own machine: how often are twins called different, how small a difference is seen?

Twins are `F.cross_entropy` against itself. What differs by a known share is an arm of `worker.spinning`: the same call,
and then a busy wait of two, five or ten per cent of that very call. One worker each, as a quick run has.
"""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import stats

from xentbench import environment, statistics, timing
from xentbench.crews import Crew
from xentbench.lanes import Lane
from xentbench.registry import object_source
from xentbench.spec import Comparison, Description, Phase, Problem
from xentbench.statistics import Interval
from xentbench.timing import Budget
from xentbench.workers import WARM_HEAP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xentbench.measured import Measured
    from xentbench.watching import Watch

PROBLEMS: Final = {Problem(batch_size=8, num_classes=10): 0.25, Problem(batch_size=128, num_classes=1000): 0.4}
"""What is timed -> the most seconds that one duel may take."""
DUELS: Final = {"twins": 100, "plus_2": 25, "plus_5": 25, "plus_10": 25}
"""At each size. No false alarm in 100 bounds their rate below 3 % there, and below 1.5 % over both sizes."""
HALF_WIDTH: Final = 0.005
"""At which a duel ends: +2 % can be told from the margin of 1 %."""
FALSE_ALARMS: Final = 0.01
"""Bar of the rate at which twins are called different."""


@dataclass(frozen=True, slots=True)
class Trial:
    """All duels of one pair at one size.

    Attributes:
        problem: label of what was timed.
        pair: `twins`, or the name of a slowed arm.
        different: duels that called the two different.
        backwards: those of them that called the slowed arm faster.
        same: duels whose interval lies inside the margin of `same`.
        ratios: estimates, one a duel.
        half_widths: of their intervals.
        reasons: of every duel that told nothing.
    """

    problem: str
    pair: str
    different: int
    backwards: int
    same: int
    ratios: tuple[float, ...]
    half_widths: tuple[float, ...]
    reasons: tuple[str, ...]

    @property
    def duels(self) -> int:
        """How many there were."""
        return len(self.ratios)

    @property
    def inconclusive(self) -> int:
        """Duels that told nothing."""
        return self.duels - self.different - self.same

    @property
    def passed(self) -> bool:
        """Whether the clock kept its promise: hardly any false alarm; what is slower is never `faster`, nor `same`.

        Two per cent lie on the margin of `same`, and may be told so.
        """
        if self.pair != "twins":
            return not self.backwards and (not self.same or self.pair == "plus_2")
        return bool(
            stats.binomtest(self.different, self.duels, FALSE_ALARMS, alternative="greater").pvalue > FALSE_ALARMS
        )

    def told(self) -> tuple[str, str]:
        """Return what was expected and what was seen, in words."""
        width = f"median half-width ±{np.median(self.half_widths):.2%}"
        if self.pair == "twins":
            bound = upper_bound(self.different, self.duels)
            seen = f"{self.different} of {self.duels} called different (rate below {bound:.1%}), "
            return "at most 1 % called different", f"{seen}{self.inconclusive} inconclusive; {width}"
        seen = (
            f"{self.different - self.backwards} of {self.duels} told slower, median {np.median(self.ratios) - 1:+.1%}, "
        )
        return "slower, or inconclusive", f"{seen}{self.inconclusive} inconclusive; {width}"

    def record(self) -> dict[str, Any]:
        """Return the trial as JSON can hold it."""
        return {
            "problem": self.problem,
            "pair": self.pair,
            "duels": self.duels,
            "different": self.different,
            "different_upper_bound": upper_bound(self.different, self.duels),
            "backwards": self.backwards,
            "same": self.same,
            "inconclusive": self.inconclusive,
            "median_ratio": float(np.median(self.ratios)),
            "median_half_width": float(np.median(self.half_widths)),
            "reasons": sorted(set(self.reasons)),
            "passed": self.passed,
        }


def upper_bound(seen: int, tried: int) -> float:
    """Return the exact one-sided 95 % upper bound of a rate (Clopper and Pearson, Biometrika 26, 1934)."""
    return float(stats.binomtest(seen, tried).proportion_ci(confidence_level=0.9, method="exact").high)


def trials(
    seed: int, watch: Watch, duels: Mapping[str, int] = DUELS, problems: Mapping[Problem, float] = PROBLEMS
) -> list[Trial]:
    """Duel twins and slowed arms in random order, one size after the other.

    Args:
        seed: of the numbers and of the order.
        watch: who looks on.
        duels: how many of each pair (`twins`, or the name of a slowed arm) at each size.
        problems: what is timed -> the most seconds that one duel may take.

    Raises:
        WorkerError: a worker could not be started or set up.
    """
    order, core = random.Random(seed), environment.measuring_core()  # noqa: S311 - replayable
    watch.stage("duels", len(problems) * sum(duels.values()))
    found = []
    with contextlib.ExitStack() as stack:
        crews = {pair: stack.enter_context(crew_of(pair, core)) for pair in duels}
        for problem, seconds in problems.items():
            for crew in crews.values():
                crew.start()
                if error := crew.set_up(problem.key, seed, [Phase.FORWARD], None):
                    raise error
            seen: dict[str, list[Measured]] = {pair: [] for pair in duels}
            for pair in order.sample(list(duels), sum(duels.values()), counts=list(duels.values())):
                lane = Lane(pair, crews[pair].workers[0])
                budget = Budget(seconds, HALF_WIDTH)
                seen[pair].append(timing.duel([lane], Phase.FORWARD, budget, order, time.monotonic)[pair])
                watch.step(f"{pair} at {problem.label}")
            found += [trial(problem.label, pair, measured) for pair, measured in seen.items() if measured]
    return found


def trial(problem: str, pair: str, measured: Sequence[Measured]) -> Trial:
    """Count what the duels of one pair came to."""
    verdicts = [seen.verdict for seen in measured]
    intervals = [_interval(seen) for seen in measured]
    # One worker never shows `same`; whether the interval would is what counts here, and that nothing disturbed it.
    same = [
        verdict is Comparison.INCONCLUSIVE and seen.reason.startswith("half-width") and _inside(interval)
        for verdict, seen, interval in zip(verdicts, measured, intervals, strict=True)
    ]
    silent = [
        seen.reason
        for seen, inside in zip(measured, same, strict=True)
        if seen.verdict is Comparison.INCONCLUSIVE and not inside
    ]
    return Trial(
        problem,
        pair,
        different=_count(verdicts, (Comparison.FASTER, Comparison.SLOWER)),
        backwards=_count(verdicts, (Comparison.FASTER,)),
        same=sum(same),
        ratios=tuple(interval.ratio for interval in intervals),
        half_widths=tuple(interval.half_width for interval in intervals),
        reasons=tuple(reason.partition(":")[0] for reason in silent),
    )


def _inside(interval: Interval) -> bool:
    return statistics.compare(interval, workers=2) is Comparison.SAME


def _interval(seen: Measured) -> Interval:
    if seen.ratio is None or seen.ratio_low is None or seen.ratio_high is None:
        return statistics.UNKNOWN
    return Interval(seen.ratio, seen.ratio_low, seen.ratio_high)


def _count(verdicts: Iterable[Comparison | None], wanted: Sequence[Comparison]) -> int:
    return sum(verdict in wanted for verdict in verdicts)


def crew_of(pair: str, core: int | None) -> Crew:
    """Return the one worker of a pair: `twins`, or a slowed arm against its control; pinned to a core or not."""

    def described(where: str) -> Description:
        return Description(where.rpartition(":")[2], object_source(where), where)

    if pair == "twins":
        return Crew(described("torch.nn.functional:cross_entropy"), 1, WARM_HEAP, 1, core)
    control = described("xentbench.worker.spinning:plus_0")
    return Crew(described(f"xentbench.worker.spinning:{pair}"), 1, WARM_HEAP, 1, core, baseline=control)
