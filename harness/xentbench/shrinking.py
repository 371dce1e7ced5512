"""The smallest counter-example: a failing question made as small and plain as it can be and still fail the same way.

Greedy and deterministic: sizes, options and values are simplified in turn (see `simplifying`); a candidate is kept
where it is less complex and the same quantity still fails with the same status.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xentbench.simplifying import STEPS, Case, complexity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xentbench.inputs import Inputs
    from xentbench.spec import Failure, Problem, Verdict

    Fails = Callable[[Problem, Inputs], Verdict | None]


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent on one counter-example.

    Attributes:
        questions: that may be asked.
        wall_s: after which nothing more is asked.
        now_s: clock.
    """

    questions: int = 150
    wall_s: float = 2.0
    now_s: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A question that an implementation gets wrong.

    Attributes:
        problem: sizes and options; the numbers are those of `inputs`, whatever the problem says of their origin.
        inputs: tensors, in the problem's dtype and layouts.
        failure: what the judge says of this question.
        questions: how many were asked to find it.
    """

    problem: Problem
    inputs: Inputs
    failure: Failure
    questions: int


def shrink(
    problem: Problem, inputs: Inputs, quantity: str, fails: Fails, budget: Budget | None = None
) -> Counterexample | None:
    """Return the smallest counter-example found, or None where the question, asked again, does not fail.

    Args:
        problem: what was failed.
        inputs: its tensors, as placed.
        quantity: of the failure to keep, e.g. `value`.
        fails: asks and judges; None for a question that is passed, refused, or not answered at all.
        budget: default: 150 questions, 2 s.
    """
    search = _Search(quantity, fails, budget or Budget())
    if not search.keeps(Case.of(problem, inputs)):
        return None
    led = True
    while led and not search.spent():
        led = sum(search.exhausts(step) for step in STEPS) > 0  # every step has its turn in every round
    assert search.best is not None
    assert search.failure is not None
    return Counterexample(search.best.problem, search.best.inputs, search.failure, search.asked)


@dataclass(slots=True)
class _Search:
    """The best case so far, and what was spent on it."""

    quantity: str
    fails: Fails
    budget: Budget
    best: Case | None = None
    failure: Failure | None = None
    kind: tuple[object, ...] = ()
    asked: int = 0
    seen: set[bytes] = field(default_factory=set)
    start_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.start_s = self.budget.now_s()

    def spent(self) -> bool:
        """Whether nothing more may be asked."""
        return self.asked >= self.budget.questions or self.budget.now_s() - self.start_s >= self.budget.wall_s

    def exhausts(self, step: Callable[[Case], Iterator[Case]]) -> bool:
        """Take a step as long as it leads on, and return whether it did at all."""
        led = False
        while (
            self.best is not None and not self.spent() and any(self.keeps(candidate) for candidate in step(self.best))
        ):
            led = True
        return led

    def keeps(self, case: Case) -> bool:
        """Ask, unless it is no simpler or was asked before, and keep the case where it fails in the same way."""
        if self.best is not None and complexity(case) >= complexity(self.best):
            return False
        if self.spent() or case.digest in self.seen:
            return False
        self.seen.add(case.digest)
        self.asked += 1
        verdict = self.fails(case.problem, case.inputs)
        failure = None if verdict is None else self._same(verdict)
        if verdict is None or failure is None:
            return False
        self.best, self.failure, self.kind = case, failure, _kind(verdict, failure)
        return True

    def _same(self, verdict: Verdict) -> Failure | None:
        """Return the failure of this kind that a verdict holds."""
        if not verdict.is_wrong:
            return None
        found = (failure for failure in verdict.failures if failure.quantity == self.quantity)
        return next((failure for failure in found if self.kind in ((), _kind(verdict, failure))), None)


def _kind(verdict: Verdict, failure: Failure) -> tuple[object, ...]:
    """Return what must stay: the status, the classes of number that were expected and came, an exception's type."""
    numbers = [(math.isnan(n), math.isinf(n)) for n in (failure.expected, failure.got) if n is not None]
    raised = failure.message.split(": ")[1:2] if failure.quantity == "exception" else []
    return verdict.status, *numbers, *raised
