"""Plan -> run -> journal: judge every cell, then time those that are right, problem by problem.

Cells are written as they end; a run that is stopped keeps every finished one. A group, all cells of one problem and
phase, is timed together: one with a cell missing is timed again as a whole, whatever ended in anything else than a time
excepted.
"""

from __future__ import annotations

import contextlib
import functools
import random
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xentbench import devices, environment, machine, training
from xentbench.accuracies import Accuracies
from xentbench.counterexamples import Finder, Shrunk
from xentbench.crews import Crew, Examinee, Purse
from xentbench.devices import StoppedError
from xentbench.due import Due, cell_fields, declared, is_slow_at_first, split, verdict_fields
from xentbench.examining import Examined
from xentbench.files import folder_name
from xentbench.limits import Survey
from xentbench.measured import Regime
from xentbench.planning import cell_limit_s, weight
from xentbench.posing import Questions
from xentbench.results import SPENT
from xentbench.spec import Description, Phase, Problem, Status, Verdict
from xentbench.squads import PARALLEL, Squad
from xentbench.timing import Budget
from xentbench.training import Terms
from xentbench.worker import interpreting
from xentbench.workers import WARM_HEAP, build_caches, stoppable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from xentbench.journal import Journal
    from xentbench.planning import Plan
    from xentbench.squads import Timed
    from xentbench.training import Trained
    from xentbench.watching import Watch

    Right = Mapping[str, Sequence[Description]]

ACCURACY_SHARE: Final = 0.25
"""Of the time that is left after judging: what is asked for accuracy alone may take so much of it."""
TRAINING_SHARE: Final = 0.25
"""Of the time that is left after that: so much may training take."""
TRAINING_LEAST_S: Final = 15.0
"""A share of less is not begun with: what is right is found by ten seconds of training, before anybody is judged."""
REPORT_S: Final = 15.0
"""Kept back from the budget for the report."""
WORKER_BYTES: Final = 180 * 2**20
"""Memory of a worker that holds nothing but torch, its share of what all map counted in (proportional set size)."""


@dataclass(slots=True)
class Sweep:
    """One run in progress.

    Attributes:
        plan: what is asked of whom.
        journal: where finished cells go.
        watch: who looks on.
        now_s: the parent's clock.
        survey: what the bounds beside every time rest on.
        examined: what the judge found, by implementation and problem key.
        finished: how cells ended in earlier sittings of this run.
        known: what earlier sittings found of accuracy alone.
        trained: what earlier sittings trained.
    """

    plan: Plan
    journal: Journal
    watch: Watch
    now_s: Callable[[], float] = time.monotonic
    survey: Survey = field(default_factory=lambda: Survey(machine.measure))
    examined: dict[tuple[str, str], Examined] = field(default_factory=dict)
    finished: Mapping[tuple[str, str, Phase], Status] = field(default_factory=dict)
    known: frozenset[tuple[str, str]] = frozenset()
    trained: frozenset[tuple[str, str]] = frozenset()
    _due: Due = field(init=False)
    _telling: threading.Lock = field(default_factory=threading.Lock)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._due = Due(self.plan, self.finished)

    def run(self) -> None:
        """Write the cells that nobody is asked, judge the others, time those that are right."""
        deadline_s = self.now_s() + self.plan.preset.budget_s - REPORT_S
        for problem in self.plan.problems:
            for entry in self.plan.implementations:
                if why := self.plan.why_not(entry, problem):
                    self._write_all(entry, problem, *why, phases=self._due.missing(entry, problem))
        with tempfile.TemporaryDirectory(prefix="xentbench-build-") as builds:
            self._judge(Path(builds), deadline_s)
            self._train(Path(builds), deadline_s)
            self._time(Path(builds), deadline_s)

    def _judge(self, builds: Path, deadline_s: float) -> None:
        """Have every askable pair answered, judged and weighed, problem by problem: one truth is held at a time."""
        questions = Questions(self.plan.seed, self.plan.recorded)
        steps = sum(len(self._due.entries(problem)) for problem in self.plan.asked)
        self.watch.stage("judging", steps)
        started_s = self.now_s()
        with stoppable(PARALLEL) as pool, contextlib.ExitStack() as stack:
            examinees = {
                entry.name: stack.enter_context(self._examinee(entry, builds)) for entry in self.plan.implementations
            }
            finders = {name: Finder(examinee, questions) for name, examinee in examinees.items()}
            for problem in self.plan.asked:
                entries = self._due.entries(problem)
                if not entries or self._is_late(deadline_s, entries, problem):
                    continue
                question = questions(problem)
                self.survey.count(problem, question.inputs)
                jobs = [
                    pool.submit(examinees[e.name].examine, question, self._due.groups(problem), measure_memory=True)
                    for e in entries
                ]
                seen = [self._seen(entry, problem, job.result()) for entry, job in zip(entries, jobs, strict=True)]
                found = list(pool.map(lambda e, x, p=problem: finders[e.name].find({p: x.verdict}), entries, seen))
                # Written when all have answered: a failure's message tells the right answer.
                for entry, examined, shrunk in zip(entries, seen, found, strict=True):
                    self._judged(entry, problem, examined, shrunk)
                questions.forget(problem)
                rate_s = (self.now_s() - started_s) / max(1, len(self.examined))
                left_s = rate_s * (steps - len(self.examined)) + self.plan.measure_estimate_s()
                self.watch.left(min(left_s, deadline_s - self.now_s()) + REPORT_S)
            graded = Accuracies(self.plan, self.journal, self.watch, self.known)
            until_s = self.now_s() + ACCURACY_SHARE * (deadline_s - self.now_s())
            graded.ask(examinees, finders, questions, pool, lambda: self.now_s() >= until_s)
        for examinee in examinees.values():
            if examinee.forged:
                self._distrust(examinee.entry, Status.FORGED, examinee.forged)

    def _distrust(self, entry: Description, status: Status, reason: str) -> None:
        """End the cells of one that forged a record or changed what it must leave alone: nothing of it is believed."""
        for problem in self.plan.asked:
            seen = self.examined.get((entry.name, problem.key))
            if seen and seen.verdict.status is Status.PASSED:
                self.examined[entry.name, problem.key] = Examined(Verdict(status, reason=reason))
                self._write_all(entry, problem, status, reason, phases=self.plan.phases)

    def _seen(self, entry: Description, problem: Problem, examined: Examined) -> Examined:
        self.examined[entry.name, problem.key] = examined
        self.watch.step(f"{entry.name} at {problem.label}: {examined.verdict.status}")
        return examined

    def _judged(self, entry: Description, problem: Problem, examined: Examined, shrunk: Shrunk) -> None:
        verdict = examined.verdict
        self.journal.verdict(verdict_fields(entry, problem, examined, shrunk))
        if verdict.status is not Status.PASSED:  # in any sitting: no time of it stands then
            self._write_all(entry, problem, verdict.status, verdict.reason, declared(examined), phases=self.plan.phases)
        elif entry.interpreted:
            labels, due = verdict.labels, self._due.missing(entry, problem)
            self._write_all(entry, problem, Status.SKIPPED, interpreting.NEVER_TIMED, labels, phases=due)

    def _train(self, builds: Path, deadline_s: float) -> None:
        """Train with the loss of everybody who answered anything right, or was not asked in this sitting."""
        if not self.plan.trains:
            return
        ends = {
            name: [x.verdict.status for (n, _), x in self.examined.items() if n == name] for name, _ in self.examined
        }
        entries = {entry.name: entry for entry in self.plan.implementations}
        share_s = TRAINING_SHARE * (deadline_s - self.now_s())
        until_s = self.now_s() + share_s if share_s >= TRAINING_LEAST_S else self.now_s()
        spent = f"training may take {TRAINING_SHARE:.0%} of the time that is left, which was spent: raise --budget"

        def write(one: Trained) -> None:
            self.journal.training(one.record())
            if one.status is Status.FORGED:
                self._distrust(entries[one.implementation], one.status, f"while it trained: {one.reason}")

        terms = Terms(
            settings=lambda entry: self._environment(entry, builds, "cold"),
            flush_denormal=self.plan.conditions.flush_denormal,
            done=self.trained,
            barred={name: "no answer of it was right" for name, seen in ends.items() if Status.PASSED not in seen},
            late=lambda: spent if self.now_s() >= until_s else "",
        )
        training.train_all(self.plan.implementations, self.plan.seed, self.watch, write, terms)

    def _time(self, builds: Path, deadline_s: float) -> None:
        """Time the right ones: those of the processor first, then those of all other devices side by side."""
        right = {problem.key: self._right(problem) for problem in self.plan.asked}
        todo = [problem for problem in self.plan.asked if right[problem.key]]
        self.watch.stage(
            "timing", sum(len(self._due.phases(e, problem)) for problem in todo for e in right[problem.key])
        )
        others = devices.apart(todo)
        host = others.pop("cpu", [])
        total, rest = self._weight(host, right), max((self._weight(each, right) for each in others.values()), default=0)
        if host:
            spent_s = (deadline_s - self.now_s()) * rest / (total + rest)
            self._time_device(host, right, builds, deadline_s - spent_s, 0, 1)
        tasks = [
            functools.partial(self._time_device, each, right, builds, deadline_s, rank, len(others))
            for rank, each in enumerate(others.values())
        ]
        devices.side_by_side(tasks, environment.usable_cores(), self._stopped.set)

    def _weight(self, problems: Iterable[Problem], right: Right) -> int:
        """Return the weight of all worker-cells of these problems."""
        cells = (
            weight(problem) * len(self._due.phases(e, problem)) for problem in problems for e in right[problem.key]
        )
        return sum(cells) * self._duels

    def _time_device(
        self, todo: Sequence[Problem], right: Right, builds: Path, deadline_s: float, rank: int, beside: int
    ) -> None:
        """Time the problems of one device in random order, in subgroups that the memory allows.

        Args:
            todo: its problems.
            right: problem key -> who answered it right.
            builds: folder of the build caches.
            deadline_s: when measuring has to end.
            rank: of the device among those that are timed side by side.
            beside: how many these are.
        """
        order = random.Random(self.plan.seed + rank)  # noqa: S311 - replayable by the run's seed
        subgroups = self._subgroups({problem.key: right[problem.key] for problem in todo}, beside)
        purse = Purse(deadline_s, self._weight(todo, right), len(todo) * len(subgroups))
        for subgroup in subgroups:
            with self._squad(subgroup, builds, rank) as squad:
                squad.start()
                for problem in order.sample(todo, len(todo)):
                    ready = [
                        entry for entry in subgroup if entry in right[problem.key] and entry in self._right(problem)
                    ]
                    if ready and not self._is_late(deadline_s, ready, problem):
                        self._time_problem(squad, ready, problem, order, purse)

    def _time_problem(
        self,
        squad: Squad,
        entries: Sequence[Description],
        problem: Problem,
        order: random.Random,
        purse: Purse,
    ) -> None:
        """Set the problem up in every worker, then duel phase by phase."""
        start = self.now_s()
        self.survey.look(problem)
        ready = self._set_up(squad, entries, problem)
        purse.paid_overhead(self.now_s() - start)
        lost = sum(len(self._due.phases(entry, problem)) for entry in entries if entry not in ready)
        purse.spare(weight(problem) * lost * self._duels)
        one_thread = self.plan.conditions.threads == 1 and problem.device == "cpu"
        regime = Regime(self.plan.pool_bytes, one_thread, self.plan.conditions.allocator == "warm")
        for phase in self._due.groups(problem):
            ready = [entry for entry in ready if entry in self._right(problem)]
            due = [entry for entry in ready if phase in self._due.phases(entry, problem)]
            if not due:
                continue
            lanes = len(due) * self._duels
            start = self.now_s()
            share_s = purse.share_s(start, weight(problem), lanes, cell_limit_s(problem))
            budget = Budget(share_s, self.plan.preset.half_width)
            timed = squad.duel({entry.name for entry in due}, phase, budget, order, self.now_s, regime)
            for entry in due:
                self._timed(entry, problem, phase, timed[entry.name])
            purse.paid(weight(problem) * lanes, self.now_s() - start)
            self.watch.left(purse.left_s(self.now_s()) + REPORT_S)
        squad.free()

    def _set_up(self, squad: Squad, entries: Sequence[Description], problem: Problem) -> list[Description]:
        """Return who is ready; the cells of the others end here."""
        names, recorded = {entry.name for entry in entries}, self.plan.recorded.get(problem.key)
        errors = squad.set_up(names, problem.key, self.plan.seed, self._due.groups(problem), recorded)
        if squad.inputs is not None:
            self.survey.count(problem, squad.inputs)
        for entry in entries:
            if error := errors.get(entry.name):
                due, reason = self._due.phases(entry, problem), f"set up for timing: {error.reason}"
                self._write_all(entry, problem, error.status, reason, phases=due)
                for phase in due:
                    self._step(f"{entry.name} at {problem.label}, {phase}: {error.status}")
        return [entry for entry in entries if entry.name not in errors]

    def _timed(
        self,
        entry: Description,
        problem: Problem,
        phase: Phase,
        timed: Timed,
    ) -> None:
        seen, threads, ahead = timed.measured, self.plan.conditions.threads, entry.work.gradient_in_forward
        bounds = self.survey.limit(problem, phase, threads=threads, gradient_in_forward=ahead)
        examined = self.examined[entry.name, problem.key]
        weighed = examined.weighed.get(phase)
        labels = [*examined.verdict.labels, *(weighed.labels if weighed else ())]
        labels += ["below-floor"] if seen.latency_s is not None and seen.latency_s < bounds.floor_s else []
        labels += [label for label in seen.labels if label not in labels]
        labels += ["gradient-in-forward"] if ahead else []
        labels += ["overwrites-input"] if entry.work.overwrites_input else []
        labels += ["slow-first-call"] if is_slow_at_first(examined.setup_s, seen.latency_s) else []
        fields = {
            **cell_fields(entry, problem, phase, seen.status, seen.reason, labels),
            **timed.fields(),
            **split(entry, phase, seen),
            "grade": examined.verdict.grade,
            **(weighed.fields() if weighed else {}),
            **bounds.fields(seen.latency_s),
            "setup_s": examined.setup_s,
        }
        raw = {
            f"bursts_{name}": [[getattr(burst, name).tolist() for burst in lane.bursts] for lane in timed.lanes]
            for name in ("wall_ns", "busy_ns")
        }
        self._write(fields, raw)
        self._step(f"{entry.name} at {problem.label}, {phase}")
        if seen.status in (Status.FORGED, Status.TAMPERED):
            self._distrust(entry, seen.status, f"at {problem.label}, {phase}: {seen.reason}")

    def _write(self, fields: Mapping[str, Any], raw: Mapping[str, Any] | None = None) -> None:
        """Write a finished cell; raises StoppedError where workers are being ended, whose word is no result."""
        with self._telling:
            if self._stopped.is_set():
                raise StoppedError
            self.journal.cell(fields, raw)
            self.watch.cell(fields)

    def _step(self, text: str) -> None:
        with self._telling:
            self.watch.step(text)

    def _is_late(self, deadline_s: float, entries: Sequence[Description], problem: Problem) -> bool:
        """Whether the budget is spent, but for what the report needs; then these cells end here, with that reason."""
        if self.now_s() < deadline_s:
            return False
        left = "less what its report needs, left no time for it: raise --budget"
        reason = f"{SPENT} {self.plan.preset.budget_s:.0f} s, {left}"
        for entry in entries:
            self._write_all(entry, problem, Status.SKIPPED, reason, phases=self._due.missing(entry, problem))
        return True

    def _right(self, problem: Problem) -> list[Description]:
        """Return the implementations whose answers to this problem are right: nothing else is ever timed."""
        return [
            entry
            for entry in self._due.entries(problem)
            if not entry.interpreted
            and (seen := self.examined.get((entry.name, problem.key)))
            and seen.verdict.status is Status.PASSED
        ]

    def _write_all(
        self,
        entry: Description,
        problem: Problem,
        status: Status,
        reason: str,
        labels: Iterable[str] = (),
        *,
        phases: Iterable[Phase],
    ) -> None:
        """Write the same ending for phases of a pair."""
        for phase in phases:
            self._write(cell_fields(entry, problem, phase, status, reason, labels))

    def _examinee(self, entry: Description, builds: Path) -> Examinee:
        return Examinee(entry, self._environment(entry, builds, "cold"), self.plan.conditions.flush_denormal)

    def _squad(self, entries: Sequence[Description], builds: Path, rank: int) -> Squad:
        beside = ["cold"] if self.plan.beside_cold else []
        regimes = [self.plan.conditions.allocator, *beside]
        return Squad({regime: [self._crew(entry, builds, regime, rank) for entry in entries] for regime in regimes})

    def _crew(self, entry: Description, builds: Path, allocator: str, rank: int) -> Crew:
        conditions = self.plan.conditions
        core = environment.measuring_core(rank) if conditions.pinned else None
        settings = self._environment(entry, builds, allocator)
        size, flush_denormal = self.plan.preset.workers, conditions.flush_denormal
        return Crew(entry, size, settings, conditions.threads, core, flush_denormal=flush_denormal)

    @property
    def _duels(self) -> int:
        """Worker-cells of one implementation at one problem and phase."""
        return self.plan.preset.workers * self.plan.duels

    def _environment(self, entry: Description, builds: Path, allocator: str) -> dict[str, str]:
        """Return a worker's settings: its heap, and a build cache that no other implementation shares."""
        cache = builds / folder_name(entry.name)
        cache.mkdir(exist_ok=True)
        heap = WARM_HEAP if allocator == "warm" else {}
        return {**heap, **build_caches(cache), "OMP_NUM_THREADS": str(self.plan.conditions.threads)}

    def _subgroups(self, right: Right, beside: int) -> list[list[Description]]:
        """Split the implementations so that all workers of a subgroup fit into half of the available memory.

        Each of the devices that are timed side by side has its share of that half.
        """
        entries = [entry for entry in self.plan.implementations if any(entry in group for group in right.values())]
        one = self._duels * (WORKER_BYTES + self.plan.largest_bytes)
        size = max(1, int(environment.available_bytes() / 2 / beside // one))
        return [entries[start : start + size] for start in range(0, len(entries), size)]
