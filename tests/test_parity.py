"""The judge: order of what is held against an answer, odd answers, declarations, messages."""

import dataclasses
import itertools

import pytest
import torch
from torch.nn import functional

from xentbench import inputs, oracle, parity, quantities
from xentbench.inputs import Answers
from xentbench.posing import Question
from xentbench.spec import Description, Deviation, Grade, Problem, Source, Status, UsageError, WorkContract
from xentbench.spec.implementation import DEVIATION_CODES
from xentbench.worker import calls

PLAIN = Description(name="candidate", source=Source("object", "here:candidate"), origin="here:candidate")
MEAN = Problem.parse("N=16,C=10")
NONE = Problem.parse("N=16,C=10,reduction=none")
UNSHIFTED = Deviation("unshifted-exponent", "the maximum is not subtracted")


def right_answers(problem):
    given = inputs.make(problem, 0)
    options = calls.options_of(problem, given.weight)
    return calls.answer(lambda x, t: functional.cross_entropy(x, t, **options), problem, given)


def judge(problem, declared=PLAIN, **changes):
    """The verdict on right answers with these fields changed; a changed loss stands for all three calls."""
    answers = right_answers(problem)
    if "loss" in changes:
        changes = {"loss_no_grad": changes["loss"], "loss_again": changes["loss"]} | changes
    answers = dataclasses.replace(answers, **changes)
    given = inputs.make(problem, 0)
    return parity.judge(Question.of(problem, given), answers, declared)


def test_right_answer_passes_with_everything_filled_in():
    verdict = judge(MEAN)
    assert verdict.status is Status.PASSED
    assert verdict.grade in (Grade.A, Grade.B)
    assert not verdict.is_wrong
    assert verdict.failures == verdict.labels == verdict.deviations == ()
    assert verdict.checks == 10
    assert 0.0 <= verdict.bound_ratio <= 1.0
    assert verdict.error_ulp >= 0.0


def test_judge_is_a_pure_function():
    given, answers = inputs.make(NONE, 0), right_answers(NONE)
    truth = oracle.solve(NONE, given)
    answers = dataclasses.replace(answers, loss=answers.loss * 1.1)
    first, second = (parity.judge(Question(NONE, given, truth), answers, PLAIN) for _ in range(2))
    assert first == second


def test_negated_mean_is_said_to_have_the_wrong_sign():
    verdict = judge(MEAN, loss=-right_answers(MEAN).loss)
    assert verdict.status is Status.WRONG_VALUE
    assert verdict.grade is Grade.FAIL
    assert [failure.quantity for failure in verdict.failures] == ["value"]
    assert "sign" in verdict.failures[0].message
    assert verdict.reason == verdict.failures[0].message


def test_message_names_the_worst_element():
    loss = right_answers(NONE).loss
    loss[3] += 0.001
    loss[5] += 0.25
    message = judge(NONE, loss=loss).reason
    assert message.startswith(f"loss[5] is {loss[5]:.9g}, expected ")
    assert "is allowed" in message
    assert "2 of 16 numbers are wrong" in message


def test_message_names_the_worst_gradient_in_the_shape_of_the_logits():
    problem = Problem.parse("N=2,C=5,dims=3x4,reduction=none")
    gradient = right_answers(problem).gradient.clone()
    gradient[1, 4, 2, 3] += 0.5
    verdict = judge(problem, gradient=gradient)
    assert verdict.status is Status.WRONG_GRADIENT
    assert verdict.reason.startswith("gradient[1, 4, 2, 3] is ")
    assert "1 of 120 numbers are wrong" in verdict.reason


def test_class_of_number_must_agree():
    loss = right_answers(NONE).loss
    for wrong in (torch.nan, torch.inf, -torch.inf):
        assert (
            f"{wrong} where a finite number is right"
            in judge(NONE, loss=loss.index_fill(0, torch.tensor([2]), wrong)).reason
        )


def test_everything_wrong_is_reported_and_the_first_decides():
    answers = right_answers(MEAN)
    verdict = judge(
        MEAN, loss=answers.loss.double() * 2.0, gradient=answers.gradient * 2.0, changed=("weight after forward",)
    )
    assert [failure.quantity for failure in verdict.failures] == ["dtype", "value", "gradient", "mutation"]
    assert verdict.status is Status.WRONG_TYPE


def test_two_identical_calls_that_differ_are_told_instead_of_a_likeness():
    loss = right_answers(MEAN).loss
    told = judge(MEAN, loss=-loss, loss_again=loss).reason
    assert "two identical calls answered -" in told
    assert "looks like" not in told


def test_shape_is_part_of_the_answer():
    verdict = judge(MEAN, loss=right_answers(MEAN).loss.reshape(1))
    assert verdict.status is Status.WRONG_VALUE
    assert verdict.failures[0].quantity == "shape"
    assert "has shape (1,), expected ()" in verdict.reason
    assert verdict.grade is Grade.FAIL


def test_another_dtype_is_wrong_unless_declared():
    problem = dataclasses.replace(MEAN, dtype="bfloat16")
    loss = torch.tensor(float(oracle.solve(problem, inputs.make(problem, 0)).loss.torch))
    assert judge(problem, loss=loss).status is Status.WRONG_TYPE
    declared = dataclasses.replace(PLAIN, work=WorkContract(result_dtype="float32"))
    verdict = judge(problem, declared, loss=loss)
    assert verdict.status is Status.PASSED
    assert verdict.labels == (quantities.ANOTHER_DTYPE,)
    assert judge(problem, declared).labels == ()
    assert judge(problem, declared, loss=loss + 0.5).status is Status.WRONG_VALUE
    assert judge(problem, declared, loss=loss.double()).status is Status.WRONG_TYPE


def test_difference_between_calls_within_the_bound_is_only_labelled():
    loss = right_answers(MEAN).loss
    verdict = judge(MEAN, loss_again=torch.nextafter(loss, torch.tensor(9.0)))
    assert verdict.status is Status.PASSED
    assert verdict.labels == (parity.NOT_DETERMINISTIC,)


@pytest.mark.parametrize(("field", "quantity"), [("loss_again", "repeat"), ("loss_no_grad", "value")])
def test_every_call_is_held_against_the_truth(field, quantity):
    verdict = judge(MEAN, **{field: right_answers(MEAN).loss * 1.5})
    assert verdict.status is Status.WRONG_VALUE
    assert [failure.quantity for failure in verdict.failures] == [quantity]


def test_absent_gradients_are_wrong():
    problem = Problem.parse("N=4,C=3,target=soft,target-grad=yes")
    assert judge(problem).status is Status.PASSED
    for field, quantity in (("gradient", "gradient"), ("target_gradient", "target-gradient")):
        verdict = judge(problem, **{field: None})
        assert verdict.status is Status.WRONG_GRADIENT
        assert [failure.quantity for failure in verdict.failures] == [quantity]
        assert "is absent" in verdict.reason


def test_wrong_target_gradient_is_found():
    problem = Problem.parse("N=4,C=3,target=soft,target-grad=yes,dtype=float64")
    verdict = judge(problem, target_gradient=right_answers(problem).target_gradient * (1.0 + 1e-12))
    assert [failure.quantity for failure in verdict.failures] == ["target-gradient"]


def test_gradient_that_is_not_asked_for_is_not_judged():
    assert judge(MEAN, target_gradient=torch.ones(3)).status is Status.PASSED


def test_changed_inputs():
    overwrites = dataclasses.replace(PLAIN, work=WorkContract(overwrites_input=True))
    logits, target = ("logits after backward",), ("target after forward",)
    assert judge(MEAN, changed=logits).status is Status.MUTATES_INPUT
    assert "logits after backward" in judge(MEAN, changed=logits).reason
    verdict = judge(MEAN, overwrites, changed=logits)
    assert verdict.status is Status.PASSED
    assert verdict.labels == (quantities.OVERWRITES_INPUT,)
    assert judge(MEAN, overwrites, changed=logits + target).status is Status.MUTATES_INPUT


def test_promised_grade_must_be_kept():
    problem = Problem.parse("N=16,C=10,dtype=bfloat16,reduction=none")
    assert judge(problem).grade is Grade.C
    verdict = judge(problem, dataclasses.replace(PLAIN, min_grade=Grade.H))
    assert verdict.status is Status.IMPRECISE
    assert "grade C, but grade H or better is promised" in verdict.reason
    assert verdict.grade is Grade.C
    assert judge(problem, dataclasses.replace(PLAIN, min_grade=Grade.C)).status is Status.PASSED


def test_ignored_row_with_nan_logits_may_have_gradient_nan_or_zero():
    given = inputs.make(NONE, 0)
    given.target[0] = -100
    given.logits[0, 3] = torch.nan
    answers = calls.answer(lambda x, t: functional.cross_entropy(x, t, reduction="none"), NONE, given)
    truth = oracle.solve(NONE, given)
    torchs = parity.judge(Question(NONE, given, truth), answers, PLAIN)
    assert torchs.status is Status.PASSED
    assert torchs.labels == ()
    assert answers.gradient[0].isnan().all()
    masked = dataclasses.replace(answers, gradient=answers.gradient.nan_to_num(0.0))
    verdict = parity.judge(Question(NONE, given, truth), masked, PLAIN)
    assert verdict.status is Status.PASSED
    assert verdict.labels == (quantities.ANOTHER_CONVENTION,)
    other = dataclasses.replace(answers, gradient=answers.gradient.nan_to_num(1.0))
    assert parity.judge(Question(NONE, given, truth), other, PLAIN).status is Status.WRONG_GRADIENT


def naive(logits, target):
    return (logits.exp().sum(1).log() - logits.gather(1, target[:, None])[:, 0]).sum()


@pytest.mark.parametrize("key", ["N=16,C=10,logits=wide,reduction=sum", "N=16,C=10,offset=-300.0,reduction=sum"])
def test_declared_deviation_explains_what_it_may(key):
    problem, given = Problem.parse(key), inputs.make(Problem.parse(key), 0)
    truth = oracle.solve(problem, given)
    answers = calls.answer(naive, problem, given)
    declared = dataclasses.replace(PLAIN, deviations=(UNSHIFTED,))
    bare, explained = (parity.judge(Question(problem, given, truth), answers, who) for who in (PLAIN, declared))
    assert bare.is_wrong
    assert bare.deviations == ()
    assert explained.status is bare.status is Status.WRONG_VALUE
    assert explained.failures == bare.failures
    assert explained.deviations == ("unshifted-exponent",)
    assert not explained.is_wrong


def test_declared_deviation_explains_nothing_else():
    declared = dataclasses.replace(PLAIN, deviations=(UNSHIFTED,))
    assert judge(MEAN, declared).deviations == ()
    assert judge(MEAN, declared, loss=right_answers(MEAN).loss * 2.0).is_wrong
    wide = Problem.parse("N=33,C=2,logits=wide,reduction=none")
    rows = parity.DEVIATIONS["unshifted-exponent"](wide, oracle.solve(wide, inputs.make(wide, 0)))
    assert 0 < rows.sum() < len(rows)
    answers = right_answers(wide)
    flags = torch.from_numpy(rows)
    assert not judge(wide, declared, loss=torch.where(flags, torch.nan, answers.loss)).is_wrong
    assert judge(wide, declared, loss=torch.where(flags, answers.loss, torch.nan)).is_wrong
    assert judge(
        wide, declared, loss=torch.where(flags, torch.nan, answers.loss), changed=("logits after forward",)
    ).is_wrong


def test_a_mean_over_no_row_is_explained_where_there_is_none_and_not_elsewhere():
    declared = dataclasses.replace(PLAIN, deviations=(Deviation("all-ignored-mean", "a divisor of at least 1"),))
    nothing = Problem.parse("N=4,C=10,ignored=1.0")
    zero = torch.zeros_like(right_answers(nothing).loss)
    seen = judge(nothing, declared, loss=zero, loss_no_grad=zero, loss_again=zero)
    assert seen.deviations == ("all-ignored-mean",)
    assert judge(nothing, loss=zero).is_wrong
    assert judge(MEAN, declared, loss=torch.zeros_like(right_answers(MEAN).loss)).is_wrong
    other = right_answers(nothing).gradient + 1
    assert judge(nothing, declared, loss=zero, loss_no_grad=zero, loss_again=zero, gradient=other).is_wrong


@pytest.mark.parametrize("target", ["index", "soft"])
def test_a_mean_of_an_empty_batch_is_one_over_no_row(target: str) -> None:
    declared = dataclasses.replace(PLAIN, deviations=(Deviation("all-ignored-mean", "a divisor of at least 1"),))
    empty = Problem.parse(f"N=0,C=4,target={target}")
    zero = torch.zeros_like(right_answers(empty).loss)
    assert judge(empty, declared, loss=zero, loss_no_grad=zero, loss_again=zero).deviations == ("all-ignored-mean",)
    assert judge(empty, loss=zero).is_wrong
    other = dataclasses.replace(PLAIN, deviations=(UNSHIFTED,))
    assert judge(empty, other, loss=zero, loss_no_grad=zero, loss_again=zero).deviations == ()


def test_a_second_backward_that_is_declared_explains_no_first_one():
    declared = dataclasses.replace(PLAIN, deviations=(Deviation("second-backward", "scaled in place"),))
    gradient = right_answers(MEAN).gradient
    assert judge(MEAN, gradient_again=gradient * 2).is_wrong
    assert judge(MEAN, declared, gradient_again=gradient * 2).deviations == ("second-backward",)
    assert judge(MEAN, declared, gradient=gradient * 2).is_wrong
    assert judge(MEAN, declared, second_loss=right_answers(MEAN).loss * 3).is_wrong


def test_a_second_derivative_that_is_declared_explains_nothing_else():
    declared = dataclasses.replace(PLAIN, deviations=(Deviation("second-derivative", "none is written"),))
    nothing = torch.zeros_like(right_answers(MEAN).gradient)
    assert judge(MEAN, hessian_product=nothing).is_wrong
    assert judge(MEAN, declared, hessian_product=nothing).deviations == ("second-derivative",)
    assert judge(MEAN, declared, gradient_again=nothing).is_wrong


def test_answers_of_an_interpreter_are_labelled():
    assert "interpreted" in judge(MEAN, dataclasses.replace(PLAIN, interpreted=True)).labels
    assert "interpreted" not in judge(MEAN).labels


def test_unknown_deviation_is_refused():
    with pytest.raises(UsageError, match="'unshifted-exponents' is unknown: did you mean 'unshifted-exponent'"):
        Deviation("unshifted-exponents", "because")
    assert set(parity.DEVIATIONS) == set(DEVIATION_CODES)


ODD = {
    "complex": lambda t: t.to(torch.complex64),
    "integer": lambda t: t.nan_to_num(0.0).long(),
    "boolean": lambda t: t.bool(),
    "float8": lambda t: t.to(torch.float8_e5m2),
    "scalar": lambda _: torch.tensor(1.0),
    "empty": lambda _: torch.empty(0),
    "vector": lambda _: torch.ones(7),
    "transposed": lambda t: t.transpose(0, -1) if t.dim() > 1 else t,
    "meta": lambda t: t.to("meta"),
    "sparse": lambda t: t.to_sparse(),
    "expanded": lambda t: torch.ones(()).expand(t.shape),
    "all NaN": lambda t: torch.full_like(t, torch.nan),
    "all inf": lambda t: torch.full_like(t, torch.inf),
    "all zero": torch.zeros_like,
    "huge": lambda t: torch.full_like(t, torch.finfo(t.dtype).max),
    "subnormal": lambda t: torch.full_like(t, torch.finfo(t.dtype).tiny / 8),
}
ODD_PROBLEMS = (
    "N=none,C=4",
    "N=0,C=4",
    "N=0,C=4,reduction=none",
    "N=4,C=4,ignored=1.0",
    "N=4,C=4,reduction=none,weight=random,label-smoothing=0.1,ignored=0.3,ignore-index=1",
    "N=4,C=4,reduction=none,dtype=float16,logits=wide",
    "N=4,C=1,dtype=float64",
    "N=4,C=4,weight=absent-only",
    "N=3,C=4,logits=masked,reduction=sum,dtype=bfloat16",
    "N=3,C=4,target=soft,target-grad=yes,weight=random,label-smoothing=0.1",
)


@pytest.mark.parametrize(("key", "name"), list(itertools.product(ODD_PROBLEMS, ODD)))
def test_no_answer_however_odd_raises(key, name):
    problem, odd = Problem.parse(key), ODD[name]
    answers = right_answers(problem)
    gradient = odd(answers.gradient)
    target_gradient = None if answers.target_gradient is None else odd(answers.target_gradient)
    verdicts = [
        judge(problem, loss=odd(answers.loss), gradient=gradient, target_gradient=target_gradient),
        judge(problem, loss_no_grad=odd(answers.loss), loss_again=odd(answers.loss)),
        judge(problem, gradient=gradient, target_gradient=target_gradient),
    ]
    for verdict in verdicts:
        assert (verdict.status is Status.PASSED) == (not verdict.failures)
        assert "\n" not in verdict.reason
    has_mean = problem.ignored < 1.0 and problem.weight != "absent-only"
    if problem.elements > 4 and has_mean and name not in ("transposed", "sparse"):
        assert verdicts[0].is_wrong


def test_blocks_do_not_change_the_verdict(monkeypatch):
    problem = Problem.parse("N=40,C=6,reduction=none,dtype=float64")
    gradient = right_answers(problem).gradient.clone()
    gradient[17, 2] *= 1.5
    gradient[33, 1] *= 1.01
    whole = judge(problem, gradient=gradient)
    monkeypatch.setattr("xentbench.rows.BLOCK_ELEMENTS", 60)
    blocked = judge(problem, gradient=gradient)
    assert blocked.status is whole.status is Status.WRONG_GRADIENT
    assert blocked.bound_ratio == whole.bound_ratio
    assert blocked.reason.startswith("gradient[17, 2] ")


def test_answers_can_come_without_gradient_fields():
    loss = right_answers(MEAN).loss
    given = inputs.make(MEAN, 0)
    answers = Answers(loss, loss, loss, gradient=None, target_gradient=None)
    verdict = parity.judge(Question.of(MEAN, given), answers, PLAIN)
    assert verdict.status is Status.WRONG_GRADIENT
