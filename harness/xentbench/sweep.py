"""Plan -> run -> journal: judge every cell, then time those that are right, problem by problem.

Cells are written as they end; a run that is stopped keeps every finished one.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from xentbench import environment, limits, timing
from xentbench.crews import Crew, Examinee, Purse
from xentbench.examining import Examined, reproduce
from xentbench.planning import cell_limit_s, weight
from xentbench.posing import Questions
from xentbench.spec import Description, Phase, Problem, Status
from xentbench.timing import Budget, Lane, Measured
from xentbench.workers import WARM_HEAP, WorkerError, build_caches, stoppable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from xentbench.planning import Plan
    from xentbench.results import Journal

PARALLEL: Final = 2
"""Workers that may be busy at once while nothing is timed."""
REPORT_S: Final = 15.0
"""Kept back from the budget for the report."""
WORKER_BYTES: Final = 180 * 2**20
"""Memory of a worker that holds nothing but torch, its share of what all map counted in (proportional set size)."""


class Watch(Protocol):
    """Who looks on: a progress bar, plain lines, or nobody."""

    def stage(self, title: str, steps: int) -> None:
        """A stage of so many steps begins."""

    def step(self, text: str) -> None:
        """One step is done; the text says which."""

    def cell(self, fields: Mapping[str, Any]) -> None:
        """A cell is finished."""


@dataclass(slots=True)
class Sweep:
    """One run in progress.

    Attributes:
        plan: what is asked of whom.
        journal: where finished cells go.
        watch: who looks on.
        now_s: the parent's clock.
        examined: what the judge found, by implementation and problem key.
    """

    plan: Plan
    journal: Journal
    watch: Watch
    now_s: Callable[[], float] = time.monotonic
    examined: dict[tuple[str, str], Examined] = field(default_factory=dict)

    def run(self) -> None:
        """Write the cells that nobody is asked, judge the others, time those that are right."""
        deadline_s = self.now_s() + self.plan.preset.budget_s - REPORT_S
        for problem in self.plan.problems:
            for entry in self.plan.implementations:
                if why := self.plan.why_not(entry, problem):
                    self._write_all(entry, problem, *why)
        with tempfile.TemporaryDirectory(prefix="xentbench-build-") as builds:
            self._judge(Path(builds), deadline_s)
            self._time(Path(builds), deadline_s)

    def _judge(self, builds: Path, deadline_s: float) -> None:
        """Have every askable pair answered, judged and weighed, problem by problem: one truth is held at a time."""
        questions = Questions(self.plan.seed, self.plan.recorded)
        self.watch.stage("judging", sum(len(self.plan.askable(problem)) for problem in self.plan.asked))
        with stoppable(PARALLEL) as pool, contextlib.ExitStack() as stack:
            examinees = {
                entry.name: stack.enter_context(Examinee(entry, self._environment(entry, builds, warm=False)))
                for entry in self.plan.implementations
            }
            for problem in self.plan.asked:
                entries = self.plan.askable(problem)
                if self._is_late(deadline_s, entries, problem):
                    continue
                question = questions(problem)
                jobs = [
                    pool.submit(examinees[e.name].examine, question, self.plan.phases, measure_memory=True)
                    for e in entries
                ]
                for entry, job in zip(entries, jobs, strict=True):
                    self._judged(entry, problem, job.result())
                questions.forget(problem)

    def _judged(self, entry: Description, problem: Problem, examined: Examined) -> None:
        verdict = examined.verdict
        self.examined[entry.name, problem.key] = examined
        self.journal.verdict(verdict_fields(entry, problem, examined, self.plan.seed))
        self.watch.step(f"{entry.name} at {problem.label}: {verdict.status}")
        if verdict.status is not Status.PASSED:
            self._write_all(entry, problem, verdict.status, verdict.reason, declared(examined))

    def _time(self, builds: Path, deadline_s: float) -> None:
        """Time the right ones: problems in random order, in subgroups that the memory allows."""
        order = random.Random(self.plan.seed)  # noqa: S311 - replayable by the run's seed
        bandwidths = limits.copy_bandwidths()
        right = {problem.key: self._right(problem) for problem in self.plan.asked}
        todo = [problem for problem in self.plan.asked if right[problem.key]]
        cells = sum(len(right[problem.key]) for problem in todo) * len(self.plan.phases)
        self.watch.stage("timing", cells)
        total = sum(weight(p) * len(right[p.key]) for p in todo) * len(self.plan.phases) * self.plan.preset.workers
        subgroups = self._subgroups(right)
        purse = Purse(deadline_s, total, len(todo) * len(subgroups))
        for subgroup in subgroups:
            with contextlib.ExitStack() as stack:
                crews = [stack.enter_context(self._crew(entry, builds)) for entry in subgroup]
                self._start(crews)
                for problem in order.sample(todo, len(todo)):
                    ready = [crew for crew in crews if crew.entry in right[problem.key]]
                    if not ready or self._is_late(deadline_s, [crew.entry for crew in ready], problem):
                        continue
                    self._time_problem(ready, problem, order, bandwidths, purse)

    def _time_problem(
        self,
        crews: Sequence[Crew],
        problem: Problem,
        order: random.Random,
        bandwidths: Mapping[int, float],
        purse: Purse,
    ) -> None:
        """Set the problem up in every worker, then duel phase by phase."""
        start = self.now_s()
        ready = self._set_up(crews, problem)
        purse.paid_overhead(self.now_s() - start)
        for phase in self.plan.phases:
            lanes = [Lane(crew.entry.name, worker) for crew in ready for worker in crew.workers]
            share_s = purse.share_s(self.now_s(), weight(problem), len(lanes), cell_limit_s(problem))
            budget = Budget(share_s, self.plan.preset.half_width)
            measured = timing.duel(lanes, phase, budget, order, self.now_s)
            for crew in ready:
                mine = [lane for lane in lanes if lane.name == crew.entry.name]
                floor_s = limits.floor_s(problem, phase, bandwidths)
                self._timed(crew.entry, problem, phase, measured[crew.entry.name], floor_s, mine)
        for crew in crews:
            crew.free()

    def _start(self, crews: Sequence[Crew]) -> None:
        """Start and load all workers; one that cannot load says so again, as an error, when its first problem comes."""

        def load(crew: Crew) -> None:
            with contextlib.suppress(WorkerError):
                crew.load()

        for crew in crews:
            crew.start()
        with stoppable(PARALLEL) as pool:
            list(pool.map(load, crews))

    def _set_up(self, crews: Sequence[Crew], problem: Problem) -> list[Crew]:
        """Return the crews that are ready; the cells of the others end here."""
        for crew in crews:
            crew.start()
        recorded = self.plan.recorded.get(problem.key)
        with stoppable(PARALLEL) as pool:
            errors = list(
                pool.map(lambda crew: crew.set_up(problem.key, self.plan.seed, self.plan.phases, recorded), crews)
            )
        for crew, error in zip(crews, errors, strict=True):
            if error is not None:
                self._write_all(crew.entry, problem, error.status, f"set up for timing: {error.reason}")
                for phase in self.plan.phases:
                    self.watch.step(f"{crew.entry.name} at {problem.label}, {phase}: {error.status}")
        return [crew for crew, error in zip(crews, errors, strict=True) if error is None]

    def _timed(
        self,
        entry: Description,
        problem: Problem,
        phase: Phase,
        seen: Measured,
        floor_s: float,
        lanes: Sequence[Lane],
    ) -> None:
        examined = self.examined[entry.name, problem.key]
        labels = list(examined.verdict.labels)
        labels += ["below-floor"] if seen.latency_s is not None and seen.latency_s < floor_s else []
        labels += ["gradient-in-forward"] if entry.work.gradient_in_forward else []
        fields = {
            **cell_fields(entry, problem, phase, seen.status, seen.reason, labels),
            **seen.fields(),
            "grade": examined.verdict.grade,
            "peak_bytes": examined.peak_bytes.get(phase),
            "floor_s": floor_s,
            "setup_s": examined.setup_s,
        }
        raw = {"bursts_wall_ns": [[burst.tolist() for burst in lane.bursts] for lane in lanes]}
        self.journal.cell(fields, raw)
        self.watch.cell(fields)
        self.watch.step(f"{entry.name} at {problem.label}, {phase}")

    def _is_late(self, deadline_s: float, entries: Sequence[Description], problem: Problem) -> bool:
        """Whether the budget is spent; then these cells end here, with that reason."""
        if self.now_s() < deadline_s:
            return False
        reason = f"the budget of {self.plan.preset.budget_s:.0f} s was spent before its turn: raise --budget"
        for entry in entries:
            self._write_all(entry, problem, Status.SKIPPED, reason)
        return True

    def _right(self, problem: Problem) -> list[Description]:
        """Return the implementations whose answers to this problem are right: nothing else is ever timed."""
        return [
            entry
            for entry in self.plan.askable(problem)
            if (seen := self.examined.get((entry.name, problem.key))) and seen.verdict.status is Status.PASSED
        ]

    def _write_all(
        self, entry: Description, problem: Problem, status: Status, reason: str, labels: Iterable[str] = ()
    ) -> None:
        """Write the same ending for every phase of a pair."""
        for phase in self.plan.phases:
            fields = cell_fields(entry, problem, phase, status, reason, labels)
            self.journal.cell(fields)
            self.watch.cell(fields)

    def _crew(self, entry: Description, builds: Path) -> Crew:
        core = environment.measuring_core() if self.plan.pinned else None
        settings = self._environment(entry, builds, warm=self.plan.allocator == "warm")
        return Crew(entry, self.plan.preset.workers, settings, self.plan.threads, core)

    def _environment(self, entry: Description, builds: Path, *, warm: bool) -> dict[str, str]:
        """Return a worker's settings: its heap, and a build cache that no other implementation shares."""
        cache = builds / entry.name
        cache.mkdir(exist_ok=True)
        heap = WARM_HEAP if warm else {}
        return {**heap, **build_caches(cache), "OMP_NUM_THREADS": str(self.plan.threads)}

    def _subgroups(self, right: Mapping[str, Sequence[Description]]) -> list[list[Description]]:
        """Split the implementations so that all workers of a subgroup fit into half of the available memory."""
        entries = [entry for entry in self.plan.implementations if any(entry in group for group in right.values())]
        one = self.plan.preset.workers * (WORKER_BYTES + self.plan.largest_bytes)
        size = max(1, int(environment.available_bytes() / 2 // one))
        return [entries[start : start + size] for start in range(0, len(entries), size)]


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


def verdict_fields(entry: Description, problem: Problem, examined: Examined, seed: int) -> dict[str, Any]:
    """Return the journal's line of one verdict."""
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
        "failures": [{"quantity": failure.quantity, "message": failure.message} for failure in verdict.failures],
        "setup_s": examined.setup_s,
        "reproduce": reproduce(entry, problem, seed),
    }
