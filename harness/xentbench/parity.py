"""The judge: are an implementation's answers right? A pure function of the problem, the truth and the answers.

Each answer is held, in this order, against the shape, the dtype and the values of the truth (class of number first:
finite, inf, NaN); then come the gradients and whether the inputs were left alone. Values are right when rounding
explains them (see `bounds`), and every failure names the worst element and the mistake it looks like (see `diagnosis`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from xentbench import bounds, curvature, diagnosis, laws
from xentbench.elementwise import Compared, compare, dense_of, error_ulp, format_of, identical, numbers_of, shortened
from xentbench.elementwise import failure as worst_failure
from xentbench.oracle import Values
from xentbench.rows import blocks, classes_last, float64, rows_at
from xentbench.spec import Failure, Grade, Status, UsageError, Verdict, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy.typing as npt

    from xentbench.inputs import Answers, Inputs
    from xentbench.oracle import Truth
    from xentbench.posing import Question
    from xentbench.rows import Block
    from xentbench.spec import Description, Problem

    Array = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

ANOTHER_DTYPE: Final = "another-dtype"
ANOTHER_CONVENTION: Final = "another-convention"
NOT_DETERMINISTIC: Final = "not-deterministic"
OVERWRITES_INPUT: Final = "overwrites-input"
SECOND: Final = "of a second call with other values"
RETAINED: Final = "of a second backward (retain_graph)"
DIAGNOSED_ELEMENTS: Final = 1 << 14
"""A diagnosis solves the problem many times over; mistakes that show up in larger problems only keep their numbers."""
NOTES: Final = ("backward-once", "no-double-backward")
"""Labels of what an implementation refuses: to go back twice through one graph; a derivative of its gradient."""

DEVIATIONS: Final[Mapping[str, Callable[[Problem, Truth], Flags]]] = {
    "unshifted-exponent": diagnosis.out_of_unshifted_range,
}
"""What each declared deviation may explain: `(rows,)` flags of the rows in which it may break loss and gradient."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A question, and what the one who answers has declared."""

    question: Question
    declared: Description

    @property
    def problem(self) -> Problem:
        return self.question.problem

    @property
    def truth(self) -> Truth:
        return self.question.truth

    @property
    def inputs(self) -> Inputs:
        return self.question.inputs


@dataclass(frozen=True, slots=True)
class _Finding:
    """Something wrong; `rows` of `case` are those at fault, None where no declared deviation can explain it."""

    status: Status
    failure: Failure
    rows: Flags | None = None
    case: _Case | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one compared brought."""

    findings: tuple[_Finding, ...] = ()
    grade: Grade | None = None
    bound_ratio: float | None = None
    error_ulp: float | None = None
    labels: tuple[str, ...] = ()
    checks: int = 1


def judge(question: Question, answers: Answers, declared: Description) -> Verdict:
    """Return the verdict on one implementation's answers to one question; no answer, however odd, raises.

    The status is that of the first failure. Where the codes of declared deviations explain every failure, status and
    failures stay and the codes are listed in `deviations`.

    Args:
        question: what was asked, and the truth.
        answers: what came.
        declared: promised grade, result dtype, overwritten input, deviations.

    Raises:
        UsageError: a deviation is declared that is not known.
    """
    check_codes(deviation.code for deviation in declared.deviations)
    case = _Case(question, declared)
    if case.problem.must_raise:
        return _not_refused(case.problem, answers)
    with np.errstate(all="ignore"):  # logits may be inf or NaN
        outcomes = list(_outcomes(case, answers))
        if not any(outcome.findings for outcome in outcomes):  # else a second call only tells the same again
            outcomes += _beyond(case, answers)
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    grade = Grade.worst(outcome.grade for outcome in outcomes if outcome.grade)
    return Verdict(
        status=findings[0].status if findings else Status.PASSED,
        grade=grade,
        checks=sum(outcome.checks for outcome in outcomes),
        failures=tuple(finding.failure for finding in findings),
        deviations=_explaining(case, findings),
        labels=tuple(sorted({*answers.notes, *(label for outcome in outcomes for label in outcome.labels)})),
        bound_ratio=max((outcome.bound_ratio for outcome in outcomes if outcome.bound_ratio is not None), default=None),
        error_ulp=max((outcome.error_ulp for outcome in outcomes if outcome.error_ulp is not None), default=None),
        reason=findings[0].failure.message if findings else "",
    )


def _not_refused(problem: Problem, answers: Answers) -> Verdict:
    """Return the verdict on an answer where an exception was due."""
    what = {
        "label-high": f"a label of {problem.num_classes}, where classes end at {problem.num_classes - 1},",
        "label-low": f"a label of -1, which is not ignore_index ({problem.ignore_index}),",
        "target-long": f"a target of {problem.rows + 1} labels for {problem.rows} rows",
        "weight-short": f"class weights for {problem.num_classes - 1} of {problem.num_classes} classes",
        "weight-long": f"{problem.num_classes + 1} class weights for {problem.num_classes} classes",
        "reduction": "the reduction 'average', which there is not,",
    }[problem.invalid]
    got = shortened(answers.loss)
    message = f"{what} must raise an exception, as F.cross_entropy does, got a loss of {got}"
    return Verdict(Status.WRONG_VALUE, failures=(Failure("exception", message),), checks=1, reason=message)


def check_codes(codes: Iterable[str]) -> None:
    """Refuse codes of deviations that the judge does not know.

    Raises:
        UsageError: names the unknown code and the known ones.
    """
    for code in codes:
        if code not in DEVIATIONS:
            msg = f"deviation {code!r} is unknown: {nearest(code, DEVIATIONS)}"
            raise UsageError(msg)


def _outcomes(case: _Case, answers: Answers) -> Iterator[_Outcome]:
    """Compare everything that was answered, in the order of importance."""
    yield _loss(case, answers.loss, "loss", "value", _varying(answers))
    for tensor, name, quantity in (
        (answers.loss_no_grad, "loss without gradients", "value"),
        (answers.loss_again, "loss of a second call", "repeat"),
    ):
        if identical(tensor, answers.loss):
            yield _Outcome()
            continue
        outcome = _loss(case, tensor, name, quantity)
        yield outcome
        if quantity == "repeat" and not outcome.findings:
            yield _Outcome(labels=(NOT_DETERMINISTIC,), checks=0)
    # No gradient is asked for where the upstream one does not fit the loss.
    if case.problem.mode != "no-grad" and tuple(answers.loss.shape) == case.problem.loss_shape:
        yield _gradient(case, answers.gradient, "gradient")
        yield from _laws(case, answers.gradient)
        if case.problem.target_grad and not case.problem.has_index_target:
            yield _gradient(case, answers.target_gradient, "target-gradient")
    yield _mutation(case, answers.changed)


def _beyond(case: _Case, answers: Answers) -> Iterator[_Outcome]:
    """Compare a second call with other values, a second backward through one graph, and one through the backward."""
    second, again = case.question.second, answers.gradient_again
    if second is not None and answers.second_loss is not None:
        other = _Case(second, case.declared)
        yield _told_as("repeat", _loss(other, answers.second_loss, f"loss {SECOND}", "value"))
        yield _told_as("repeat", _gradient(other, answers.second_gradient, "gradient", f"gradient {SECOND}"))
    if again is not None and answers.gradient is not None and identical(again, answers.gradient):
        yield _Outcome()
    elif again is not None:
        yield _told_as("repeat", _gradient(case, again, "gradient", f"gradient {RETAINED}"))
    if answers.hessian_product is not None:
        yield _second_derivative(case, answers.hessian_product, "Hessian-vector product")
    if answers.upstream_slope is not None:
        yield _second_derivative(case, answers.upstream_slope, "gradient's derivative by the upstream gradient")


def _told_as(quantity: str, outcome: _Outcome) -> _Outcome:
    """Return the outcome with its failures told under another quantity; its grade counts, its errors do not."""
    findings = tuple(
        dataclasses.replace(finding, failure=dataclasses.replace(finding.failure, quantity=quantity))
        for finding in outcome.findings
    )
    return dataclasses.replace(outcome, findings=findings, error_ulp=None)


def _second_derivative(case: _Case, tensor: torch.Tensor, name: str) -> _Outcome:
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
        return _Outcome()
    looks_like = "the second derivative is silently zero: refuse it (once_differentiable)" if not got.any() else ""
    place = _place(problem, *divmod(compared.worst, problem.num_classes)) if of_logits else ()
    if not of_logits and problem.loss_shape:
        place = np.unravel_index(compared.worst, problem.loss_shape)
    failure = worst_failure("double-backward", name, compared, place, looks_like)
    rows: Flags = np.any(compared.wrong, axis=1) if of_logits else np.ones(problem.rows, dtype=bool)
    return _Outcome((_Finding(Status.WRONG_GRADIENT, failure, rows, case),), Grade.FAIL)


def _place(problem: Problem, row: int, column: int) -> tuple[object, ...]:
    """Return the index into the logits of a class of a row."""
    place = np.unravel_index(row, problem.row_shape) if problem.row_shape else ()
    return (*place[:1], column, *place[1:])


def _varying(answers: Answers) -> str:
    """Return, as the end of a message, what two identical calls answered where that differs."""
    if identical(answers.loss, answers.loss_again) or answers.loss.shape != answers.loss_again.shape:
        return ""
    return f"; two identical calls answered {shortened(answers.loss)} and {shortened(answers.loss_again)}"


def _loss(case: _Case, tensor: torch.Tensor, name: str, quantity: str, varying: str = "") -> _Outcome:
    problem, truth = case.problem, case.truth
    contract, labels = _contract(case, tensor, name)
    numbers = numbers_of(tensor)
    if numbers is None or tuple(tensor.shape) != problem.loss_shape:
        return _Outcome(contract, Grade.FAIL, labels=labels)
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
        findings.append(_Finding(Status.WRONG_VALUE, failure, rows, case))
    findings += _promise(case, compared.grade, name, "value")
    return _Outcome(
        findings=tuple(findings),
        grade=compared.grade,
        bound_ratio=float(compared.ratio.max(initial=0.0)),
        error_ulp=error_ulp(compared, dtype),
        labels=(*labels, *((ANOTHER_CONVENTION,) if compared.other_convention else ())),
    )


def _contract(case: _Case, tensor: torch.Tensor, name: str) -> tuple[tuple[_Finding, ...], tuple[str, ...]]:
    """Hold the loss's shape and dtype against those of `F.cross_entropy`; return findings and labels."""
    problem, promised = case.problem, case.declared.work.result_dtype
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


def _gradient(case: _Case, tensor: torch.Tensor | None, quantity: str, name: str = "") -> _Outcome:
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


def _laws(case: _Case, tensor: torch.Tensor | None) -> Iterator[_Outcome]:
    """Hold every row of a large gradient against what is known of it; odd shapes and dtypes are judged already."""
    numbers = None if tensor is None else dense_of(tensor)
    if numbers is None or tuple(numbers.shape) != case.problem.logits_shape:
        return
    if case.truth.sample is None or format_of(numbers) != case.problem.dtype:
        return
    for law in laws.held(case.problem, case.truth, numbers):
        row, findings = law.compared.worst, list[_Finding]()
        if law.compared.wrong.any():
            place = _place(case.problem, row, int(law.classes[row])) if law.classes is not None else None
            index = place or np.unravel_index(row, case.problem.row_shape)
            failure = worst_failure("gradient", law.name, law.compared, index, "")
            rows: Flags = law.compared.wrong.reshape(-1)
            findings.append(_Finding(Status.WRONG_GRADIENT, failure, rows, case))
        findings += _promise(case, law.grade, law.name, "gradient")
        yield _Outcome(tuple(findings), law.grade, float(law.compared.ratio.max(initial=0.0)))


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


def _gradient_outcome(case: _Case, tally: _Tally, quantity: str, name: str) -> _Outcome:
    problem, findings = case.problem, list[_Finding]()
    if tally.worst is not None:
        block, compared = tally.worst
        looks_like = _diagnose(case, compared, problem.dtype, quantity) if tally.blocks == 1 else ""
        row, column = divmod(compared.worst, problem.num_classes)
        row = int(block.where.start + row if isinstance(block.where, slice) else block.where[row])
        failure = worst_failure(quantity, name, compared, _place(problem, row, column), looks_like)
        findings.append(_Finding(Status.WRONG_GRADIENT, failure, tally.rows_at_fault, case))
    findings += _promise(case, tally.grade, name, quantity)
    return _Outcome(tuple(findings), tally.grade, tally.ratio if tally.blocks else None, labels=tally.labels)


def _mutation(case: _Case, changed: tuple[str, ...]) -> _Outcome:
    """Refuse changed inputs; logits that are overwritten by design are labelled."""
    allowed = case.declared.work.overwrites_input
    excused = [what for what in changed if allowed and what.startswith("logits")]
    refused = [what for what in changed if what not in excused]
    labels = (OVERWRITES_INPUT,) if excused else ()
    if not refused:
        return _Outcome(labels=labels)
    message = f"inputs were changed: {', '.join(refused)}; expected them untouched"
    return _Outcome((_Finding(Status.MUTATES_INPUT, Failure("mutation", message)),), labels=labels)


def _fault(status: Status, quantity: str, message: str) -> _Outcome:
    return _Outcome((_Finding(status, Failure(quantity, message)),), grade=Grade.FAIL)


def _promise(case: _Case, grade: Grade | None, name: str, quantity: str) -> tuple[_Finding, ...]:
    """Return a finding where the grade passes but is worse than the author promised."""
    promised = case.declared.min_grade
    if promised is None or grade is None or grade is Grade.FAIL or grade.rank <= promised.rank:
        return ()
    message = f"{name} has grade {grade}, but grade {promised} or better is promised"
    return (_Finding(Status.IMPRECISE, Failure(quantity, message)),)


def _explaining(case: _Case, findings: list[_Finding]) -> tuple[str, ...]:
    """Return the declared codes that together explain every finding, or none."""
    codes = [deviation.code for deviation in case.declared.deviations]
    if not findings or not codes or not all(_explained(finding, codes) for finding in findings):
        return ()
    return tuple(code for code in codes if DEVIATIONS[code](case.problem, case.truth).any())


def _explained(finding: _Finding, codes: list[str]) -> bool:
    if finding.rows is None or finding.case is None:
        return False
    problem, truth = finding.case.problem, finding.case.truth
    rows = np.logical_or.reduce([DEVIATIONS[code](problem, truth) for code in codes])
    if finding.status is Status.WRONG_VALUE and problem.reduction != "none":
        return bool(rows.any())
    return bool((finding.rows <= rows).all())


def _diagnose(case: _Case, compared: Compared, dtype: str, quantity: str) -> str:
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
