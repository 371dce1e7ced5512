"""What a wrong answer looks like: each row of the table on an answer made to fit it, and none on noise."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from xentbench import bounds, diagnosis, inputs, oracle
from xentbench.diagnosis import Symptom
from xentbench.spec import Problem

VALUE, GRADIENT = "value", "gradient"


def symptom(key, quantity, change):
    """A symptom whose answer is `change(right answer, truth)`."""
    problem = Problem.parse(key)
    given = inputs.make(problem, 0)
    truth = oracle.solve(problem, given)
    expected = diagnosis.pick(problem, truth, quantity)
    got = np.asarray(change(expected, truth))
    allowed = 1e-12 * np.abs(expected) + 1e-300
    wrong = ~bounds.passes(bounds.need(got, expected, problem.dtype), allowed)
    return Symptom(problem, given, truth, quantity, got, expected, allowed, wrong, problem.dtype)


CASES = {
    "wrong sign": ("N=9,C=4,dtype=float64", VALUE, lambda y, _: -y),
    "no gradient at all arrives": ("N=9,C=4,dtype=float64", GRADIENT, lambda y, _: 0.0 * y),
    "summed instead of averaged": ("N=9,C=4,dtype=float64", GRADIENT, lambda y, t: y * t.divisor),
    "averaged instead of summed": ("N=9,C=4,dtype=float64,reduction=sum", VALUE, lambda y, _: y / 9.0),
    "divides by all rows": (
        "N=9,C=4,dtype=float64,ignored=0.5",
        VALUE,
        lambda y, t: y * t.divisor / 9.0,
    ),
    "number of valid rows instead of their weights": (
        "N=9,C=4,dtype=float64,weight=random",
        GRADIENT,
        lambda y, t: y * t.divisor / t.rows.valid.sum(),
    ),
    "divides by 7, which is neither": ("N=9,C=4,dtype=float64", VALUE, lambda y, t: y * t.divisor / 7.0),
    "1.001 times the right one": ("N=9,C=4,dtype=float64,reduction=none", VALUE, lambda y, _: 1.001 * y),
    "computed in float32": (
        "N=9,C=4,dtype=float64,reduction=none",
        VALUE,
        lambda y, _: y.astype(np.float32).astype(np.float64),
    ),
    "small entries": ("N=9,C=9,dtype=float64", GRADIENT, lambda y, _: np.where(np.abs(y) < 0.004, 0.0, y)),
    "last class": ("N=9,C=4,dtype=float64", GRADIENT, lambda y, _: y * np.array([1.0, 1.0, 1.0, 0.0])),
    "a floor under": ("N=9,C=4,dtype=float64,reduction=none", VALUE, lambda y, _: np.minimum(y, 1.5)),
    "not shifted": (
        "N=9,C=4,dtype=float64,logits=wide,scale=10.0,reduction=none",
        VALUE,
        lambda y, t: np.where(t.rows.largest > 709.0, np.inf, y),
    ),
}


@pytest.mark.parametrize("sentence", CASES)
def test_mistake_is_recognised(sentence):
    found = symptom(*CASES[sentence])
    assert found.wrong.any()
    assert sentence in diagnosis.explain(found)


@pytest.mark.parametrize(
    ("key", "axes", "sentence"),
    [
        ("N=9,C=4,dtype=float64,label-smoothing=0.1", {"label_smoothing": 0.0}, "label smoothing ignored"),
        ("N=9,C=4,dtype=float64,label-smoothing=0.3", {"label_smoothing": 0.4}, "spread over C - 1 classes"),
        ("N=9,C=4,dtype=float64,ignored=0.4,ignore-index=2", {"ignore_index": -9}, "ignore_index not honoured"),
    ],
)
@pytest.mark.parametrize("quantity", [VALUE, GRADIENT])
def test_answer_to_another_question_is_recognised(key, axes, sentence, quantity):
    problem = Problem.parse(key)
    elsewhere = oracle.solve(dataclasses.replace(problem, **axes), inputs.make(problem, 0))
    found = symptom(key, quantity, lambda *_: diagnosis.pick(problem, elsewhere, quantity))
    assert sentence in diagnosis.explain(found)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("quantity", [VALUE, GRADIENT])
def test_smoothing_that_bears_no_class_weights_is_recognised(quantity, reduction):
    problem = Problem.parse(
        f"N=9,C=4,dtype=float64,weight=random,label-smoothing=0.1,ignored=0.3,reduction={reduction}"
    )
    given = inputs.make(problem, 0)
    logits, weight = given.logits.detach().requires_grad_(), given.weight
    log_p, counts = F.log_softmax(logits, 1), given.target != problem.ignore_index
    label = F.nll_loss(log_p, given.target, weight, reduction="none")
    rows = 0.9 * label - 0.1 * torch.where(counts, log_p.mean(1), 0.0)
    divisor = weight[given.target[counts]].sum() if reduction == "mean" else 1.0
    loss = rows if reduction == "none" else rows.sum() / divisor
    (gradient,) = torch.autograd.grad(loss, logits, given.upstream)
    got = loss.detach().reshape(-1) if quantity == VALUE else gradient
    found = symptom(problem.key, quantity, lambda *_: got.numpy())
    assert "uniform part bears no class weights" in diagnosis.explain(found)


@pytest.mark.parametrize("quantity", [VALUE, GRADIENT])
def test_noise_looks_like_nothing(quantity):
    noise = np.random.Generator(np.random.Philox(1))
    found = symptom(
        "N=9,C=4,dtype=float64,reduction=none,weight=random,label-smoothing=0.1",
        quantity,
        lambda y, _: y * noise.uniform(0.5, 2.0, y.shape),
    )
    assert diagnosis.explain(found) == ""


def test_one_number_is_not_called_a_wrong_constant():
    key = "N=9,C=4,dtype=float64,reduction=sum,ignored=0.3"
    assert "times the right one" not in diagnosis.explain(symptom(key, VALUE, lambda y, _: -0.971 * y))


def test_unshifted_range_depends_on_dtype_and_number_of_classes():
    rows = {}
    for dtype in ("float64", "float32", "float16"):
        problem = Problem(batch_size=4, num_classes=3, dtype=dtype, offset=12.0, logits="equal")
        rows[dtype] = diagnosis.out_of_unshifted_range(problem, oracle.solve(problem, inputs.make(problem, 0))).all()
    assert rows == {"float64": False, "float32": False, "float16": True}
    near = Problem(batch_size=4, num_classes=3, dtype="float16", offset=10.5, logits="equal")
    assert diagnosis.out_of_unshifted_range(near, oracle.solve(near, inputs.make(near, 0))).all()
    alone = dataclasses.replace(near, num_classes=1)
    assert not diagnosis.out_of_unshifted_range(alone, oracle.solve(alone, inputs.make(alone, 0))).any()


def asked(key, logits, got, quantity=VALUE, label=0):
    """The diagnosis of one answer to these logits of one row."""
    problem = Problem.parse(key)
    given = inputs.make(problem, 0)
    given.logits.detach().copy_(torch.tensor([logits]))
    given.target.fill_(label)
    truth = oracle.solve(problem, given)
    expected = diagnosis.pick(problem, truth, quantity)
    values = np.asarray(got, dtype=float).reshape(expected.shape)
    wrong = values != expected
    return diagnosis.explain(
        Symptom(problem, given, truth, quantity, values, expected, 1e-16 + 0.0 * expected, wrong, problem.dtype)
    )


def test_a_logarithm_of_a_probability_that_rounds_to_zero_is_told_from_an_exponent_without_a_shift():
    zero, unshifted = "a probability that rounded to 0", "is not shifted by the maximum"
    assert asked("N=1,C=2", [-655.0, 0.0], np.inf).startswith(zero)
    assert asked("N=1,C=2", [-655.0, 0.0], [np.nan, np.nan], GRADIENT).startswith(zero)
    assert unshifted in asked("N=1,C=2", [121.0, 0.0], np.inf)
    assert unshifted in asked("N=1,C=2", [-300.0, -301.0], np.inf)
    both = asked("N=1,C=2", [121.0, 0.0], np.inf, label=1)
    assert "want of a shift" in both
    assert zero in both
    assert asked("N=1,C=2", [-3.0, 0.0], np.inf) == ""


def test_a_number_that_float32_does_not_hold_is_no_rounding_of_one_that_it_does():
    assert asked("N=1,C=1,dtype=float64", [0.0], -1e-9) == ""
    assert "float32" not in asked("N=1,C=2,dtype=float64,upstream=one", [0.0, 0.0], [-0.5, 0.499999999], GRADIENT)
    rounded = float(np.nextafter(np.float32(0.5), np.float32(0.0)))
    assert "computed in float32" in asked("N=1,C=2,dtype=float64,upstream=one", [0.0, 0.0], [-0.5, rounded], GRADIENT)


def test_a_running_sum_in_half_precision_is_not_taken_for_a_class_that_is_left_out():
    summed = "the sum of exponentials is kept in half precision"
    for classes in (337, 449):  # 449: nearly the logarithm of 448
        assert asked(f"N=1,C={classes},dtype=bfloat16,logits=equal", [0.0] * classes, 5.53125).startswith(summed)
    assert "last class" in asked("N=1,C=9,dtype=bfloat16", [0.0] * 9, np.log(8.0))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_gradient_that_was_rounded_at_its_end_is_told_with_the_dtype(dtype):
    def rounded(y, _):
        return torch.from_numpy(np.array(y)).to(getattr(torch, dtype)).double().numpy()

    found = symptom("N=9,C=4,reduction=none", GRADIENT, rounded)
    assert diagnosis.explain(found).startswith(f"rounded to {dtype}")
