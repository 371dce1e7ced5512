"""The harness judged on the user's own machine: does its judge find planted faults, does its clock tell twins apart."""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from xentbench import environment, mistakes, panel, statistics, timing
from xentbench.crews import Crew
from xentbench.examining import examine_here
from xentbench.lanes import CANDIDATE, Lane
from xentbench.posing import Questions
from xentbench.registry import object_source
from xentbench.spec import Comparison, Description, Implementation, Phase, Problem
from xentbench.timing import Budget
from xentbench.workers import WARM_HEAP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xentbench.mistakes import Mistake, Right
    from xentbench.sweep import Watch

FEW_RIGHT: Final = 3
"""Right losses that a quick trial asks."""
DUELS: Final = 30
"""A/A duels a problem: 0 false alarms in 60 bound their rate below 5 % (one-sided, 95 %)."""


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

    with _one_thread():
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


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: of thousands of tiny calls, threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def clock(seed: int) -> list[Scored]:
    """Duel `F.cross_entropy` with itself, time and again: how often are twins called different?"""
    source = object_source("torch.nn.functional:cross_entropy")
    entry = Description("cross_entropy", source, "torch")
    order, core = random.Random(seed), environment.measuring_core()  # noqa: S311 - replayable
    lines = []
    with Crew(entry, 1, WARM_HEAP, 1, core) as crew:
        for problem in (Problem(batch_size=8, num_classes=10), Problem(batch_size=128, num_classes=1000)):
            crew.start()
            if error := crew.set_up(problem.key, seed, [Phase.FORWARD], None):
                lines.append(Scored(problem.label, "measured", str(error), passed=False))
                continue
            alarms, width = 0, []
            for _ in range(DUELS):
                lane = Lane("twin", crew.workers[0])
                seen = timing.duel([lane], Phase.FORWARD, Budget(0.25, 0.01), order, time.monotonic)["twin"]
                alarms += seen.verdict in (Comparison.FASTER, Comparison.SLOWER)
                width.append(statistics.median_interval(np.concatenate(lane.logs(CANDIDATE))).half_width)
            middle = sorted(width)[len(width) // 2]
            told = f"{alarms} false alarms, median half-width ±{middle:.2%}"
            lines.append(Scored(f"{DUELS} duels of twins at {problem.label}", "0 false alarms", told, alarms == 0))
    return lines
