"""The cells of a run: which of them are due, and what the journal holds of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xentbench import counterexamples, limits
from xentbench.examining import Examined, reproduce
from xentbench.spec import Comparison, Description, Phase, Problem, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from xentbench.counterexamples import Shrunk
    from xentbench.measured import Measured
    from xentbench.planning import Plan

SLOW_FIRST_S: Final = 0.5
SLOW_FIRST_CALLS: Final = 20
"""Set-up longer than so many seconds and so many calls is labelled."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is due of a plan.

    Attributes:
        plan: what is asked of whom.
        finished: how cells ended in earlier sittings.
    """

    plan: Plan
    finished: Mapping[tuple[str, str, Phase], Status]

    def missing(self, entry: Description, problem: Problem) -> list[Phase]:
        """Return the phases of a pair that no sitting finished."""
        return [phase for phase in self.plan.phases if (entry.name, problem.key, phase) not in self.finished]

    def groups(self, problem: Problem) -> list[Phase]:
        """Return the phases of a problem that have a cell missing: these are timed, as a whole."""
        missing = {phase for entry in self.plan.implementations for phase in self.missing(entry, problem)}
        return [phase for phase in self.plan.phases if phase in missing]

    def phases(self, entry: Description, problem: Problem) -> list[Phase]:
        """Return the phases of a pair to be timed: of groups that are due, what is missing and what has a time."""
        ended = {phase: self.finished.get((entry.name, problem.key, phase)) for phase in self.groups(problem)}
        return [phase for phase, status in ended.items() if status in (None, Status.PASSED)]

    def entries(self, problem: Problem) -> list[Description]:
        """Return who is asked this problem: whoever can be and has a phase due."""
        return [entry for entry in self.plan.askable(problem) if self.phases(entry, problem)]


def split(entry: Description, phase: Phase, seen: Measured) -> dict[str, Any]:
    """Return what replaces the verdict on half of a sum: who makes the gradient in forward is compared by the sum."""
    if not entry.work.gradient_in_forward or phase not in (Phase.FORWARD, Phase.BACKWARD):
        return {}
    if seen.status is not Status.PASSED:
        return {}
    reason = f"makes its gradient in forward: compared by {Phase.FORWARD_BACKWARD}"
    return {"verdict": Comparison.INCONCLUSIVE, "reason": reason}


def is_slow_at_first(setup_s: float | None, latency_s: float | None) -> bool:
    """Whether the first calls take so much longer than the later ones that somebody who calls few must know."""
    if setup_s is None or latency_s is None:
        return False
    return setup_s > SLOW_FIRST_S and setup_s > SLOW_FIRST_CALLS * latency_s


def declared(examined: Examined) -> tuple[str, ...]:
    """Return the label of a failure that declared deviations explain, or nothing."""
    return ("declared-deviation",) if examined.verdict.deviations else ()


def cell_fields(
    entry: Description, problem: Problem, phase: Phase, status: Status, reason: str, labels: Iterable[str] = ()
) -> dict[str, Any]:
    """Return what every cell's line holds, measured or not."""
    return {
        "implementation": entry.name,
        "problem": problem.key,
        "phase": phase,
        "status": status,
        "reason": reason,
        "labels": list(labels),
        "minimum_bytes": limits.minimum_bytes(problem, phase),
    }


def verdict_fields(
    entry: Description, problem: Problem, examined: Examined, shrunk: Shrunk | None = None
) -> dict[str, Any]:
    """Return the journal's line of one verdict: without the seed, which whoever is judged could read there."""
    verdict = examined.verdict
    return {
        "implementation": entry.name,
        "problem": problem.key,
        "status": verdict.status,
        "grade": verdict.grade,
        "reason": verdict.reason,
        "checks": verdict.checks,
        "bound_ratio": verdict.bound_ratio,
        "error_ulp": verdict.error_ulp,
        "deviations": list(verdict.deviations),
        "labels": list(verdict.labels),
        "failures": [
            {
                "quantity": failure.quantity,
                "message": failure.message,
                **counterexamples.told((shrunk or {}).get((problem.key, failure.quantity)), entry),
            }
            for failure in verdict.failures
        ],
        "setup_s": examined.setup_s,
        "reproduce": reproduce(entry, problem),
    }
