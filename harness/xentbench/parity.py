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
from xentbench.oracle import Values, blocks, classes_last
from xentbench.spec import UNIT_ROUNDOFF, Failure, Grade, Status, UsageError, Verdict, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy.typing as npt

    from xentbench.inputs import Answers, Inputs
    from xentbench.oracle import Block, Truth
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
    """What one comparison brought."""

    findings: tuple[_Finding, ...] = ()
    grade: Grade | None = None
    bound_ratio: float | None = None
    error_ulp: float | None = None
    labels: tuple[str, ...] = ()
    checks: int = 1


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Numbers held against the truth, all of one shape."""

    got: Array
    expected: Array
    error: Array
    allowed: Array
    wrong: Flags
    grade: Grade
    other_convention: bool

    @property
    def ratio(self) -> Array:
        """Error in units of the loosest bound."""
        with np.errstate(all="ignore"):
            return np.where(self.error == 0.0, 0.0, self.error / self.allowed)


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
        if _identical(tensor, answers.loss):
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
    numbers = _numbers(tensor)
    if numbers is None or tuple(tensor.shape) != problem.loss_shape:
        return _Outcome(contract, labels=labels)
    flat = Values(truth.loss.torch.reshape(-1), truth.loss.masked.reshape(-1))
    dtype = _format(tensor)
    comparison = _compare(numbers.reshape(-1).numpy(), flat, bounds.loss_lines(problem, truth), dtype)
    findings = list(contract)
    if comparison.wrong.any():
        looks_like = _diagnose(question, comparison, dtype, "value")
        at = _worst(comparison)
        index = np.unravel_index(at, problem.loss_shape) if problem.loss_shape else ()
        message = _sentence(name, comparison, at, index, looks_like)
        rows = comparison.wrong if problem.reduction == "none" else np.ones(problem.rows, dtype=bool)
        findings.append(_Finding(Status.WRONG_VALUE, Failure(quantity, message), rows))
    findings += _promise(question, comparison.grade, name, "value")
    return _Outcome(
        findings=tuple(findings),
        grade=comparison.grade,
        bound_ratio=float(comparison.ratio.max(initial=0.0)),
        error_ulp=_error_ulp(comparison, dtype),
        labels=(*labels, *((ANOTHER_CONVENTION,) if comparison.other_convention else ())),
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
    numbers = _numbers(tensor)
    dtype = _format(tensor)
    if numbers is None or dtype != problem.dtype:
        return _fault(Status.WRONG_TYPE, "dtype", f"{name} has dtype {tensor.dtype}, expected {problem.dtype}")
    got, torch_rows, masked_rows = (
        classes_last(part, problem).numpy()
        for part in (numbers, torch.from_numpy(values.torch), torch.from_numpy(values.masked))
    )
    lines = bounds.gradient_lines if quantity == "gradient" else bounds.target_gradient_lines
    parts = [
        (
            block,
            _compare(
                got[block.where],
                Values(torch_rows[block.where], masked_rows[block.where]),
                lines(problem, truth, block, masked_rows[block.where]),
                dtype,
            ),
        )
        for block in blocks(problem, question.inputs)
    ]
    return _gradient_outcome(question, parts, quantity, name)


def _gradient_outcome(
    question: _Question, parts: list[tuple[Block, _Comparison]], quantity: str, name: str
) -> _Outcome:
    problem = question.problem
    grade = Grade.worst(comparison.grade for _, comparison in parts)
    findings: list[_Finding] = []
    at_fault = np.zeros(problem.rows, dtype=bool)
    for block, comparison in parts:
        at_fault[block.where] = comparison.wrong.any(axis=1)
    if at_fault.any():
        block, comparison = max(parts, key=lambda part: part[1].ratio.max(initial=0.0))
        looks_like = _diagnose(question, comparison, problem.dtype, quantity) if len(parts) == 1 else ""
        at = _worst(comparison)
        row, column = divmod(at, problem.num_classes)
        index = np.unravel_index(row + block.where.start, problem.row_shape) if problem.row_shape else ()
        index = (*index[:1], column, *index[1:])
        message = _sentence(name, comparison, at, index, looks_like)
        findings.append(_Finding(Status.WRONG_GRADIENT, Failure(quantity, message), at_fault))
    findings += _promise(question, grade, name, quantity)
    return _Outcome(
        findings=tuple(findings),
        grade=grade,
        bound_ratio=max((float(part.ratio.max(initial=0.0)) for _, part in parts), default=None),
        labels=(ANOTHER_CONVENTION,) if any(part.other_convention for _, part in parts) else (),
    )


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


def _compare(got: Array, values: Values, lines: bounds.Lines, dtype: str) -> _Comparison:
    """Hold numbers against the truth; each may follow either convention."""
    *_, allowed = lines.values()
    error, expected, other = bounds.need(got, values.torch, dtype), values.torch, False
    if values.masked is not values.torch:
        second = bounds.need(got, values.masked, dtype)
        use = bounds.passes(second, allowed) & ~bounds.passes(error, allowed)
        error, expected, other = np.where(use, second, error), np.where(use, values.masked, expected), bool(use.any())
    grade = next((grade for grade, line in lines.items() if bounds.passes(error, line).all()), Grade.FAIL)
    return _Comparison(got, expected, error, allowed, ~bounds.passes(error, allowed), grade, other)


def _numbers(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return a tensor's values as float64 on the CPU, or None where they are no real numbers that can be read."""
    try:
        if tensor.is_complex():
            return None
        dense = tensor.detach()
        return (dense if dense.layout is torch.strided else dense.to_dense()).to("cpu", torch.float64)
    except (RuntimeError, NotImplementedError, TypeError):
        return None


def _format(tensor: torch.Tensor) -> str:
    """Return the dtype that the answer was rounded to; float64 where it is none of ours."""
    name = str(tensor.dtype).removeprefix("torch.")
    return name if name in UNIT_ROUNDOFF else "float64"


def _identical(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    left, right = _numbers(one), _numbers(other)
    return left is not None and right is not None and np.array_equal(left.numpy(), right.numpy(), equal_nan=True)


def _worst(comparison: _Comparison) -> int:
    return int(np.where(comparison.wrong, np.nan_to_num(comparison.ratio, nan=np.inf), -1.0).argmax())


def _diagnose(question: _Question, comparison: _Comparison, dtype: str, quantity: str) -> str:
    return diagnosis.explain(
        diagnosis.Symptom(
            problem=question.problem,
            inputs=question.inputs,
            truth=question.truth,
            quantity=quantity,
            got=comparison.got,
            expected=comparison.expected,
            allowed=comparison.allowed,
            wrong=comparison.wrong,
            dtype=dtype,
        )
    )


def _sentence(name: str, comparison: _Comparison, at: int, index: tuple[object, ...], looks_like: str) -> str:
    """Return where the worst number is, what came, what was expected, by how much, and what it looks like."""
    got, expected, error, allowed, ratio = (
        float(array.reshape(-1)[at])
        for array in (comparison.got, comparison.expected, comparison.error, comparison.allowed, comparison.ratio)
    )
    where = f"{name}[{', '.join(map(str, index))}]" if index else name
    off = (
        f"off by {error:.3g} where {allowed:.3g} is allowed ({ratio:.3g} times)"
        if np.isfinite(error)
        else "another class of number"
    )
    wrong = (
        f"; {comparison.wrong.sum()} of {comparison.wrong.size} numbers are wrong" if comparison.wrong.size > 1 else ""
    )
    return f"{where} is {got:.9g}, expected {expected:.9g}: {off}{wrong}" + (
        f"; looks like: {looks_like}" if looks_like else ""
    )


def _error_ulp(comparison: _Comparison, dtype: str) -> float | None:
    """Return the largest error in units in the last place of the right answer, None where there is none (0, inf, NaN)."""
    finite = np.isfinite(comparison.got) & np.isfinite(comparison.expected) & (comparison.expected != 0.0)
    if not finite.any():
        return None
    got, expected = comparison.got[finite], comparison.expected[finite]
    ulp = 2.0 * bounds.half_spacing(expected, np.inf * np.sign(expected), dtype)
    return float((np.abs(got - expected) / ulp).max())
