"""Two runs, or two implementations -> better, worse, same or inconclusive. Absolute times are never compared.

Two runs are compared through their ratios to the same baseline, measured in each run beside every candidate; two
implementations that can both be loaded duel directly, in one process, which is the stronger test.
"""

from __future__ import annotations

import dataclasses
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xentbench import environment, statistics, timing
from xentbench.challenge import Challenge
from xentbench.crews import Crew, Examinee
from xentbench.inputs import timed_seed
from xentbench.lanes import Lane
from xentbench.measured import Regime
from xentbench.planning import cell_limit_s
from xentbench.posing import Questions
from xentbench.spec import Comparison, EnvironmentMismatchError, Outcome, Side, Status
from xentbench.timing import Budget
from xentbench.witness import Witness
from xentbench.workers import WARM_HEAP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xentbench.planning import Plan
    from xentbench.results import Run
    from xentbench.spec import Description, Phase, Problem
    from xentbench.statistics import Rule, Shift
    from xentbench.watching import Watch

ALARM: Final = 0.05
"""Two runs of identical code are called different anywhere with about this probability (Holm over their cells)."""
LEAST: Final = 2
"""Fewest workers of a run whose spread says anything."""
RUN_MARGIN: Final = 0.02
"""Between two runs a difference counts beyond this, and twice this bounds `same`: the ratio of unlike code to its
baseline wanders by 1 to 4 % between processes."""
QUICKEST: Final = "worker_quickest_log_ratios"
TYPICAL: Final = "worker_log_ratios"
"""Columns of `results`: the two kinds of log ratios that a worker has."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One cell of a comparison: time of the second over the first, with its interval.

    Attributes:
        implementation: name of the second one.
        problem: canonical key.
        phase: that was timed.
        outcome: what became of it.
        ratio: estimate (of two runs, of their quickest calls); None where nothing was measured.
        ratio_low: lower end of its 95 % interval, of this cell by itself.
        ratio_high: upper end.
        adjusted_p: of two runs, the p-value after Holm's adjustment over all their cells.
        reason: what qualifies the outcome.
        wrong: which of the two is not right or not there, so that nothing was timed; None where both are right.
        unlike: settings in which the environments of the two runs differ; empty unless that was forced.
    """

    implementation: str
    problem: str
    phase: str
    outcome: Outcome
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    adjusted_p: float | None = None
    reason: str = ""
    wrong: Side | None = None
    unlike: tuple[str, ...] = ()


def runs(first: Run, second: Run, *, force: bool = False) -> list[Difference]:
    """Compare the cells that two runs share: shift of the workers' mean log ratios, Holm over all cells.

    The log ratios are those of the quickest calls (`statistics.quickest_log_ratio`); typical ones may only object.

    Raises:
        EnvironmentMismatchError: they ran in unlike environments, or one does not tell (the message names the keys),
            without `force`.
    """
    unlike = environment.differences(first.info.get("environment", {}), second.info.get("environment", {}))
    if unlike and not force:
        told = ", ".join(f"{key} ({one} and {other})" for key, (one, other) in unlike.items())
        msg = f"the runs are not comparable: they differ in {told}; --force compares them all the same"
        raise EnvironmentMismatchError(msg)
    keys = ["implementation", "problem", "phase"]
    both = first.cells.merge(second.cells, on=keys, suffixes=("_1", "_2"), how="outer", sort=False).to_dict("records")
    passed = [cell for cell in both if cell["status_1"] == Status.PASSED]
    timed = [place for place, cell in enumerate(passed) if _is_comparable(cell)]
    moves = zip(*(_moves([passed[place] for place in timed], by) for by in (QUICKEST, TYPICAL)), strict=True)
    shifted = dict(zip(timed, moves, strict=True))
    found = [
        _shifted(cell, *shifted[place]) if place in shifted else _unshifted(cell) for place, cell in enumerate(passed)
    ]
    return [dataclasses.replace(difference, unlike=tuple(unlike)) for difference in found]


@dataclass(frozen=True, slots=True)
class _Move:
    """How far a cell's ratio moved, with its p-value after Holm's adjustment over all cells."""

    shift: Shift
    adjusted_p: float

    @property
    def counts(self) -> bool:
        """Whether it is beyond chance and beyond the margin."""
        return self.adjusted_p < ALARM and not 1 / (1 + RUN_MARGIN) <= self.ratio <= 1 + RUN_MARGIN

    @property
    def ratio(self) -> float:
        """Of the second run's ratio over the first's."""
        return self.shift.interval.ratio


def _moves(cells: Sequence[dict[Any, Any]], by: str) -> list[_Move]:
    """Return how far each cell moved, by one kind of the workers' log ratios."""
    shifts = statistics.shifts([(np.array(first), np.array(second)) for first, second in (_logs(c, by) for c in cells)])
    return [_Move(*pair) for pair in zip(shifts, statistics.holm([shift.p for shift in shifts]), strict=True)]


def _is_comparable(cell: dict[Any, Any]) -> bool:
    """Whether both runs have ratios of two workers or more, by the same clock."""
    enough = all(len(logs) >= LEAST for by in (QUICKEST, TYPICAL) for logs in _logs(cell, by))
    return enough and cell["status_2"] == Status.PASSED and cell["clock_1"] == cell["clock_2"]


def _logs(cell: dict[Any, Any], by: str) -> list[list[float]]:
    """Return the workers' log ratios in the first and in the second run, none where they were not kept."""
    kept = [cell[f"{by}_{run}"] for run in (1, 2)]
    return [one if isinstance(one, list) else [] for one in kept]


def _unshifted(cell: dict[Any, Any]) -> Difference:
    """Return the end of a cell that passed in the first run and cannot be compared: wrong now is worse."""
    after = cell["status_2"]
    if after == Status.PASSED:
        return Difference(*_names(cell), Outcome.INCONCLUSIVE, reason=_why_not(cell))
    known = after in set(Status)
    outcome = Outcome.WORSE if known and Status(after).is_wrong else Outcome.INCONCLUSIVE
    return Difference(*_names(cell), outcome, reason=f"passed before, now {after if known else 'absent'}")


def _why_not(cell: dict[Any, Any]) -> str:
    """Return the reason why a cell that passed in both runs is not compared."""
    if not all(_logs(cell, QUICKEST)):
        return "a run without ratios by worker: measure it again"
    if cell["clock_1"] != cell["clock_2"]:
        return f"timed by {cell['clock_1']} before, by {cell['clock_2']} now"
    return "one worker a run allows no claim across runs"


def _shifted(cell: dict[Any, Any], quickest: _Move, typical: _Move) -> Difference:
    """Return what a cell shows: its quickest calls decide, unless its typical ones moved alone or the other way.

    Code that became slower moves both. Other work on the machine moves mostly the typical ones, and so does code that
    became slower in a part of its calls: that is for a person to tell.
    """
    seen, near = quickest.shift.interval, 1 + 2 * RUN_MARGIN
    outcome = Outcome.INCONCLUSIVE
    reason = f"half-width: ±{seen.half_width:.1%}, p = {quickest.adjusted_p:.2g} over all cells"
    opposed = typical.counts and (quickest.ratio > 1) != (typical.ratio > 1)
    if quickest.counts and not opposed:
        outcome, reason = (Outcome.WORSE if quickest.ratio > 1 else Outcome.BETTER), ""
    elif typical.counts:
        took = f"typical calls took {typical.ratio:.3f} times as long, the quickest {quickest.ratio:.3f}"
        reason = f"{took}: other work on the machine, or a part of the calls"
    elif 1 / near <= seen.low and seen.high <= near:
        outcome, reason = Outcome.SAME, ""
    return Difference(*_names(cell), outcome, seen.ratio, seen.low, seen.high, quickest.adjusted_p, reason)


def _names(cell: dict[Any, Any]) -> tuple[str, str, str]:
    return str(cell["implementation"]), str(cell["problem"]), str(cell["phase"])


def implementations(
    first: Description, second: Description, plan: Plan, watch: Watch, margin: float | None = None
) -> list[Difference]:
    """Judge both, then duel the second against the first in the same processes, problem by problem, phase by phase.

    Args:
        first: what it is compared with.
        second: what may be slower.
        plan: problems, phases, workers, seed.
        watch: who looks on.
        margin: a difference counts beyond it (0.05 is 5 %), and the intervals of all cells hold together at 99 %; None:
            beyond 1 %, each cell by itself at 95 %.
    """
    rule = statistics.USUAL if margin is None else statistics.Rule.together(margin, len(plan.asked) * len(plan.phases))
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
            ended = wrong or (error and (Outcome.INCONCLUSIVE, str(error), None))
            if ended:
                found = (_untimed(second, problem, phase, *ended) for phase in plan.phases)
            else:
                challenge = Challenge(problem, timed_seed(plan.seed), plan.recorded.get(problem.key))
                found = (_duel(crew, challenge, phase, plan, order, rule) for phase in plan.phases)
            for difference in found:
                differences.append(difference)
                watch.step(f"{problem.label}, {difference.phase}")
            questions.forget(problem)
    return differences


def _wrong(
    pair: Sequence[Examinee], questions: Questions, problem: Problem, phases: Sequence[Phase]
) -> tuple[Outcome, str, Side | None] | None:
    """Return how the cells of this problem end where one of the two cannot be timed on it, else None.

    A second one that is not right is worse than any time; without a right first one nothing can be said.
    """
    ends = ((Outcome.INCONCLUSIVE, Side.FIRST), (Outcome.WORSE, Side.SECOND))
    for examinee, (outcome, wrong) in zip(pair, ends, strict=True):
        verdict = examinee.examine(questions(problem), phases, measure_memory=False).verdict
        if verdict.status is not Status.PASSED:
            return outcome, f"{examinee.entry.shown}: {verdict.status}, {verdict.reason}", wrong
    return None


def _untimed(
    second: Description, problem: Problem, phase: Phase, outcome: Outcome, reason: str, wrong: Side | None
) -> Difference:
    return Difference(second.shown, problem.key, phase, outcome, reason=reason, wrong=wrong)


def _duel(crew: Crew, challenge: Challenge, phase: Phase, plan: Plan, order: random.Random, rule: Rule) -> Difference:
    problem, may_overflow = challenge.problem, bool(crew.entry.deviations)
    witnesses = [Witness(challenge, phase, may_overflow=may_overflow) for _ in crew.workers]
    lanes = [Lane(crew.entry.name, *pair) for pair in zip(crew.workers, witnesses, strict=True)]
    budget = Budget(2 * cell_limit_s(problem), plan.preset.half_width)
    regime = Regime(one_thread=plan.conditions.threads == 1 and problem.device == "cpu", rule=rule)
    seen = timing.duel(lanes, phase, budget, order, time.monotonic, regime)[crew.entry.name]
    outcome = {Comparison.FASTER: Outcome.BETTER, Comparison.SLOWER: Outcome.WORSE, Comparison.SAME: Outcome.SAME}.get(
        seen.verdict or Comparison.INCONCLUSIVE, Outcome.INCONCLUSIVE
    )
    ends = (seen.ratio, seen.ratio_low, seen.ratio_high)
    return Difference(crew.entry.shown, problem.key, phase, outcome, *ends, reason=seen.reason)
