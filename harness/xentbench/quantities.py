"""One quantity of an answer, held against its truth: what is wrong with it, and how accurate it is.

Each is held, in this order, against the shape, the dtype and the values of the truth (class of number first: finite,
inf, NaN). Values are right when rounding explains them (see `bounds`), and every failure names the worst element and
the mistake it looks like (see `diagnosis`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from xentbench import bounds, curvature, diagnosis, laws
from xentbench.elementwise import Compared, compare, dense_of, error_ulp, format_of, numbers_of
from xentbench.elementwise import failure as worst_failure
from xentbench.oracle import Values
from xentbench.rows import blocks, classes_last, float64, rows_at
from xentbench.spec import Failure, Grade, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from xentbench.inputs import Inputs
    from xentbench.oracle import Truth
    from xentbench.posing import Question
    from xentbench.rows import Block
    from xentbench.spec import Description, Problem

    Array = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

ANOTHER_DTYPE: Final = "another-dtype"
ANOTHER_CONVENTION: Final = "another-convention"
OVERWRITES_INPUT: Final = "overwrites-input"
DIAGNOSED_ELEMENTS: Final = 1 << 14
"""A diagnosis solves the problem many times over; mistakes that show up in larger problems only keep their numbers."""


@dataclass(frozen=True, slots=True)
class Case:
    """A question, and what the one who answers has declared."""

    question: Question
    declared: Description

    @property
    def problem(self) -> Problem:
        """What was asked."""
        return self.question.problem

    @property
    def truth(self) -> Truth:
        """The right answers."""
        return self.question.truth

    @property
    def inputs(self) -> Inputs:
        """The tensors of the question."""
        return self.question.inputs


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong; `rows` of `case` are those at fault, None where no declared deviation can explain it."""

    status: Status
    failure: Failure
    rows: Flags | None = None
    case: Case | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one compared brought."""

    findings: tuple[Finding, ...] = ()
    grade: Grade | None = None
    bound_ratio: float | None = None
    error_ulp: float | None = None
    labels: tuple[str, ...] = ()
    checks: int = 1


def loss(case: Case, tensor: torch.Tensor, name: str, quantity: str, varying: str = "") -> Outcome:
    """Compare a loss: shape, dtype, values.

    Args:
        case: the question.
        tensor: what came.
        name: what it is called in messages.
        quantity: under which failures are told.
        varying: end of the message where two identical calls differ; then nothing is guessed.
    """
    problem, truth = case.problem, case.truth
    contract, labels = _contract(case, tensor, name)
    numbers = numbers_of(tensor)
    if numbers is None or tuple(tensor.shape) != problem.loss_shape:
        return Outcome(contract, Grade.FAIL, labels=labels)
    low = None if truth.loss.low is None else truth.loss.low.reshape(-1)
    flat = Values(truth.loss.torch.reshape(-1), truth.loss.masked.reshape(-1), low)
    dtype = format_of(tensor)
    compared = compare(numbers.reshape(-1).numpy(), flat, bounds.loss_lines(problem, truth), dtype)
    findings = list(contract)
    if compared.wrong.any():
        looks_like = "" if varying else _diagnose(case, compared, dtype, "value")
        index = np.unravel_index(compared.worst, problem.loss_shape) if problem.loss_shape else ()
        failure = worst_failure(quantity, name, compared, index, looks_like)
        failure = dataclasses.replace(failure, message=failure.message + varying)
        rows = compared.wrong if problem.reduction == "none" else np.ones(problem.rows, dtype=bool)
        findings.append(Finding(Status.WRONG_VALUE, failure, rows, case))
    findings += _promise(case, compared.grade, name, "value")
    return Outcome(
        findings=tuple(findings),
        grade=compared.grade,
        bound_ratio=float(compared.ratio.max(initial=0.0)),
        error_ulp=error_ulp(compared, dtype),
        labels=(*labels, *((ANOTHER_CONVENTION,) if compared.other_convention else ())),
    )


def _contract(case: Case, tensor: torch.Tensor, name: str) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Hold the loss's shape and dtype against those of `F.cross_entropy`; return findings and labels."""
    problem, promised = case.problem, case.declared.work.result_dtype
    dtype = str(tensor.dtype).removeprefix("torch.")
    findings, labels = list[Finding](), tuple[str, ...]()
    if tuple(tensor.shape) != problem.loss_shape:
        message = (
            f"{name} has shape {tuple(tensor.shape)}, expected {problem.loss_shape} for reduction {problem.reduction}"
        )
        findings.append(Finding(Status.WRONG_VALUE, Failure("shape", message)))
    if dtype == promised != problem.dtype:
        labels = (ANOTHER_DTYPE,)
    elif dtype != problem.dtype:
        message = f"{name} has dtype {dtype}, expected {promised or problem.dtype} for logits of dtype {problem.dtype}"
        findings.append(Finding(Status.WRONG_TYPE, Failure("dtype", message)))
    return tuple(findings), labels


def gradient(case: Case, tensor: torch.Tensor | None, quantity: str, name: str = "") -> Outcome:
    """Compare a gradient block by block, so that temporaries do not grow with the number of rows."""
    problem, truth = case.problem, case.truth
    values = truth.gradient if quantity == "gradient" else truth.target_gradient
    name = name or ("gradient" if quantity == "gradient" else "gradient of the target")
    differentiated = "logits" if quantity == "gradient" else "target"
    assert values is not None
    if tensor is None:
        return _fault(
            Status.WRONG_GRADIENT,
            quantity,
            f"{name} is absent: autograd finds no path from the loss to the {differentiated}",
        )
    if tuple(tensor.shape) != problem.logits_shape:
        message = f"{name} has shape {tuple(tensor.shape)}, expected {problem.logits_shape}"
        return _fault(Status.WRONG_GRADIENT, "shape", message)
    numbers, dtype = dense_of(tensor), format_of(tensor)
    if numbers is None or dtype != problem.dtype:
        return _fault(Status.WRONG_TYPE, "dtype", f"{name} has dtype {tensor.dtype}, expected {problem.dtype}")
    lines = bounds.gradient_lines if quantity == "gradient" else bounds.target_gradient_lines
    rows, tally = _by_rows(problem, truth, values), _Tally(np.zeros(problem.rows, dtype=bool))
    for block in blocks(problem, case.inputs, places=truth.sample.places if truth.sample else None):
        torch_block = rows.torch[block.span]
        masked_block = torch_block if rows.masked is rows.torch else rows.masked[block.span]
        pair = Values(torch_block, masked_block, None if rows.low is None else rows.low[block.span])
        allowed = lines(problem, truth, block, pair.masked)
        got = float64(rows_at(numbers, problem, block.where))
        got = np.where(truth.open[block.where][:, None], torch_block, got)
        tally = tally.add(block, compare(got, pair, allowed, dtype))
    return _gradient_outcome(case, tally, quantity, name)


def _by_rows(problem: Problem, truth: Truth, values: Values) -> Values:
    """Return a gradient as `(rows, C)`, of a large problem those of the sample."""
    if truth.sample is not None:
        return values
    torch_rows, masked_rows, low_rows = (
        None if part is None else classes_last(torch.from_numpy(part), problem).numpy()
        for part in (values.torch, values.masked, values.low)
    )
    assert torch_rows is not None
    assert masked_rows is not None
    return Values(torch_rows, torch_rows if values.masked is values.torch else masked_rows, low_rows)


def laws_of(case: Case, tensor: torch.Tensor | None) -> Iterator[Outcome]:
    """Hold every row of a large gradient against what is known of it; odd shapes and dtypes are judged already."""
    numbers = None if tensor is None else dense_of(tensor)
    if numbers is None or tuple(numbers.shape) != case.problem.logits_shape:
        return
    if case.truth.sample is None or format_of(numbers) != case.problem.dtype:
        return
    for law in laws.held(case.problem, case.truth, numbers):
        row, findings = law.compared.worst, list[Finding]()
        if law.compared.wrong.any():
            place = _place(case.problem, row, int(law.classes[row])) if law.classes is not None else None
            index = place or np.unravel_index(row, case.problem.row_shape)
            failure = worst_failure("gradient", law.name, law.compared, index, "")
            rows: Flags = law.compared.wrong.reshape(-1)
            findings.append(Finding(Status.WRONG_GRADIENT, failure, rows, case))
        findings += _promise(case, law.grade, law.name, "gradient")
        yield Outcome(tuple(findings), law.grade, float(law.compared.ratio.max(initial=0.0)))


@dataclass(frozen=True, slots=True)
class _Tally:
    """What is kept of a gradient's blocks: all of the worst one, and of the others what the verdict needs."""

    rows_at_fault: Flags
    grade: Grade | None = None
    ratio: float = 0.0
    labels: tuple[str, ...] = ()
    blocks: int = 0
    worst: tuple[Block, Compared] | None = None

    def add(self, block: Block, compared: Compared) -> _Tally:
        self.rows_at_fault[block.where] = compared.wrong.any(axis=1)
        ratio = float(compared.ratio.max(initial=0.0))
        worse = compared.wrong.any() and (self.worst is None or ratio > self.ratio)
        return _Tally(
            self.rows_at_fault,
            grade=Grade.worst(grade for grade in (self.grade, compared.grade) if grade),
            ratio=max(self.ratio, ratio),
            labels=(ANOTHER_CONVENTION,) if compared.other_convention else self.labels,
            blocks=self.blocks + 1,
            worst=(block, compared) if worse else self.worst,
        )


def _gradient_outcome(case: Case, tally: _Tally, quantity: str, name: str) -> Outcome:
    problem, findings = case.problem, list[Finding]()
    if tally.worst is not None:
        block, compared = tally.worst
        looks_like = _diagnose(case, compared, problem.dtype, quantity) if tally.blocks == 1 else ""
        row, column = divmod(compared.worst, problem.num_classes)
        row = int(block.where.start + row if isinstance(block.where, slice) else block.where[row])
        failure = worst_failure(quantity, name, compared, _place(problem, row, column), looks_like)
        findings.append(Finding(Status.WRONG_GRADIENT, failure, tally.rows_at_fault, case))
    findings += _promise(case, tally.grade, name, quantity)
    return Outcome(tuple(findings), tally.grade, tally.ratio if tally.blocks else None, labels=tally.labels)


def mutation(case: Case, changed: tuple[str, ...]) -> Outcome:
    """Refuse changed inputs; logits that are overwritten by design are labelled."""
    allowed = case.declared.work.overwrites_input
    excused = [what for what in changed if allowed and what.startswith("logits")]
    refused = [what for what in changed if what not in excused]
    labels = (OVERWRITES_INPUT,) if excused else ()
    if not refused:
        return Outcome(labels=labels)
    message = f"inputs were changed: {', '.join(refused)}; expected them untouched"
    return Outcome((Finding(Status.MUTATES_INPUT, Failure("mutation", message)),), labels=labels)


def aliasing(shared: tuple[str, ...]) -> Outcome:
    """Refuse a loss that lies in memory of something else, and changes when that does."""
    if not shared:
        return Outcome(checks=0)
    message = f"the loss shares its memory with {' and '.join(shared)}; expected storage of its own"
    return Outcome((Finding(Status.ALIASED, Failure("aliasing", message)),))


def told_as(quantity: str, outcome: Outcome) -> Outcome:
    """Return the outcome with its failures told under another quantity; its grade counts, its errors do not."""
    findings = tuple(
        dataclasses.replace(finding, failure=dataclasses.replace(finding.failure, quantity=quantity))
        for finding in outcome.findings
    )
    return dataclasses.replace(outcome, findings=findings, error_ulp=None)


def second_derivative(case: Case, tensor: torch.Tensor, name: str) -> Outcome:
    """Compare a second derivative, with respect to the logits or to the upstream gradient, where it is asked."""
    problem, numbers = case.problem, numbers_of(tensor)
    of_logits = name.startswith("Hessian")
    shape = problem.logits_shape if of_logits else problem.loss_shape
    if numbers is None or tuple(tensor.shape) != shape:
        message = f"{name} has shape {tuple(tensor.shape)}, expected {shape}"
        return _fault(Status.WRONG_GRADIENT, "double-backward", message)
    expected, allowed = (curvature.product if of_logits else curvature.slope)(problem, case.inputs, case.truth)
    got = (classes_last(numbers, problem) if of_logits else numbers.reshape(-1)).numpy()
    got, expected = np.where(np.isnan(expected), 0.0, got), np.nan_to_num(expected, nan=0.0)
    compared = compare(got, Values(expected, expected), {Grade.H: allowed}, problem.dtype)
    if not compared.wrong.any():
        return Outcome()
    looks_like = "the second derivative is silently zero: refuse it (once_differentiable)" if not got.any() else ""
    place = _place(problem, *divmod(compared.worst, problem.num_classes)) if of_logits else ()
    if not of_logits and problem.loss_shape:
        place = np.unravel_index(compared.worst, problem.loss_shape)
    failure = worst_failure("double-backward", name, compared, place, looks_like)
    rows: Flags = np.any(compared.wrong, axis=1) if of_logits else np.ones(problem.rows, dtype=bool)
    return Outcome((Finding(Status.WRONG_GRADIENT, failure, rows, case),), Grade.FAIL)


def _place(problem: Problem, row: int, column: int) -> tuple[object, ...]:
    """Return the index into the logits of a class of a row."""
    place = np.unravel_index(row, problem.row_shape) if problem.row_shape else ()
    return (*place[:1], column, *place[1:])


def _fault(status: Status, quantity: str, message: str) -> Outcome:
    return Outcome((Finding(status, Failure(quantity, message)),), grade=Grade.FAIL)


def _promise(case: Case, grade: Grade | None, name: str, quantity: str) -> tuple[Finding, ...]:
    """Return a finding where the grade passes but is worse than the author promised."""
    promised = case.declared.min_grade
    if promised is None or grade is None or grade is Grade.FAIL or grade.rank <= promised.rank:
        return ()
    message = f"{name} has grade {grade}, but grade {promised} or better is promised"
    return (Finding(Status.IMPRECISE, Failure(quantity, message)),)


def _diagnose(case: Case, compared: Compared, dtype: str, quantity: str) -> str:
    if case.problem.elements > DIAGNOSED_ELEMENTS or case.truth.sample is not None:
        return ""
    return diagnosis.explain(
        diagnosis.Symptom(
            problem=case.problem,
            inputs=case.inputs,
            truth=case.truth,
            quantity=quantity,
            got=compared.got,
            expected=compared.expected,
            allowed=compared.allowed,
            wrong=compared.wrong,
            dtype=dtype,
        )
    )
