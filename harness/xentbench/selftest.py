"""The harness judged on the user's own machine: does its judge find planted faults, does its clock tell twins apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xentbench import mistakes, panel
from xentbench.examining import examine_here
from xentbench.posing import Questions
from xentbench.registry import object_source
from xentbench.spec import Description, Implementation, Problem
from xentbench.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xentbench.mistakes import Mistake, Right
    from xentbench.twins import Trial
    from xentbench.watching import Watch

FEW_RIGHT: Final = 3
"""Right losses that a quick trial asks."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One line of a self-test: what was tried, what was expected, what was seen."""

    name: str
    expected: str
    seen: str
    passed: bool

    def record(self) -> dict[str, Any]:
        """Return the line as JSON can hold it."""
        return {"name": self.name, "expected": self.expected, "seen": self.seen, "passed": self.passed}


def judge(seed: int, watch: Watch, *, quick: bool = False) -> list[Scored]:
    """Put the collection of mistakes and of right losses before the judge, in this process.

    Args:
        seed: of the numbers.
        watch: who looks on.
        quick: one mistake of each class and the quick panel, instead of all of them and the full one.

    Returns:
        One line a class of bugs, and one for the right losses. A mistake is found once one problem shows it.
    """
    problems, questions = panel.panel("quick" if quick else "full"), Questions(seed, {})
    classes: dict[int, list[Mistake]] = {}
    for mistake in mistakes.WRONG.values():
        classes.setdefault(mistake.bug_class, []).append(mistake)
    if quick:
        classes = {number: members[:1] for number, members in classes.items()}
    right = list(mistakes.RIGHT.values())[: FEW_RIGHT if quick else None]
    watch.stage("judging the judge", sum(map(len, classes.values())) + len(right))

    def objections(entry: Mistake | Right) -> Iterator[Problem]:
        watch.step(entry.name)
        held = Implementation(name=entry.name, function=entry.loss)
        declared = Description(entry.name, object_source("xentbench.mistakes:WRONG"), "selftest", speaks=True)
        return (problem for problem in problems if examine_here(held, declared, questions(problem)).is_wrong)

    with one_thread():
        missed = {
            number: [entry.name for entry in members if next(objections(entry), None) is None]
            for number, members in sorted(classes.items())
        }
        rejected = [entry.name for entry in right if next(objections(entry), None) is not None]
    lines = [
        _scored(f"{number}: {mistakes.CLASSES[number]}", len(classes[number]), "found", names)
        for number, names in missed.items()
    ]
    return [*lines, _scored("right losses", len(right), "let pass", rejected)]


def _scored(name: str, count: int, outcome: str, failed: list[str]) -> Scored:
    seen = f"{count - len(failed)} of {count} {outcome}" + (f", but not {', '.join(failed)}" if failed else "")
    return Scored(name, f"all {outcome}", seen, not failed)


def clock(tried: Sequence[Trial]) -> list[Scored]:
    """Return a line for every pair of arms that the clock was tried with."""
    names = {"twins": "twins", **{f"plus_{share}": f"slower by {share} %" for share in (2, 5, 10)}}
    return [
        Scored(f"{trial.duels} duels at {trial.problem}, {names[trial.pair]}", *trial.told(), trial.passed)
        for trial in tried
    ]
