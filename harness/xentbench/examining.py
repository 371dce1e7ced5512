"""The judge's driver for workers: pose one problem to one worker, judge what it answered, measure its bytes."""

from __future__ import annotations

import dataclasses
import os
import shlex
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xentbench import inputs, oracle, parity
from xentbench.spec import Description, Failure, Phase, Problem, Status, Verdict
from xentbench.workers import Worker, WorkerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xentbench.inputs import Inputs, Recorded
    from xentbench.oracle import Truth
    from xentbench.worker.wire import Tensors


REFUSING: Final = ("TypeError", "ValueError", "IndexError", "RuntimeError", "AssertionError")
"""Exceptions by which functions refuse arguments of a form that they were not written for; no other is a refusal."""


@dataclass(frozen=True, slots=True)
class Question:
    """A problem with its tensors and the truth about it; the truth never leaves the parent."""

    problem: Problem
    inputs: Inputs
    truth: Truth
    seed: int

    def tensors(self) -> Tensors:
        """Return what is sent to a worker: values only, the layouts are made there."""
        named = {field_.name: getattr(self.inputs, field_.name) for field_ in dataclasses.fields(self.inputs)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


class Questions:
    """Makes each question once, whoever asks first; all implementations get the same one."""

    def __init__(self, seed: int, recorded: Mapping[str, Recorded]) -> None:
        self.seed, self._recorded = seed, recorded
        self._made: dict[str, Question] = {}
        self._lock = threading.Lock()

    def __call__(self, problem: Problem) -> Question:
        """Return the question of this problem, made now or before."""
        with self._lock:
            if problem.key not in self._made:
                given = inputs.make(problem, self.seed, self._recorded.get(problem.key))
                self._made[problem.key] = Question(problem, given, oracle.solve(problem, given), self.seed)
            return self._made[problem.key]

    def forget(self, problem: Problem) -> None:
        """Let go of a question that nobody will ask again."""
        self._made.pop(problem.key, None)


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of one problem: the verdict, the cold set-up time and the peak bytes of each phase."""

    verdict: Verdict
    setup_s: float | None = None
    peak_bytes: Mapping[Phase, int] = field(default_factory=dict)
    lost: bool = False


def examine(
    worker: Worker, declared: Description, question: Question, phases: Sequence[Phase], *, measure_memory: bool
) -> Examined:
    """Set the problem up in the worker, judge what it answers and, where that is right, weigh each phase.

    Answering calls in every grad mode, so set-up calls every phase where it calls any: an entrant that compiles must
    have compiled them all by then. Without phases nothing is called, as parity does for those that do not compile.
    """
    setup_s = None
    record = {"problem": question.problem.key, "seed": question.seed, "phases": list(Phase) if phases else []}
    try:
        reply, _ = worker.ask("set-up", record, question.tensors())
        setup_s = float(reply["setup_s"])
        reply, answered = worker.ask("answer")
        named = {name: answered.get(name) for name in ("gradient", "target_gradient")}
        answers = inputs.Answers(
            loss=answered["loss"],
            loss_no_grad=answered["loss_no_grad"],
            loss_again=answered["loss_again"],
            changed=tuple(map(str, reply["changed"])),
            **named,
        )
        verdict = parity.judge(question.problem, question.truth, question.inputs, answers, declared)
        peaks = _weigh(worker, phases) if measure_memory and verdict.status is Status.PASSED else {}
    except WorkerError as error:
        return Examined(_not_answered(_offered(error, declared, question.problem)), setup_s, lost=error.lost)
    except (KeyError, TypeError, ValueError) as error:
        message = f"its answer is not understood: {type(error).__name__} {error}"
        return Examined(_not_answered(WorkerError(Status.FORGED, message)), setup_s)
    return Examined(verdict, setup_s, peaks)


def _offered(error: WorkerError, declared: Description, problem: Problem) -> WorkerError:
    """Take an exception for a refusal where an implementation has no other way to say that it does not offer a form."""
    refusing = error.reason.partition(":")[0] in REFUSING
    if error.status is not Status.RAISED or declared.speaks or problem.is_plain or not refusing:
        return error
    return WorkerError(Status.UNSUPPORTED, f"does not offer this form of logits or target: {error.reason}")


def _weigh(worker: Worker, phases: Sequence[Phase]) -> dict[Phase, int]:
    return {phase: int(worker.ask("memory", {"phase": phase})[0]["peak_bytes"]) for phase in phases}


def _not_answered(error: WorkerError) -> Verdict:
    quantity = "dtype" if error.status is Status.WRONG_TYPE else "exception"
    failures = () if error.status is Status.UNSUPPORTED else (Failure(quantity, f"{error.status}: {error.reason}"),)
    return Verdict(error.status, failures=failures, reason=error.reason)


def reproduce(entry: Description, problem: Problem, seed: int) -> str:
    """Return the command line that asks this implementation this problem again, from the same folder."""
    place = spelled(entry.source.where)
    name = place if entry.source.kind == "object" else entry.name
    plugin = f" --plugin {shlex.quote(place)}" if entry.source.kind == "file" else ""
    return f"xentbench parity {shlex.quote(name)}{plugin} --problem {shlex.quote(problem.key)} --seed {seed}"


def spelled(where: str) -> str:
    """Return a file's place relative to the current folder; one outside of it by its name alone, to tell no folders."""
    if not os.path.isabs(where):  # noqa: PTH117 - may be package.module:NAME
        return where
    relative = os.path.relpath(where)
    return Path(where).name if relative.startswith("..") else relative
