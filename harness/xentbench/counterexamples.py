"""The smallest counter-examples to what an implementation got wrong, asked of whoever still answers for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from xentbench import reproducing
from xentbench.elementwise import hint_of
from xentbench.posing import Question, Questions
from xentbench.shrinking import Budget, Counterexample, shrink
from xentbench.spec import Description, Problem, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xentbench.inputs import Inputs

SHRINKING_S: Final = 4.0
"""Wall time that may be spent on the counter-examples of one implementation, all quantities together."""
ENDED: Final = (Status.CRASHED, Status.EXITED, Status.TIMED_OUT, Status.OUT_OF_MEMORY, Status.FORGED)
"""What ends a worker, or takes long, is not asked again and again."""

Shrunk = dict[tuple[str, str], Counterexample]
"""(problem key, quantity) -> the smallest counter-example found from there."""


class Answering(Protocol):
    """Who answers for one implementation."""

    @property
    def entry(self) -> Description:
        """The implementation."""

    def ask_again(self, question: Question) -> Verdict | None:
        """Return the verdict on its answer to one more question; None where it answers no more."""


@dataclass(slots=True)
class Finder:
    """Looks for the counter-examples of one implementation, and stops where its time is spent.

    Attributes:
        examinee: who is asked: a worker, or this process.
        questions: that it was asked.
        left_s: what may still be spent.
        now_s: clock.
    """

    examinee: Answering
    questions: Questions
    left_s: float = SHRINKING_S
    now_s: Callable[[], float] = field(default=time.monotonic)

    def find(self, verdicts: Mapping[Problem, Verdict]) -> Shrunk:
        """Return the smallest counter-example to one failure of each quantity.

        The plainest of those whose mistake was recognised is taken, since it tells its author the most. An entrant that
        compiles is not asked: each question would cost a compilation.
        """
        if self.examinee.entry.compiles:
            return {}
        first: dict[str, tuple[tuple[bool, bool, int], Problem]] = {}
        for problem, verdict in verdicts.items():
            if verdict.is_wrong and verdict.status not in ENDED:
                for failure in verdict.failures:
                    rank = (not hint_of(failure.message), *plainness(problem))
                    if failure.quantity not in first or rank < first[failure.quantity][0]:
                        first[failure.quantity] = rank, problem
        found: Shrunk = {}
        for quantity, (_, problem) in first.items():
            smallest = self._shrink(problem, quantity)
            if smallest is not None:
                found[problem.key, quantity] = smallest
        return found

    def _shrink(self, problem: Problem, quantity: str) -> Counterexample | None:
        # Of what must raise, simpler tensors might be valid ones, and an exception no longer due.
        most = 1 if problem.must_raise else Budget().questions
        budget = Budget(most, min(Budget().wall_s, self.left_s), self.now_s)
        start_s = self.now_s()
        smallest = shrink(problem, self.questions(problem).inputs, quantity, self._fails, budget)
        self.left_s -= self.now_s() - start_s
        return smallest

    def _fails(self, problem: Problem, inputs: Inputs) -> Verdict | None:
        return self.examinee.ask_again(Question.of(problem, inputs, self.questions.seed))


def plainness(problem: Problem) -> tuple[bool, int]:
    """Return a rank by which the problems that a person understands at once come first."""
    return problem.elements == 0, problem.key.count(",")


def told(found: Counterexample | None, entry: Description) -> dict[str, str]:
    """Return what a failure's record holds of its counter-example: one line, and a snippet of code; '' without one."""
    if found is None:
        return {"counterexample": "", "snippet": ""}
    return {"counterexample": reproducing.line(found), "snippet": reproducing.snippet(found, entry)}
