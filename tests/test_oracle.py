"""The truth against the definition in fifty digits, and against the conventions of F.cross_entropy."""

import dataclasses
import itertools
import tracemalloc

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from xentbench import inputs, oracle, rows
from xentbench.inputs import Inputs
from xentbench.spec import Problem
from xentbench.worker import calls

KEYS = (
    "N=none,C=4",
    "N=4,C=3,reduction=none",
    "N=5,C=4,reduction=sum,dtype=bfloat16",
    "N=5,C=4,weight=random,ignored=0.4",
    "N=6,C=4,weight=unequal,ignored=0.4,ignore-index=1,reduction=sum",
    "N=6,C=4,weight=random,label-smoothing=0.1,ignored=0.3,ignore-index=0",
    "N=5,C=4,label-smoothing=1.0,reduction=none,dtype=float16",
    "N=2,C=3,dims=2x2,weight=some-zero,label-smoothing=0.2",
    "N=2,C=3,dims=2,ignored=0.4,ignore-index=255,logits-layout=channels-last",
    "N=4,C=3,target=one-hot,target-grad=yes",
    "N=4,C=3,target=soft,weight=random,reduction=none,target-grad=yes",
    "N=4,C=3,target=unnormalised,label-smoothing=0.1,weight=random,target-grad=yes",
    "N=2,C=3,dims=2,target=unnormalised,reduction=sum",
    "N=none,C=4,target=soft,label-smoothing=0.3",
    "N=4,C=3,scale=100.0,labels=unlikely",
    "N=4,C=3,offset=10000.0,dtype=float64",
    "N=4,C=1,label-smoothing=0.1",
)
OPTIONS = st.builds(
    lambda shape, weight, smoothing, reduction, **axes: Problem(
        batch_size=shape[0],
        num_classes=shape[1],
        dims=shape[2],
        weight=weight,
        label_smoothing=smoothing,
        reduction=reduction,
        dtype="float64",
        **(axes if axes["target"] == "index" else axes | {"ignore_index": -100}),
    ),
    shape=st.sampled_from([(None, 4, ()), (1, 1, ()), (7, 3, ()), (3, 5, (2,)), (2, 3, (2, 2)), (5, 33, ())]),
    weight=st.sampled_from(["none", "random", "unequal", "some-zero", "tiny"]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    target=st.sampled_from(["index", "one-hot", "soft", "unnormalised"]),
    target_grad=st.booleans(),
    ignored=st.sampled_from([0.0, 0.4]),
    ignore_index=st.sampled_from([-100, -1, 0, 255]),  # used for class indices only: pytorch refuses others
    logits=st.sampled_from(["normal", "peaked", "wide", "equal"]),
    logits_layout=st.sampled_from(["contiguous", "transposed", "column-slice"]),
    seed=st.integers(0, 9),
)


def fifty_digit_losses(problem, given):
    """The loss of each row and the mean's divisor, by the definition, one number at a time."""
    logits = rows.classes_last(given.logits, problem).double().tolist()
    classes, eps = problem.num_classes, mpmath.mpf(problem.label_smoothing)
    weight = (
        [mpmath.mpf(1)] * classes if given.weight is None else [mpmath.mpf(w) for w in given.weight.double().tolist()]
    )
    target = given.target.reshape(-1) if problem.has_index_target else rows.classes_last(given.target, problem).double()
    losses, divisor = [], mpmath.mpf(0)
    for row, wanted in zip(logits, target.tolist(), strict=True):
        logsumexp = mpmath.log(sum(mpmath.exp(x) for x in row))
        nll = [logsumexp - x for x in row]
        if problem.has_index_target:
            if wanted == problem.ignore_index:
                losses.append(mpmath.mpf(0))
                continue
            divisor += weight[wanted]
            smooth = sum(w * loss for w, loss in zip(weight, nll, strict=True)) / classes
            losses.append((1 - eps) * weight[wanted] * nll[wanted] + eps * smooth)
        else:
            divisor += 1
            soft = [(1 - eps) * y + eps / classes for y in wanted]
            losses.append(sum(w * y * loss for w, y, loss in zip(weight, soft, nll, strict=True)))
    return losses, divisor


@pytest.mark.parametrize("key", KEYS)
def test_loss_is_the_definition_in_fifty_digits(key):
    problem = Problem.parse(key)
    given = inputs.make(problem, 3)
    found = oracle.solve(problem, given).loss.torch
    with mpmath.workdps(50):
        losses, divisor = fifty_digit_losses(problem, given)
        expected = {"none": losses, "sum": [sum(losses)], "mean": [sum(losses) / divisor]}[problem.reduction]
        for got, exact in zip(found.reshape(-1), expected, strict=True):
            assert abs(mpmath.mpf(float(got)) - exact) <= 1e-15 * abs(exact) + 1e-40
    assert found.shape == problem.loss_shape
    assert found.dtype == np.float64


def fifty_digit_gradient(problem, given, divisor):
    """`s (Q p - q)` of each row and class, one number at a time, and the size of its two terms."""
    logits = rows.classes_last(given.logits, problem).double().tolist()
    classes, eps = problem.num_classes, mpmath.mpf(problem.label_smoothing)
    weight = [1.0] * classes if given.weight is None else given.weight.double().tolist()
    target = given.target.reshape(-1) if problem.has_index_target else rows.classes_last(given.target, problem).double()
    upstream = given.upstream.double().reshape(-1).tolist() * (1 if problem.reduction == "none" else problem.rows)
    for row, wanted, arriving in zip(logits, target.tolist(), upstream, strict=True):
        scale = mpmath.mpf(arriving) / (divisor if problem.reduction == "mean" else 1)
        if problem.has_index_target and wanted == problem.ignore_index:
            yield [(mpmath.mpf(0), mpmath.mpf(0))] * classes
            continue
        labels = [float(c == wanted) for c in range(classes)] if problem.has_index_target else wanted
        keep = weight[wanted] if problem.has_index_target else 1
        share = [((1 - eps) * y + eps / classes) * mpmath.mpf(w) for y, w in zip(labels, weight, strict=True)]
        if problem.has_index_target:
            share = [(1 - eps) * y * keep + eps / classes * mpmath.mpf(w) for y, w in zip(labels, weight, strict=True)]
        exponentials = [mpmath.exp(x) for x in row]
        softmax = [sum(share) * e / sum(exponentials) for e in exponentials]
        yield [(scale * (p - q), abs(scale) * (p + q)) for p, q in zip(softmax, share, strict=True)]


@settings(max_examples=60, deadline=None)
@given(problem=OPTIONS)
def test_loss_and_gradient_are_the_definition_in_sixty_digits_whatever_the_problem(problem):
    given_ = inputs.make(problem, 1)
    truth = oracle.solve(problem, given_)
    with mpmath.workdps(60):
        losses, divisor = fifty_digit_losses(problem, given_)
        if not divisor:
            return
        expected = {"none": losses, "sum": [sum(losses)], "mean": [sum(losses) / divisor]}[problem.reduction]
        pairs = zip(truth.loss.torch.reshape(-1), truth.loss.low.reshape(-1), expected, strict=True)
        # The definition cancels: of sixty digits, a loss far below the logits keeps the fewer the smaller it is.
        off = [(abs(mpmath.mpf(float(high)) + float(low) - exact), abs(exact)) for high, low, exact in pairs]
        assert all(error <= 1e-22 * size + 1e-50 for error, size in off)
        high, low = (
            rows.classes_last(torch.from_numpy(part), problem).tolist()
            for part in (truth.gradient.torch, truth.gradient.low)
        )
        for place, row in enumerate(fifty_digit_gradient(problem, given_, divisor)):
            for column, (exact, size) in enumerate(row):
                found = mpmath.mpf(high[place][column]) + low[place][column]
                assert abs(found - exact) <= 1e-22 * size + 1e-50


@settings(max_examples=150, deadline=None)
@given(problem=OPTIONS)
def test_loss_and_gradients_agree_with_pytorch_in_float64(problem):
    given_ = inputs.make(problem, 0)
    truth = oracle.solve(problem, given_)
    answers = calls.answer(
        lambda logits, target: functional.cross_entropy(logits, target, **calls.options_of(problem, given_.weight)),
        problem,
        given_,
    )
    assert_close(answers.loss, truth.loss.torch)
    assert_close(answers.gradient, truth.gradient.torch)
    if truth.target_gradient is not None:
        assert_close(answers.target_gradient, truth.target_gradient.torch)


def assert_close(got, expected):
    """F.cross_entropy itself is off by some 1e-16 absolute on confident rows."""
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-11, atol=1e-14 * largest)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_truth_is_evaluated_at_the_stored_numbers(dtype):
    problem = Problem(batch_size=6, num_classes=5, dtype=dtype, weight="random", target="soft")
    given_ = inputs.make(problem, 0)
    exact = Inputs(*(getattr(given_, name).double() for name in ("logits", "target", "weight", "upstream")))
    widened = oracle.solve(dataclasses.replace(problem, dtype="float64"), exact)
    found = oracle.solve(problem, given_)
    np.testing.assert_allclose(found.loss.torch, widened.loss.torch, rtol=1e-15)
    np.testing.assert_allclose(found.gradient.torch, widened.gradient.torch, rtol=1e-14, atol=1e-17)


@pytest.mark.parametrize("key", KEYS)
def test_loss_of_a_float64_problem_is_right_to_twenty_five_digits(key):
    problem = dataclasses.replace(Problem.parse(key), dtype="float64")
    given_ = inputs.make(problem, 3)
    found = oracle.solve(problem, given_).loss
    with mpmath.workdps(60):
        losses, divisor = fifty_digit_losses(problem, given_)
        expected = {"none": losses, "sum": [sum(losses)], "mean": [sum(losses) / divisor]}[problem.reduction]
        for got, low, exact in zip(found.torch.reshape(-1), found.low.reshape(-1), expected, strict=True):
            assert abs(mpmath.mpf(float(got)) + mpmath.mpf(float(low)) - exact) <= 1e-25 * abs(exact)


def adversarial_rows():
    """Logits whose largest stands first, so that label 0 is the confident one and label 1 another."""
    normal = np.random.default_rng(0).standard_normal(40)
    rows_ = {f"margin {margin}": np.r_[margin, np.zeros(9)] for margin in (5.0, 20.0, 36.7, 40.0, 100.0, 300.0, 600.0)}
    rows_ |= {"normal": normal, "wide": 10.0 * normal, "equal": np.full(40, 0.3), "two": np.array([0.1, 0.2])}
    rows_ |= {"offset 1e4": normal + 1e4, "offset -1e8": normal - 1e8, "sorted": np.sort(7.0 * normal)}
    rows_ |= {"huge": np.array([1e30, -1e30, 1e30, 0.0]), "apart": np.array([1e30, -1e30, 3.0])}
    rows_ |= {"masked": np.array([1.0, 0.5, -np.inf, -np.inf, 0.25]), "subnormal": np.array([1e-310, -3e-312, 5e-324])}
    return rows_


ADVERSARIAL = adversarial_rows()


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_float64_truth_of_an_adversarial_row_is_right_to_twenty_five_digits(name, label):
    row = ADVERSARIAL[name]
    problem = Problem(batch_size=1, num_classes=len(row), dtype="float64", reduction="none")
    given_ = Inputs(torch.tensor(row)[None], torch.tensor([label]), None, torch.full((1,), 0.7, dtype=torch.float64))
    truth = oracle.solve(problem, given_)
    with mpmath.workdps(400):
        exponentials = [mpmath.exp(mpmath.mpf(float(x)) - mpmath.mpf(float(row.max()))) for x in row]
        whole, largest = sum(exponentials), mpmath.mpf(float(row.max()))
        rest = sum(exponentials) - exponentials[label]
        gradient = [mpmath.mpf(0.7) * e / whole for e in exponentials]
        gradient[label] = -mpmath.mpf(0.7) * rest / whole
        assert_right(truth.loss, [mpmath.log(whole) + largest - mpmath.mpf(float(row[label]))])
        assert_right(truth.gradient, gradient)


def assert_right(values, exact):
    """Relative 1e-25; numbers that underflow, absolute."""
    for high, low, number in zip(values.torch.reshape(-1), values.low.reshape(-1), exact, strict=True):
        found = mpmath.mpf(float(high)) + mpmath.mpf(float(low))
        assert abs(found - number) <= 1e-25 * abs(number) + mpmath.mpf(2) ** -1070


def test_only_float64_problems_are_solved_in_double_double():
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        problem = Problem(batch_size=3, num_classes=4, dtype=dtype)
        truth = oracle.solve(problem, inputs.make(problem, 0))
        assert (truth.loss.low is not None) == (truth.gradient.low is not None) == (dtype == "float64")


def test_target_gradient_of_a_float64_problem_is_right_to_twenty_five_digits():
    problem = Problem.parse("N=4,C=3,target=soft,label-smoothing=0.1,weight=random,target-grad=yes,dtype=float64")
    given_ = inputs.make(problem, 3)
    truth = oracle.solve(problem, given_)
    with mpmath.workdps(60):
        exact = []
        for row in given_.logits.tolist():
            logsumexp = mpmath.log(sum(mpmath.exp(x) for x in row))
            share = mpmath.mpf(given_.upstream.item()) / 4 * (1 - mpmath.mpf(0.1))
            exact += [share * mpmath.mpf(w) * (logsumexp - x) for w, x in zip(given_.weight.tolist(), row, strict=True)]
        assert_right(truth.target_gradient, exact)


def test_special_numbers_have_no_low_half():
    logits = torch.tensor([[-INF, 0.0, 1.0], [NAN, 0.0, 1.0], [0.5, 1.0, 2.0]], dtype=torch.float64)
    problem = Problem(batch_size=3, num_classes=3, dtype="float64", reduction="none")
    truth = oracle.solve(problem, Inputs(logits, torch.tensor([0, 1, 1]), None, torch.ones(3, dtype=torch.float64)))
    assert truth.loss.low[:2].tolist() == [0.0, 0.0]
    assert truth.loss.low[2] != 0.0
    assert np.isfinite(truth.gradient.low).all()


def test_confident_rows_keep_their_digits():
    logits = torch.tensor([[40.0, 0.0], [600.0, 0.0]], dtype=torch.float64)
    given_ = Inputs(logits, torch.tensor([0, 0]), None, torch.ones(2, dtype=torch.float64))
    truth = oracle.solve(Problem(batch_size=2, num_classes=2, dtype="float64", reduction="none"), given_)
    with mpmath.workdps(400):
        for got, margin in zip(truth.loss.torch, (40, 600), strict=True):
            assert float(got) == pytest.approx(float(mpmath.log1p(mpmath.exp(-margin))), rel=4e-16)
    np.testing.assert_allclose(truth.gradient.torch[:, 0], -np.exp([-40.0, -600.0]), rtol=1e-15)


@pytest.mark.parametrize(("reduction", "target"), list(itertools.product(["mean", "sum", "none"], ["index", "soft"])))
def test_empty_batch_follows_pytorch(reduction, target):
    problem = Problem(batch_size=0, num_classes=3, reduction=reduction, target=target, dtype="float64")
    given_ = inputs.make(problem, 0)
    truth = oracle.solve(problem, given_)
    expected = functional.cross_entropy(given_.logits, given_.target, reduction=reduction)
    np.testing.assert_array_equal(truth.loss.torch, expected.numpy())
    assert truth.gradient.torch.shape == (0, 3)


@pytest.mark.parametrize(("reduction", "loss"), [("mean", np.nan), ("sum", 0.0), ("none", 0.0)])
def test_all_rows_ignored(reduction, loss):
    problem = Problem(batch_size=3, num_classes=4, ignored=1.0, reduction=reduction, label_smoothing=0.1)
    truth = oracle.solve(problem, inputs.make(problem, 0))
    np.testing.assert_array_equal(truth.loss.torch, np.full(problem.loss_shape, loss))
    np.testing.assert_array_equal(truth.gradient.torch, np.zeros((3, 4)))


INF, NAN = np.inf, np.nan
SPECIAL_ROWS = {
    "label at -inf": [-INF, 0.0, 1.0],
    "another at -inf": [0.0, -INF, 1.0],
    "all at -inf": [-INF, -INF, -INF],
    "label at +inf": [INF, 0.0, 1.0],
    "another at +inf": [0.0, INF, 1.0],
    "label NaN": [NAN, 0.0, 1.0],
    "another NaN": [0.0, NAN, 1.0],
    "only the label finite": [0.0, -INF, -INF],
}
SPECIAL_OPTIONS = {
    "plain": {},
    "smoothing": {"label_smoothing": 0.1},
    "ignored": {"ignore_index": 0},
    "weight": {"weight": torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64)},
    "weight of the label 0": {"weight": torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)},
    "one-hot probabilities": {"target": "one-hot"},
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("option", SPECIAL_OPTIONS)
@pytest.mark.parametrize("name", SPECIAL_ROWS)
def test_special_values_follow_pytorch(name, option, reduction):
    options = dict(SPECIAL_OPTIONS[option])
    one_hot, weight = options.pop("target", None), options.pop("weight", None)
    logits = torch.tensor([SPECIAL_ROWS[name], [0.5, 1.0, 2.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    target = functional.one_hot(labels, 3).double() if one_hot else labels
    axes = {"batch_size": 2, "num_classes": 3, "dtype": "float64", "reduction": reduction, "target": one_hot or "index"}
    problem = Problem(**axes, **options)
    given_ = Inputs(logits, target, weight, torch.ones(problem.loss_shape, dtype=torch.float64))
    truth = oracle.solve(problem, given_)
    leaf = logits.clone().requires_grad_()
    loss = functional.cross_entropy(leaf, target, weight=weight, reduction=reduction, **options)
    loss.sum().backward()
    np.testing.assert_allclose(truth.loss.torch, loss.detach().numpy(), rtol=1e-13)
    np.testing.assert_allclose(truth.gradient.torch, leaf.grad.numpy(), rtol=1e-13, atol=1e-15)


def test_masked_kernels_may_take_zero_times_anything_as_zero():
    logits = torch.tensor([[NAN, 0.0], [0.0, 1.0]], dtype=torch.float64)
    problem = Problem(batch_size=2, num_classes=2, dtype="float64")
    truth = oracle.solve(problem, Inputs(logits, torch.tensor([-100, 1]), None, torch.tensor(1.0)))
    assert np.isnan(truth.gradient.torch[0]).all()
    assert not truth.gradient.masked[0].any()
    assert truth.loss.torch == truth.loss.masked
    one_hot = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    masked = Inputs(torch.tensor([[0.0, -INF]], dtype=torch.float64), one_hot, None, torch.tensor(1.0))
    truth = oracle.solve(Problem(batch_size=1, num_classes=2, dtype="float64", target="one-hot"), masked)
    assert np.isnan(truth.loss.torch)
    assert truth.loss.masked == 0.0


def test_masked_kernels_may_give_inf_for_a_logit_at_inf():
    given_ = Inputs(torch.tensor([[0.0, INF]]), torch.tensor([0]), None, torch.tensor([1.0]))
    truth = oracle.solve(Problem(batch_size=1, num_classes=2, reduction="none"), given_)
    assert np.isnan(truth.loss.torch[0])
    assert truth.loss.masked[0] == INF


def test_truth_without_special_values_is_held_once():
    problem = Problem(batch_size=3, num_classes=4)
    truth = oracle.solve(problem, inputs.make(problem, 0))
    assert truth.loss.torch is truth.loss.masked
    assert truth.gradient.torch is truth.gradient.masked


def test_temporaries_do_not_grow_with_the_number_of_rows(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_ELEMENTS", 1 << 12)
    beyond = []
    for size in (512, 4096):
        problem = Problem(batch_size=size, num_classes=64)
        given_ = inputs.make(problem, 0)
        tracemalloc.start()
        truth = oracle.solve(problem, given_)
        beyond.append(tracemalloc.get_traced_memory()[1] - truth.gradient.torch.nbytes)
        tracemalloc.stop()
    per_row_bytes = 8 * 24
    assert beyond[1] - beyond[0] < 4096 * per_row_bytes
