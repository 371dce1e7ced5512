"""The judge's driver for workers: pose one problem to one worker, judge what it answered, measure its bytes."""

from __future__ import annotations

import copy
import dataclasses
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xentbench import inputs, leaks, parity, weighing
from xentbench.spec import Description, Failure, Implementation, Phase, Problem, Source, Status, Verdict, inert
from xentbench.worker import calls, compiled, serving
from xentbench.workers import Worker, WorkerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from xentbench.posing import Question
    from xentbench.weighing import Weighed
    from xentbench.worker.wire import Record, Tensors


REFUSING: Final = ("TypeError", "ValueError", "IndexError", "RuntimeError", "AssertionError")
"""Exceptions by which functions refuse arguments of a form that they were not written for; no other is a refusal."""
NO_FORM: Final = "does not offer this form of logits or target"
"""How a reason begins that is an exception, taken for a refusal."""

OPTIONAL: Final = (
    "gradient",
    "target_gradient",
    "second_loss",
    "second_gradient",
    "gradient_again",
    "hessian_product",
    "upstream_slope",
)
"""Tensors of `Answers` that may be missing."""


class WronglyAnsweredError(Exception):
    """The judge's verdict on a loss whose set-up failed."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of one problem: the verdict, the cold set-up time and what each phase costs in memory."""

    verdict: Verdict
    setup_s: float | None = None
    weighed: Mapping[Phase, Weighed] = field(default_factory=dict)
    lost: bool = False


def examine(
    worker: Worker, declared: Description, question: Question, phases: Sequence[Phase], *, measure_memory: bool
) -> Examined:
    """Set the problem up in the worker, judge what it answers and, where that is right, weigh each phase.

    Answering calls in every grad mode, so set-up calls every phase where it calls any: an entrant that compiles must
    have compiled them all by then. Without phases nothing is called, as parity does for those that do not compile.
    """
    setup_s = None
    called = _called(question.problem) if phases else []
    record = {"problem": question.problem.key, "phases": called}
    try:
        setup_s = _set_up(worker, declared, question, record)
        reply, answered = worker.ask("answer")
        verdict = parity.judge(question, _answers(reply, answered), declared)
        is_weighed = measure_memory and verdict.status is Status.PASSED
        if is_weighed and (reason := leaks.look(worker, question.problem)):
            verdict = dataclasses.replace(
                verdict, status=Status.LEAKING, failures=(Failure("leak", reason),), reason=reason
            )
        weighed = weighing.weigh(worker, question.problem, phases) if is_weighed else {}
        worker.check_silence("answer")
    except WronglyAnsweredError as found:
        return Examined(found.verdict, setup_s)
    except WorkerError as error:
        return Examined(_without_answer(error, declared, question.problem), setup_s, lost=error.lost)
    except (KeyError, TypeError, ValueError) as error:
        message = f"its answer is not understood: {type(error).__name__} {error}"
        return Examined(_not_answered(WorkerError(Status.FORGED, message)), setup_s)
    return Examined(verdict, setup_s, weighed)


def _set_up(worker: Worker, declared: Description, question: Question, record: Record) -> float:
    """Return how long the set-up took, in seconds.

    Raises:
        WorkerError: it failed. Where a call of it raised, the judge is heard first: what he finds wrong says more.
        WronglyAnsweredError: what he found.
    """
    try:
        reply, _ = worker.ask("set-up", record, question.tensors())
    except WorkerError as error:
        unclear = error.status in (Status.RAISED, Status.UNSUPPORTED)
        if error.lost or not unclear or not record["phases"] or declared.compiles:
            raise
        verdict = _uncalled(worker, declared, question, record)
        if verdict is not None and verdict.failures:
            raise WronglyAnsweredError(verdict) from None
        raise
    return float(reply["setup_s"])


def _uncalled(worker: Worker, declared: Description, question: Question, record: Record) -> Verdict | None:
    """Judge what is answered after a set-up that calls nothing, or return None where that fails too."""
    try:
        worker.ask("set-up", {**record, "phases": []}, question.tensors())
        reply, answered = worker.ask("answer")
    except WorkerError as error:
        if error.lost or error.status is not Status.RAISED:
            raise
        return None
    return parity.judge(question, _answers(reply, answered), declared)


def _called(problem: Problem) -> list[Phase]:
    """Return the phases that between them have every graph compiled that the problem's grad modes need."""
    few = {"grad": [Phase.FORWARD_BACKWARD], "no-grad": [Phase.FORWARD_NO_GRAD]}
    return few.get(problem.mode, list(Phase))


def examine_here(entry: Implementation, declared: Description, question: Question) -> Verdict:
    """Judge an implementation in this process, which promises no isolation: what it breaks stays broken.

    Args:
        entry: the implementation itself.
        declared: what is known of it, as a worker would have told.
        question: its tensors are copied before anybody may change them.
    """
    problem, given = question.problem, copy.deepcopy(question.inputs)
    try:
        if reason := serving.refusal(entry, problem):
            return Verdict(Status.UNSUPPORTED, reason=reason)
        answers = calls.answer(_bound_here(entry, declared, problem, given.weight), problem, given)
        if declared.compiles:
            compiled.check_set_up(must_compile=True)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an implementation may raise anything
        told = serving.failure(error, "answer")
        return _without_answer(WorkerError(told["status"], told["reason"]), declared, problem)
    return parity.judge(question, answers, declared)


def _bound_here(
    entry: Implementation, declared: Description, problem: Problem, weight: torch.Tensor | None
) -> calls.Loss:
    """Return the loss bound to this problem, and under `torch.compile` where that is asked for."""
    if declared.compiles:
        compiled.reset()
    bound = calls.bind(entry, problem, weight)
    return compiled.wrap(bound) if declared.wrapped else bound


def _answers(reply: Record, answered: Tensors) -> inputs.Answers:
    """Return what a worker answered; raises KeyError, TypeError or ValueError where it is not understood."""
    return inputs.Answers(
        loss=answered["loss"],
        loss_no_grad=answered["loss_no_grad"],
        loss_again=answered["loss_again"],
        changed=tuple(inert(str(what), 100) for what in reply["changed"]),
        shared=tuple(inert(str(what), 100) for what in reply["shared"]),
        notes=tuple(note for note in parity.NOTES if note in reply["notes"]),
        **{name: answered.get(name) for name in OPTIONAL},
    )


def _without_answer(error: WorkerError, declared: Description, problem: Problem) -> Verdict:
    """Say what an exception means: what was asked for, a refusal, or a failure.

    Where an implementation has no other way to say that it does not offer a form, it is taken for a refusal.
    """
    raised = error.status is Status.RAISED
    if raised and (problem.must_raise or problem.may_raise):
        return Verdict(Status.PASSED, checks=1)
    refusing = error.reason.partition(":")[0] in REFUSING
    if raised and refusing and not declared.speaks and not problem.is_plain:
        reason = f"{NO_FORM}: {error.reason}"
        return _not_answered(WorkerError(Status.UNSUPPORTED, reason))
    return _not_answered(error)


def _not_answered(error: WorkerError) -> Verdict:
    quantity = "dtype" if error.status is Status.WRONG_TYPE else "exception"
    failures = () if error.status is Status.UNSUPPORTED else (Failure(quantity, f"{error.status}: {error.reason}"),)
    return Verdict(error.status, failures=failures, reason=error.reason)


def reproduce(entry: Description, problem: Problem, seed: int | None = None) -> str:
    """Return the command line that asks this implementation this problem again, from the same folder.

    The seed stands last: a journal leaves it out while it is a secret, and its reader adds it.
    """
    return command(entry, f"--problem {shlex.quote(problem.key)}", seed)


def command(entry: Description, asked: str, seed: int | None = None) -> str:
    """Return the command line of `parity` for this implementation and what else it is asked; the seed stands last."""
    place = reached(entry.source)
    name = place if entry.source.kind == "object" else entry.name
    plugin = f" --plugin {shlex.quote(place)}" if entry.source.kind == "file" else ""
    compiled = " --compile" if entry.wrapped else ""
    seeded = "" if seed is None else f" --seed {seed}"
    return f"xentbench parity {shlex.quote(name)}{plugin} {asked}{compiled}{seeded}"


def spelled(where: str) -> str:
    """Return a file's place relative to the current folder; one outside of it by its name alone, to tell no folders."""
    if not os.path.isabs(where):  # noqa: PTH117 - may be package.module:NAME
        return where
    relative = os.path.relpath(where)
    return Path(where).name if relative.startswith("..") else relative


def reached(source: Source) -> str:
    """Return a source's place as it is found from the current folder, `../` and all.

    A file that shares no folder with the current one is spelled by its name alone, since a path through the root would
    tell every folder of this machine; so is one in a checkout, which is removed.
    """
    where, here = source.where, os.getcwd()  # noqa: PTH109 - text, as what it is compared with
    if not os.path.isabs(where) or source.revision:  # noqa: PTH117 - may be package.module:NAME
        return spelled(where)
    return spelled(where) if os.path.commonpath([where, here]) == os.sep else os.path.relpath(where)
