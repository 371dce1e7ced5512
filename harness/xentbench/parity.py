"""The judge: are an implementation's answers right? A pure function of the problem, the truth and the answers.

Each answer is held, in this order, against the shape, the dtype and the values of the truth (class of number first:
finite, inf, NaN); then come the gradients and whether the inputs were left alone. Values are right when rounding
explains them (see `bounds`), and every failure names the worst element and the mistake it looks like (see `diagnosis`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from xentbench import bounds, diagnosis
from xentbench.elementwise import Compared, compare, error_ulp, format_of, identical, numbers_of
from xentbench.elementwise import failure as worst_failure
from xentbench.oracle import Values
from xentbench.rows import blocks, classes_last
from xentbench.spec import Failure, Grade, Status, UsageError, Verdict, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy.typing as npt

    from xentbench.inputs import Answers, Inputs
    from xentbench.oracle import Truth
    from xentbench.spec import Description, Problem

    Array = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

ANOTHER_DTYPE: Final = "another-dtype"
ANOTHER_CONVENTION: Final = "another-convention"
NOT_DETERMINISTIC: Final = "not-deterministic"
OVERWRITES_INPUT: Final = "overwrites-input"

DEVIATIONS: Final[Mapping[str, Callable[[Problem, Truth], Flags]]] = {
    "unshifted-exponent": diagnosis.out_of_unshifted_range,
}
"""What each declared deviation may explain: `(rows,)` flags of the rows in which it may break loss and gradient."""


@dataclass(frozen=True, slots=True)
class _Question:
    problem: Problem
    truth: Truth
    inputs: Inputs
    declared: Description


@dataclass(frozen=True, slots=True)
class _Finding:
    """Something wrong; `rows` are those at fault, None where no declared deviation can explain it."""

    status: Status
    failure: Failure
    rows: Flags | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one compared brought."""

    findings: tuple[_Finding, ...] = ()
    grade: Grade | None = None
    bound_ratio: float | None = None
    error_ulp: float | None = None
    labels: tuple[str, ...] = ()
    checks: int = 1


def judge(problem: Problem, truth: Truth, inputs: Inputs, answers: Answers, declared: Description) -> Verdict:
    """Return the verdict on one implementation's answers to one problem; no answer, however odd, raises.

    The status is that of the first failure. Where the codes of declared deviations explain every failure, status and
    failures stay and the codes are listed in `deviations`.

    Args:
        problem: what was asked.
        truth: what `oracle.solve` says.
        inputs: tensors of the question.
        answers: what came.
        declared: promised grade, result dtype, overwritten input, deviations.

    Raises:
        UsageError: a deviation is declared that is not known.
    """
    check_codes(deviation.code for deviation in declared.deviations)
    question = _Question(problem, truth, inputs, declared)
    with np.errstate(all="ignore"):  # logits may be inf or NaN
        outcomes = list(_outcomes(question, answers))
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    grade = Grade.worst(outcome.grade for outcome in outcomes if outcome.grade)
    return Verdict(
        status=findings[0].status if findings else Status.PASSED,
        grade=grade,
        checks=sum(outcome.checks for outcome in outcomes),
        failures=tuple(finding.failure for finding in findings),
        deviations=_explaining(question, findings),
        labels=tuple(sorted({label for outcome in outcomes for label in outcome.labels})),
        bound_ratio=max((outcome.bound_ratio for outcome in outcomes if outcome.bound_ratio is not None), default=None),
        error_ulp=max((outcome.error_ulp for outcome in outcomes if outcome.error_ulp is not None), default=None),
        reason=findings[0].failure.message if findings else "",
    )


def check_codes(codes: Iterable[str]) -> None:
    """Refuse codes of deviations that the judge does not know.

    Raises:
        UsageError: names the unknown code and the known ones.
    """
    for code in codes:
        if code not in DEVIATIONS:
            msg = f"deviation {code!r} is unknown: {nearest(code, DEVIATIONS)}"
            raise UsageError(msg)


def _outcomes(question: _Question, answers: Answers) -> Iterator[_Outcome]:
    """Compare everything that was answered, in the order of importance."""
    yield _loss(question, answers.loss, "loss", "value")
    for tensor, name, quantity in (
        (answers.loss_no_grad, "loss without gradients", "value"),
        (answers.loss_again, "loss of a second call", "repeat"),
    ):
        if identical(tensor, answers.loss):
            yield _Outcome()
            continue
        outcome = _loss(question, tensor, name, quantity)
        yield outcome
        if quantity == "repeat" and not outcome.findings:
            yield _Outcome(labels=(NOT_DETERMINISTIC,), checks=0)
    yield _gradient(question, answers.gradient, "gradient")
    if question.problem.target_grad and not question.problem.has_index_target:
        yield _gradient(question, answers.target_gradient, "target-gradient")
    yield _mutation(question, answers.changed)


def _loss(question: _Question, tensor: torch.Tensor, name: str, quantity: str) -> _Outcome:
    problem, truth = question.problem, question.truth
    contract, labels = _contract(question, tensor, name)
    numbers = numbers_of(tensor)
    if numbers is None or tuple(tensor.shape) != problem.loss_shape:
        return _Outcome(contract, Grade.FAIL, labels=labels)
    low = None if truth.loss.low is None else truth.loss.low.reshape(-1)
    flat = Values(truth.loss.torch.reshape(-1), truth.loss.masked.reshape(-1), low)
    dtype = format_of(tensor)
    compared = compare(numbers.reshape(-1).numpy(), flat, bounds.loss_lines(problem, truth), dtype)
    findings = list(contract)
    if compared.wrong.any():
        looks_like = _diagnose(question, compared, dtype, "value")
        index = np.unravel_index(compared.worst, problem.loss_shape) if problem.loss_shape else ()
        failure = worst_failure(quantity, name, compared, index, looks_like)
        rows = compared.wrong if problem.reduction == "none" else np.ones(problem.rows, dtype=bool)
        findings.append(_Finding(Status.WRONG_VALUE, failure, rows))
    findings += _promise(question, compared.grade, name, "value")
    return _Outcome(
        findings=tuple(findings),
        grade=compared.grade,
        bound_ratio=float(compared.ratio.max(initial=0.0)),
        error_ulp=error_ulp(compared, dtype),
        labels=(*labels, *((ANOTHER_CONVENTION,) if compared.other_convention else ())),
    )


def _contract(question: _Question, tensor: torch.Tensor, name: str) -> tuple[tuple[_Finding, ...], tuple[str, ...]]:
    """Hold the loss's shape and dtype against those of `F.cross_entropy`; return findings and labels."""
    problem, promised = question.problem, question.declared.work.result_dtype
    dtype = str(tensor.dtype).removeprefix("torch.")
    findings, labels = list[_Finding](), tuple[str, ...]()
    if tuple(tensor.shape) != problem.loss_shape:
        message = (
            f"{name} has shape {tuple(tensor.shape)}, expected {problem.loss_shape} for reduction {problem.reduction}"
        )
        findings.append(_Finding(Status.WRONG_VALUE, Failure("shape", message)))
    if dtype == promised != problem.dtype:
        labels = (ANOTHER_DTYPE,)
    elif dtype != problem.dtype:
        message = f"{name} has dtype {dtype}, expected {promised or problem.dtype} for logits of dtype {problem.dtype}"
        findings.append(_Finding(Status.WRONG_TYPE, Failure("dtype", message)))
    return tuple(findings), labels


def _gradient(question: _Question, tensor: torch.Tensor | None, quantity: str) -> _Outcome:
    """Compare a gradient block by block, so that temporaries do not grow with the number of rows."""
    problem, truth = question.problem, question.truth
    values = truth.gradient if quantity == "gradient" else truth.target_gradient
    name = "gradient" if quantity == "gradient" else "gradient of the target"
    assert values is not None
    if tensor is None:
        return _fault(Status.WRONG_GRADIENT, quantity, f"{name} is absent: the loss does not depend on it for autograd")
    if tuple(tensor.shape) != problem.logits_shape:
        message = f"{name} has shape {tuple(tensor.shape)}, expected {problem.logits_shape}"
        return _fault(Status.WRONG_GRADIENT, "shape", message)
    numbers = numbers_of(tensor)
    dtype = format_of(tensor)
    if numbers is None or dtype != problem.dtype:
        return _fault(Status.WRONG_TYPE, "dtype", f"{name} has dtype {tensor.dtype}, expected {problem.dtype}")
    got, torch_rows, masked_rows = (
        classes_last(part, problem).numpy()
        for part in (numbers, torch.from_numpy(values.torch), torch.from_numpy(values.masked))
    )
    low_rows = None if values.low is None else classes_last(torch.from_numpy(values.low), problem).numpy()
    lines = bounds.gradient_lines if quantity == "gradient" else bounds.target_gradient_lines
    tally = _Tally(np.zeros(problem.rows, dtype=bool))
    for block in blocks(problem, question.inputs):
        torch_block, masked_block = torch_rows[block.where], masked_rows[block.where]
        low_block = None if low_rows is None else low_rows[block.where]
        pair = Values(torch_block, torch_block if values.masked is values.torch else masked_block, low_block)
        allowed = lines(problem, truth, block, pair.masked)
        tally = tally.add(block.where, compare(got[block.where], pair, allowed, dtype))
    return _gradient_outcome(question, tally, quantity, name)


@dataclass(frozen=True, slots=True)
class _Tally:
    """What is kept of a gradient's blocks: all of the worst one, and of the others what the verdict needs."""

    rows_at_fault: Flags
    grade: Grade | None = None
    ratio: float = 0.0
    labels: tuple[str, ...] = ()
    blocks: int = 0
    worst: tuple[int, Compared] | None = None

    def add(self, where: slice, compared: Compared) -> _Tally:
        self.rows_at_fault[where] = compared.wrong.any(axis=1)
        ratio = float(compared.ratio.max(initial=0.0))
        worse = compared.wrong.any() and (self.worst is None or ratio > self.ratio)
        return _Tally(
            self.rows_at_fault,
            grade=Grade.worst(grade for grade in (self.grade, compared.grade) if grade),
            ratio=max(self.ratio, ratio),
            labels=(ANOTHER_CONVENTION,) if compared.other_convention else self.labels,
            blocks=self.blocks + 1,
            worst=(where.start, compared) if worse else self.worst,
        )


def _gradient_outcome(question: _Question, tally: _Tally, quantity: str, name: str) -> _Outcome:
    problem, findings = question.problem, list[_Finding]()
    if tally.worst is not None:
        start, compared = tally.worst
        looks_like = _diagnose(question, compared, problem.dtype, quantity) if tally.blocks == 1 else ""
        row, column = divmod(compared.worst, problem.num_classes)
        place = np.unravel_index(start + row, problem.row_shape) if problem.row_shape else ()
        failure = worst_failure(quantity, name, compared, (*place[:1], column, *place[1:]), looks_like)
        findings.append(_Finding(Status.WRONG_GRADIENT, failure, tally.rows_at_fault))
    findings += _promise(question, tally.grade, name, quantity)
    return _Outcome(tuple(findings), tally.grade, tally.ratio if tally.blocks else None, labels=tally.labels)


def _mutation(question: _Question, changed: tuple[str, ...]) -> _Outcome:
    """Refuse changed inputs; logits that are overwritten by design are labelled."""
    allowed = question.declared.work.overwrites_input
    excused = [what for what in changed if allowed and what.startswith("logits")]
    refused = [what for what in changed if what not in excused]
    labels = (OVERWRITES_INPUT,) if excused else ()
    if not refused:
        return _Outcome(labels=labels)
    message = f"inputs were changed: {', '.join(refused)}; expected them untouched"
    return _Outcome((_Finding(Status.MUTATES_INPUT, Failure("mutation", message)),), labels=labels)


def _fault(status: Status, quantity: str, message: str) -> _Outcome:
    return _Outcome((_Finding(status, Failure(quantity, message)),), grade=Grade.FAIL)


def _promise(question: _Question, grade: Grade | None, name: str, quantity: str) -> tuple[_Finding, ...]:
    """Return a finding where the grade passes but is worse than the author promised."""
    promised = question.declared.min_grade
    if promised is None or grade is None or grade is Grade.FAIL or grade.rank <= promised.rank:
        return ()
    message = f"{name} has grade {grade}, but grade {promised} or better is promised"
    return (_Finding(Status.IMPRECISE, Failure(quantity, message)),)


def _explaining(question: _Question, findings: list[_Finding]) -> tuple[str, ...]:
    """Return the declared codes that together explain every finding, or none."""
    masks = {d.code: DEVIATIONS[d.code](question.problem, question.truth) for d in question.declared.deviations}
    if not findings or not masks:
        return ()
    union = np.logical_or.reduce(list(masks.values()))
    if not all(_explained(question, finding, union) for finding in findings):
        return ()
    return tuple(code for code, rows in masks.items() if rows.any())


def _explained(question: _Question, finding: _Finding, rows: Flags) -> bool:
    if finding.rows is None:
        return False
    if finding.status is Status.WRONG_VALUE and question.problem.reduction != "none":
        return bool(rows.any())
    return bool((finding.rows <= rows).all())


def _diagnose(question: _Question, compared: Compared, dtype: str, quantity: str) -> str:
    return diagnosis.explain(
        diagnosis.Symptom(
            problem=question.problem,
            inputs=question.inputs,
            truth=question.truth,
            quantity=quantity,
            got=compared.got,
            expected=compared.expected,
            allowed=compared.allowed,
            wrong=compared.wrong,
            dtype=dtype,
        )
    )
