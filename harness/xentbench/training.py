"""Trainings: a small model trained with each implementation's loss, and held against the baseline's training."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from xentbench import tolerances, trained
from xentbench.examining import command
from xentbench.spec import Description, Status, inert
from xentbench.threads import one_thread
from xentbench.trained import WorkloadUnavailableError
from xentbench.worker import interpreting
from xentbench.worker.training import Progress, train
from xentbench.workers import Worker, WorkerError, load, stoppable, template

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from xentbench.models import Lesson
    from xentbench.tolerances import Tolerance
    from xentbench.trained import Course
    from xentbench.watching import Watch
    from xentbench.worker.wire import Record, Tensors

WORKLOADS: Final = ("digits", "text")
PARALLEL: Final = 2
"""Nothing is timed, so two may be busy at once."""
BUDGET_S: Final = 30.0
"""For one training, which takes a second or two: who is slower is stopped, and not judged."""
DIGITS: Final = 9
"""Decimals of a loss that are kept: a thousandth of what is allowed."""

Key = tuple[str, str]
"""(implementation, workload)."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which everybody trains.

    Attributes:
        settings: environment of an implementation's worker.
        flush_denormal: whether numbers below the normal range count as zero.
        done: what need not be trained again.
        barred: implementation -> why it is not trained.
        late: why no training is begun any more, '' while one may be.
    """

    settings: Callable[[Description], Mapping[str, str]] = lambda _: {}
    flush_denormal: bool = False
    done: frozenset[Key] = frozenset()
    barred: Mapping[str, str] = field(default_factory=dict)
    late: Callable[[], str] = lambda: ""


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of one implementation's training; the fields carry the names of `columns.TRAINING_COLUMNS`."""

    implementation: str
    workload: str
    status: Status
    reason: str = ""
    steps: int = 0
    losses: tuple[float | None, ...] | None = None
    losses_low: tuple[float, ...] | None = None
    losses_high: tuple[float, ...] | None = None
    curve_ratio: float | None = None
    weights_ratio: float | None = None
    held_out_loss: float | None = None
    held_out_accuracy: float | None = None
    wall_s: float | None = None
    reproduce: str = ""

    def record(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a worker sent back of one lesson, or how it failed."""

    wall_s: float
    progress: Progress | None = None
    error: WorkerError | None = None


def reproduce(entry: Description, seed: int | None = None) -> str:
    """Return the command line that trains with this implementation again, after the short panel."""
    return command(entry, "--train --grid quick", seed)


def train_all(
    entries: Sequence[Description],
    seed: int,
    watch: Watch,
    write: Callable[[Trained], None],
    terms: Terms | None = None,
) -> None:
    """Train with every implementation that can be asked, two at a time; write what came of each once it has ended.

    Args:
        entries: implementations; those that cannot be asked have no training.
        seed: of initial weights and batches, the same for everybody.
        watch: who looks on.
        write: where it goes, called from this thread.
        terms: under which everybody trains.
    """
    terms = terms or Terms()
    able = [entry for entry in entries if entry.status is Status.PASSED]
    due = {entry.name: [name for name in WORKLOADS if (entry.name, name) not in terms.done] for entry in able}
    if not any(due.values()):
        return
    watch.stage("training", sum(map(len, due.values())))

    def tell(one: Trained) -> None:
        write(one)
        watch.step(f"{one.implementation} on {one.workload}: {one.status}")

    late = terms.late()
    courses, missing = _courses([name for name in WORKLOADS if any(name in names for names in due.values())], seed)
    asked: list[tuple[Description, list[str]]] = []
    for entry in able:
        barred = interpreting.NOT_TRAINED if entry.interpreted else terms.barred.get(entry.name) or late
        reasons = {name: barred or missing.get(name, "") for name in due[entry.name]}
        for name, reason in reasons.items():
            if reason:
                tell(Trained(entry.name, name, Status.SKIPPED, reason, reproduce=reproduce(entry)))
        if names := [name for name, reason in reasons.items() if not reason]:
            asked.append((entry, names))
    with one_thread(), stoppable(PARALLEL) as pool:
        tolerated = _tolerances(pool, courses) if asked else {}
        lessons = {name: course.lesson for name, course in courses.items()}
        jobs = [pool.submit(attend, entry, [lessons[name] for name in names], terms) for entry, names in asked]
        for (entry, names), job in zip(asked, jobs, strict=True):
            for name, attempt in zip(names, job.result(), strict=True):
                tell(judge(entry, tolerated[name], attempt))


def _courses(names: Sequence[str], seed: int) -> tuple[dict[str, Course], dict[str, str]]:
    """Return the courses, and of those that cannot be had here the reason."""
    courses, missing = {}, {}
    for name in names:
        try:
            courses[name] = trained.course(name, seed)
        except WorkloadUnavailableError as error:
            missing[name] = str(error)
    return courses, missing


def _tolerances(pool: Executor, courses: Mapping[str, Course]) -> dict[str, Tolerance]:
    """Train as the baseline does, and as others may."""
    own = {name: pool.submit(tolerances.baseline, course.lesson) for name, course in courses.items()}
    others = {
        name: {
            member: pool.submit(train, course.lesson, loss)
            for member, loss in tolerances.members(course.lesson, own[name].result()).items()
        }
        for name, course in courses.items()
    }
    return {
        name: tolerances.tolerance(course, own[name].result(), {m: job.result() for m, job in others[name].items()})
        for name, course in courses.items()
    }


def attend(entry: Description, lessons: Sequence[Lesson], terms: Terms) -> list[Attempt]:
    """Have one implementation's worker train by each lesson; a lost worker is replaced, unless it was lost to time."""
    attempts: list[Attempt] = []
    worker: Worker | None = None
    with contextlib.ExitStack() as stack:
        for lesson in lessons:
            start_s, last = time.monotonic(), attempts[-1].error if attempts else None
            if last is not None and last.status is Status.TIMED_OUT:
                again = WorkerError(last.status, f"not trained again after: {last.reason}")
                attempts.append(Attempt(0.0, error=again))
                continue
            try:
                if why := terms.late():
                    raise WorkerError(Status.SKIPPED, why)  # noqa: TRY301 - ends as all that is not asked
                worker = worker or stack.enter_context(_loaded(entry, terms))
                progress, error = _ask(worker, lesson), None
            except WorkerError as failed:
                progress, error, worker = None, failed, None if failed.lost else worker
            attempts.append(Attempt(time.monotonic() - start_s, progress, error))
    if worker is not None and worker.ending and worker.ending[0] is Status.FORGED:
        forged = WorkerError(*worker.ending)
        return [dataclasses.replace(attempt, progress=None, error=attempt.error or forged) for attempt in attempts]
    return attempts


def _loaded(entry: Description, terms: Terms) -> Worker:
    settings = terms.settings(entry)
    worker = Worker(settings, template=template(settings, compiles=entry.compiles))
    with contextlib.ExitStack() as undo:
        undo.callback(worker.close)
        load(worker, entry, threads=1, flush_denormal=terms.flush_denormal)
        undo.pop_all()
    return worker


def _ask(worker: Worker, lesson: Lesson) -> Progress:
    """Return what came of a training; raises WorkerError where nothing did, or nothing that is understood."""
    weights = {f"weight{number}": weight for number, weight in enumerate(lesson.weights)}
    told = {name: getattr(lesson, name) for name in ("name", "rate", "momentum")}
    request: Record = {"problem": tolerances.problem_of(lesson).key, "lesson": told, "budget_s": BUDGET_S}
    reply, answered = worker.ask("train", request, {**weights, "inputs": lesson.inputs, "target": lesson.target})
    worker.check_silence("train")
    try:
        return _read(lesson, reply, answered)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"its training is not understood: {type(error).__name__} {inert(str(error), 200)}"
        raise WorkerError(Status.FORGED, reason) from None


def _read(lesson: Lesson, reply: Record, answered: Tensors) -> Progress:
    weights = tuple(answered[f"weight{number}"] for number in range(len(lesson.weights)))
    losses, reported = answered["losses"], answered["reported"]
    fits = losses.shape == reported.shape == (len(losses),) and len(losses) <= lesson.steps
    fits = fits and losses.dtype == reported.dtype == torch.float64
    pairs = zip(weights, lesson.weights, strict=True)
    if not fits or any(one.shape != own.shape or one.dtype != own.dtype for one, own in pairs):
        msg = "curve or weights of another form"
        raise ValueError(msg)
    return Progress(losses, reported, weights, tuple(inert(str(what), 100) for what in reply["changed"]))


def judge(entry: Description, tolerance: Tolerance, attempt: Attempt) -> Trained:
    """Return what is to be said of one attempt: how it ended, and how far it is from the baseline's training."""
    name, progress = tolerance.course.lesson.name, attempt.progress
    if progress is None:
        status, reason = (attempt.error.status, attempt.error.reason) if attempt.error else (Status.SKIPPED, "")
        # Who was not begun with took no time: the microseconds until then are nobody's.
        wall_s = None if status is Status.SKIPPED else attempt.wall_s or None
        return Trained(entry.name, name, status, reason, wall_s=wall_s, reproduce=reproduce(entry))
    status, reason = _ending(entry, tolerance, progress)
    made = len(progress.losses)
    low, high = (tuple(end[:made].round(DIGITS).tolist()) for end in tolerance.band)
    common: dict[str, Any] = {
        "steps": made,
        "losses": tuple(_finite(loss) for loss in progress.losses.tolist()),
        "losses_low": low,
        "losses_high": high,
        "wall_s": attempt.wall_s,
        "reproduce": reproduce(entry),
    }
    if made < tolerance.course.lesson.steps:
        return Trained(entry.name, name, status, reason, **common)
    losses, weights = tolerance.ratios(progress)
    loss, accuracy = tolerance.held_out(progress.weights)
    return Trained(
        entry.name,
        name,
        status,
        reason,
        curve_ratio=_finite(float(losses.max())),
        weights_ratio=_finite(float(weights.max())),
        held_out_loss=_finite(loss),
        held_out_accuracy=accuracy,
        **common,
    )


def _ending(entry: Description, tolerance: Tolerance, progress: Progress) -> tuple[Status, str]:
    """Return the status of a training that came back, and the sentence that qualifies it."""
    made, steps = len(progress.losses), tolerance.course.lesson.steps
    allowed = entry.work.overwrites_input
    if changed := [what for what in progress.changed if not (allowed and what.startswith("logits"))]:
        return Status.MUTATES_INPUT, f"inputs were changed: {', '.join(changed)}; expected them untouched"
    if made < steps:
        return (
            Status.SKIPPED,
            f"step {made} of {steps} was reached within {BUDGET_S:.0f} s: too slow to be trained with",
        )
    losses, weights = tolerance.ratios(progress)
    if losses.max() > 1.0:
        step = int(np.argmax(losses > 1.0))
        got, low, high = float(progress.losses[step]), *(float(end[step]) for end in tolerance.band)
        worst = (
            f"; {losses.max():.3g} times as far off as rounding explains, at its worst"
            if losses.max() < math.inf
            else ""
        )
        return (
            Status.TRAINS_DIFFERENTLY,
            f"at step {step} the loss is {got:.7g}, expected {low:.7g} to {high:.7g}{worst}",
        )
    if weights.max() > 1.0:
        told = f"final weights are {weights.max():.3g} times as far from the baseline's as rounding explains"
        return Status.TRAINS_DIFFERENTLY, told
    misreports = tolerance.misreports(progress)
    if misreports.max() > 1.0:
        step = int(np.argmax(misreports > 1.0))
        said, true = float(progress.reported[step]), float(progress.losses[step])
        return Status.WRONG_VALUE, f"at step {step} the loss that it reports is {said:.7g}, expected {true:.7g}"
    return Status.PASSED, ""


def _finite(number: float) -> float | None:
    return round(number, DIGITS) if math.isfinite(number) else None
