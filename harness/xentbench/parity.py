"""The judge: are an implementation's answers right? A pure function of the question, the answers and what is declared.

First come loss and gradients, calls without gradients and again, and whether the inputs were left alone (see
`quantities` for each); where all of these are right, a second call, a second backward and second derivatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from xentbench import diagnosis, quantities
from xentbench.elementwise import identical, shortened
from xentbench.quantities import Case, Finding, Outcome
from xentbench.spec import Failure, Grade, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy.typing as npt

    from xentbench.inputs import Answers
    from xentbench.oracle import Truth
    from xentbench.posing import Question
    from xentbench.spec import Description, Problem

    Flags = npt.NDArray[np.bool_]

NOT_DETERMINISTIC: Final = "not-deterministic"
INTERPRETED: Final = "interpreted"
"""Label of answers that Triton's interpreter gave: right there is not yet right on a GPU."""
SECOND: Final = "of a second call with other values"
NOTES: Final = ("backward-once", "no-double-backward")
"""Labels of what an implementation refuses: to go back twice through one graph; a derivative of its gradient."""

DEVIATIONS: Final[Mapping[str, Callable[[Problem, Truth], Flags]]] = {
    "unshifted-exponent": diagnosis.out_of_unshifted_range,
    "all-ignored-mean": diagnosis.mean_of_nothing,
    "second-backward": diagnosis.every_row,
    "second-derivative": diagnosis.every_row,
}
"""What each declared deviation may explain: `(rows,)` flags of the rows in which it may break loss and gradient."""
_ABOUT: Final[Mapping[str, Callable[[Finding], bool]]] = {
    "all-ignored-mean": lambda finding: finding.status is Status.WRONG_VALUE,
    "second-backward": lambda finding: finding.failure.quantity == "second-backward",
    "second-derivative": lambda finding: finding.failure.quantity == "double-backward",
}
"""Whether a finding is of the kind that they may explain; the others may explain any."""


def judge(question: Question, answers: Answers, declared: Description) -> Verdict:
    """Return the verdict on one implementation's answers to one question; no answer, however odd, raises.

    The status is that of the first failure. Where the codes of declared deviations explain every failure, status and
    failures stay and the codes are listed in `deviations`.

    Args:
        question: what was asked, and the truth.
        answers: what came.
        declared: promised grade, result dtype, overwritten input, deviations.
    """
    case = Case(question, declared)
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
        labels=_labels(answers, declared, outcomes),
        bound_ratio=max((outcome.bound_ratio for outcome in outcomes if outcome.bound_ratio is not None), default=None),
        error_ulp=max((outcome.error_ulp for outcome in outcomes if outcome.error_ulp is not None), default=None),
        reason=findings[0].failure.message if findings else "",
    )


def _labels(answers: Answers, declared: Description, outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    """Return what must be known, a default that means something else included; no label has a comma."""
    defaults = (f"another-default:{name}={text}" for name, text in declared.other_defaults.items())
    seen = (label for outcome in outcomes for label in outcome.labels)
    interpreted = (INTERPRETED,) if declared.interpreted else ()
    return tuple(sorted({*answers.notes, *(text.replace(",", ";") for text in defaults), *seen, *interpreted}))


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


def _outcomes(case: Case, answers: Answers) -> Iterator[Outcome]:
    """Compare everything that was answered, in the order of importance."""
    yield quantities.aliasing(answers.shared)  # else a value that a later call has overwritten counts as wrong
    yield quantities.loss(case, answers.loss, "loss", "value", _varying(answers))
    for tensor, name, quantity in (
        (answers.loss_no_grad, "loss without gradients", "value"),
        (answers.loss_again, "loss of a second call", "repeat"),
    ):
        if identical(tensor, answers.loss):
            yield Outcome()
            continue
        outcome = quantities.loss(case, tensor, name, quantity)
        yield outcome
        if quantity == "repeat" and not outcome.findings:
            yield Outcome(labels=(NOT_DETERMINISTIC,), checks=0)
    # No gradient is asked for where the upstream one does not fit the loss.
    if case.problem.mode != "no-grad" and tuple(answers.loss.shape) == case.problem.loss_shape:
        yield quantities.gradient(case, answers.gradient, "gradient")
        yield from quantities.laws_of(case, answers.gradient)
        if case.problem.target_grad and not case.problem.has_index_target:
            yield quantities.gradient(case, answers.target_gradient, "target-gradient")
    yield quantities.mutation(case, answers.changed)


def _beyond(case: Case, answers: Answers) -> Iterator[Outcome]:
    """Compare a second call with other values, a second backward through one graph, and one through the backward."""
    second, again = case.question.second, answers.gradient_again
    if second is not None and answers.second_loss is not None:
        other = Case(second, case.declared)
        yield quantities.told_as("repeat", quantities.loss(other, answers.second_loss, f"loss {SECOND}", "value"))
        yield quantities.told_as(
            "repeat", quantities.gradient(other, answers.second_gradient, "gradient", f"gradient {SECOND}")
        )
    if again is not None and answers.gradient is not None and identical(again, answers.gradient):
        yield Outcome()
    elif again is not None:
        outcome = quantities.gradient(case, again, "gradient", "gradient of a second backward (retain_graph)")
        yield quantities.told_as("second-backward", outcome)
    if answers.hessian_product is not None:
        yield quantities.second_derivative(case, answers.hessian_product, "Hessian-vector product")
    if answers.upstream_slope is not None:
        yield quantities.second_derivative(
            case, answers.upstream_slope, "gradient's derivative by the upstream gradient"
        )


def _varying(answers: Answers) -> str:
    """Return, as the end of a message, what two identical calls answered where that differs."""
    if identical(answers.loss, answers.loss_again) or answers.loss.shape != answers.loss_again.shape:
        return ""
    return f"; two identical calls answered {shortened(answers.loss)} and {shortened(answers.loss_again)}"


def _explaining(case: Case, findings: list[Finding]) -> tuple[str, ...]:
    """Return the declared codes that together explain every finding, or none."""
    codes = [deviation.code for deviation in case.declared.deviations]
    if not findings or not codes or not all(_explained(finding, codes) for finding in findings):
        return ()
    return tuple(code for code in codes if any(_explained(finding, [code]) for finding in findings))


def _explained(finding: Finding, codes: list[str]) -> bool:
    if finding.rows is None or finding.case is None:
        return False
    problem, truth = finding.case.problem, finding.case.truth
    flags = [DEVIATIONS[code](problem, truth) for code in codes if code not in _ABOUT or _ABOUT[code](finding)]
    if not flags:
        return False
    if finding.status is Status.WRONG_VALUE and problem.reduction != "none":
        return any(bool(rows.any()) for rows in flags)
    return bool((finding.rows <= np.logical_or.reduce(flags)).all())
