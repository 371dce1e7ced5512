"""How accurate everybody is by dtype and family of logits: problems of a run that are judged and never timed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xentbench.due import verdict_fields
from xentbench.examining import Examined
from xentbench.spec import Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor

    from xentbench.counterexamples import Finder
    from xentbench.crews import Examinee
    from xentbench.journal import Journal
    from xentbench.planning import Plan
    from xentbench.posing import Question, Questions
    from xentbench.spec import Description, Problem
    from xentbench.watching import Watch


@dataclass(frozen=True, slots=True)
class Accuracies:
    """Asks of a plan what is asked for accuracy alone.

    Attributes:
        plan: what is asked of whom.
        journal: where verdicts go.
        watch: who looks on.
        known: (name, problem key) of what earlier sittings found.
    """

    plan: Plan
    journal: Journal
    watch: Watch
    known: frozenset[tuple[str, str]] = field(default_factory=frozenset)

    def due(self, problem: Problem) -> list[Description]:
        """Return who is asked: whoever can be, and does not compile, which would take seconds a problem."""
        return [
            entry
            for entry in self.plan.implementations
            if entry.status is Status.PASSED and not entry.compiles and (entry.name, problem.key) not in self.known
        ]

    def ask(
        self,
        examinees: Mapping[str, Examinee],
        finders: Mapping[str, Finder],
        questions: Questions,
        pool: Executor,
        late: Callable[[], bool],
    ) -> None:
        """Ask every question of all who are due, until it is late, and write what the judge says."""
        steps = sum(len(self.due(problem)) for problem in self.plan.accuracy)
        if not steps:
            return
        self.watch.stage("accuracy", steps)
        for problem in self.plan.accuracy:
            entries = self.due(problem)
            if not entries or late():
                continue
            question = questions(problem)
            seen = list(pool.map(lambda e, q=question: _examined(examinees[e.name], q), entries))
            found = list(pool.map(lambda e, x, p=problem: finders[e.name].find({p: x.verdict}), entries, seen))
            # Written when all have answered: a failure's message tells the right answer.
            for entry, examined, shrunk in zip(entries, seen, found, strict=True):
                self.journal.accuracy(verdict_fields(entry, problem, examined, shrunk))
                self.watch.step(f"{entry.name} at {problem.label}: {examined.verdict.status}")
            questions.forget(problem)


def _examined(examinee: Examinee, question: Question) -> Examined:
    refusals = examinee.entry.refusals
    if question.problem.key in refusals:
        return Examined(Verdict(Status.UNSUPPORTED, reason=refusals[question.problem.key]))
    return examinee.examine(question, [], measure_memory=False)
