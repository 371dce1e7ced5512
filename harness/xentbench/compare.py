"""Two runs, or two implementations -> better, worse, same or inconclusive. Absolute times are never compared.

Two runs are compared through their ratios to the same baseline, measured in each run beside every candidate; two
implementations that can both be loaded duel directly, in one process, which is the stronger test.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xentbench import environment, timing
from xentbench.crews import Crew, Examinee
from xentbench.lanes import Lane
from xentbench.measured import Regime
from xentbench.planning import cell_limit_s
from xentbench.posing import Questions
from xentbench.spec import Comparison, EnvironmentMismatchError, Outcome, Status
from xentbench.timing import Budget
from xentbench.workers import WARM_HEAP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xentbench.planning import Plan
    from xentbench.results import Run
    from xentbench.spec import Description, Phase, Problem
    from xentbench.sweep import Watch

RUN_MARGIN: Final = 0.02
"""Between two runs a difference counts beyond this and outside its interval; identical code crosses it in 1-5 %."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One cell of a comparison: time of the second over the first, with its interval."""

    implementation: str
    problem: str
    phase: str
    outcome: Outcome
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    reason: str = ""


def runs(first: Run, second: Run, *, force: bool = False) -> list[Difference]:
    """Compare the cells that two runs share.

    Raises:
        EnvironmentMismatchError: they ran in unlike environments (the message names the keys), without `force`.
    """
    unlike = environment.differences(first.info.get("environment", {}), second.info.get("environment", {}))
    if unlike and not force:
        told = ", ".join(f"{key} ({one} and {other})" for key, (one, other) in unlike.items())
        msg = f"the runs are not comparable: they differ in {told}; --force compares them all the same"
        raise EnvironmentMismatchError(msg)
    keys = ["implementation", "problem", "phase"]
    both = first.cells.merge(second.cells, on=keys, suffixes=("_1", "_2"), how="outer", sort=False)
    differences = [_difference(cell) for cell in both.to_dict("records")]
    return [difference for difference in differences if difference is not None]


def _difference(cell: dict[Any, Any]) -> Difference | None:
    """Subtract log ratios; the half-widths of two independent runs add in quadrature.

    What was right and is wrong now is worse, whatever its time; None where neither run timed the cell.
    """
    names = (str(cell["implementation"]), str(cell["problem"]), str(cell["phase"]))
    before, after = cell["status_1"], cell["status_2"]
    if before == Status.PASSED != after:
        gone = after not in set(Status) or not Status(after).is_wrong
        outcome = Outcome.INCONCLUSIVE if gone else Outcome.WORSE
        return Difference(
            *names, outcome, reason=f"passed before, now {'absent' if after not in set(Status) else after}"
        )
    if before != Status.PASSED:
        return None
    ends = [[cell[f"{name}_{run}"] for name in ("ratio", "ratio_low", "ratio_high")] for run in (1, 2)]
    if any(value is None or not value > 0 for end in ends for value in end):
        return Difference(*names, Outcome.INCONCLUSIVE, reason="an interval has no end")
    shift = math.log(ends[1][0]) - math.log(ends[0][0])
    reach = math.hypot(*((math.log(high) - math.log(low)) / 2 for _, low, high in ends))
    outcome, reason = _outcome(shift, reach)
    low, middle, high = (math.exp(shift + by) for by in (-reach, 0.0, reach))
    return Difference(*names, outcome, ratio=middle, ratio_low=low, ratio_high=high, reason=reason)


def _outcome(shift: float, reach: float) -> tuple[Outcome, str]:
    if abs(shift) > max(reach, RUN_MARGIN):
        return (Outcome.WORSE if shift > 0 else Outcome.BETTER), ""
    if abs(shift) + reach <= 2 * RUN_MARGIN:
        return Outcome.SAME, ""
    return Outcome.INCONCLUSIVE, f"difference {shift:+.1%} ± {reach:.1%}"


def implementations(first: Description, second: Description, plan: Plan, watch: Watch) -> list[Difference]:
    """Judge both, then duel the second against the first in the same processes, problem by problem, phase by phase."""
    order = random.Random(plan.seed)  # noqa: S311 - replayable by the run's seed
    questions = Questions(plan.seed, plan.recorded)
    core = environment.measuring_core() if plan.conditions.pinned else None
    heap = WARM_HEAP if plan.conditions.allocator == "warm" else {}
    differences: list[Difference] = []
    watch.stage("comparing", len(plan.asked) * len(plan.phases))
    with (
        Examinee(first, {}) as one,
        Examinee(second, {}) as other,
        Crew(second, plan.preset.workers, heap, plan.conditions.threads, core, baseline=first) as crew,
    ):
        for problem in plan.asked:
            wrong = _wrong((one, other), questions, problem, plan.phases)
            crew.start()
            error = None if wrong else crew.set_up(problem.key, plan.seed, plan.phases, plan.recorded.get(problem.key))
            for phase in plan.phases:
                reason = wrong or (str(error) if error else "")
                # A second one that is not right is worse than any time; without a right first one nothing can be said.
                outcome = Outcome.WORSE if wrong.startswith(f"{second.name}:") else Outcome.INCONCLUSIVE
                differences.append(
                    Difference(second.name, problem.key, phase, outcome, reason=reason)
                    if reason
                    else _duel(crew, problem, phase, plan, order)
                )
                watch.step(f"{problem.label}, {phase}")
            questions.forget(problem)
    return differences


def _wrong(pair: Sequence[Examinee], questions: Questions, problem: Problem, phases: Sequence[Phase]) -> str:
    """Return why one of the two cannot be timed on this problem, or nothing."""
    for examinee in pair:
        verdict = examinee.examine(questions(problem), phases, measure_memory=False).verdict
        if verdict.status is not Status.PASSED:
            return f"{examinee.entry.name}: {verdict.status}, {verdict.reason}"
    return ""


def _duel(crew: Crew, problem: Problem, phase: Phase, plan: Plan, order: random.Random) -> Difference:
    lanes = [Lane(crew.entry.name, worker) for worker in crew.workers]
    budget = Budget(2 * cell_limit_s(problem), plan.preset.half_width)
    regime = Regime(one_thread=plan.conditions.threads == 1 and problem.device == "cpu")
    seen = timing.duel(lanes, phase, budget, order, time.monotonic, regime)[crew.entry.name]
    outcome = {Comparison.FASTER: Outcome.BETTER, Comparison.SLOWER: Outcome.WORSE, Comparison.SAME: Outcome.SAME}.get(
        seen.verdict or Comparison.INCONCLUSIVE, Outcome.INCONCLUSIVE
    )
    return Difference(
        crew.entry.name, problem.key, phase, outcome, seen.ratio, seen.ratio_low, seen.ratio_high, seen.reason
    )
