"""Large problems: every loss, a secret sample of the gradient, laws for all of it; here with no problem too small."""

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_panel import DECLARED, FULL, OPTIONS, RIGHT, WRONG, after, before, judge_answers
from torch.nn import functional

from xentbench import bounds, inputs, oracle, panel, problems, rows, sampling, streaming
from xentbench.examining import examine
from xentbench.posing import Question
from xentbench.spec import Problem, Status, Verdict
from xentbench.worker import calls

LARGE = Problem(batch_size=300, num_classes=40, ignored=0.2, reduction="sum")
ROWS = 9


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    monkeypatch.setattr(problems, "SAMPLED_ELEMENTS", 0)
    monkeypatch.setattr(problems, "SAMPLED_ROWS", ROWS)


def solve(problem, given_, seed=0):
    return sampling.solve(problem, given_, seed)


def judge(loss: Any, problem: Problem, seed: int = 0) -> Verdict:
    return judge_answers(loss, problem, inputs.make(problem, seed))


def unsampled(problem, count=1):
    """Rows that count and whose gradient is not in the sample of seed 0."""
    places, _ = sampling.draw(problem, 0)
    target = inputs.make(problem, 0).target.reshape(-1)
    return [row for row in range(problem.rows) if row not in places and target[row] != problem.ignore_index][:count]


def gradient_with(tamper):
    return before(lambda a: {"input": _Tampered.apply(a["input"], tamper)})


class _Tampered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor, tamper):
        ctx.tamper = tamper
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        changed = gradient.clone()
        ctx.tamper(changed)
        return changed, None


@pytest.mark.parametrize("name", RIGHT)
def test_right_implementation_passes_the_full_panel(name):
    failures = {problem.key: judge(RIGHT[name], problem) for problem in FULL}
    assert {key: verdict.reason for key, verdict in failures.items() if verdict.status is not Status.PASSED} == {}


@settings(max_examples=150, deadline=None)
@given(problem=OPTIONS, name=st.sampled_from(["chunked-online", "float64-inside"]))
def test_right_implementation_never_fails(problem, name):
    assert judge(RIGHT[name], problem).reason == ""


@pytest.mark.parametrize("name", sorted(WRONG))
def test_planted_mistakes_of_the_panel_are_found(name):
    assert any(judge(WRONG[name], problem).is_wrong for problem in panel.panel("quick"))


@settings(max_examples=300, deadline=None)
@given(problem=OPTIONS, special=st.booleans())
def test_losses_and_ingredients_are_those_of_the_whole_truth_or_safer(problem, special):
    given_ = inputs.make(problem, 0)
    if special and problem.batch_size:
        given_.logits[0, 1:] = -torch.inf
        given_.logits[-1, 0] = torch.nan
    whole, lean = oracle.solve(problem, given_), solve(problem, given_)
    for wanted, found in ((whole.loss.torch, lean.loss.torch), (whole.loss.masked, lean.loss.masked)):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)
    loose = ("spread", "target_logits", "underflow", "working_underflow")
    for name in rows.Rows.__slots__:
        wanted, found = getattr(whole.rows, name), getattr(lean.rows, name)
        known = np.isfinite(whole.rows.largest) & np.isfinite(wanted)
        wanted, found = wanted[known], found[known]
        if name in loose:
            assert (found >= wanted * (1.0 - 1e-12) - 1e-300).all(), name
        else:
            np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12, err_msg=name)


@settings(max_examples=100, deadline=None)
@given(problem=OPTIONS)
def test_sample_label_and_signed_sum_are_those_of_the_whole_gradient(problem):
    given_ = inputs.make(problem, 0)
    whole, lean = oracle.solve(problem, given_), solve(problem, given_)
    if lean.sample is None or whole.divisor == 0.0:
        return
    every = rows.classes_last(torch.from_numpy(whole.gradient.torch), problem).numpy()
    np.testing.assert_array_equal(lean.gradient.torch, every[lean.sample.places])
    usable = np.isfinite(lean.sample.signed)
    size = 1e-12 * np.abs(lean.upstream * lean.rows.mass)
    assert (np.abs(every @ lean.sample.signs - lean.sample.signed) <= size + 1e-300)[usable].all()
    if lean.sample.label is not None:
        label = every[np.arange(problem.rows), lean.sample.label.labels]
        wanted, found = (
            np.where(usable & (whole.rows.valid > 0.0), part, 0.0) for part in (label, lean.sample.label_gradient)
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-300)


@settings(max_examples=100, deadline=None)
@given(problem=OPTIONS)
def test_allowance_of_a_row_sum_covers_all_its_entries(problem):
    given_ = inputs.make(problem, 0)
    truth = oracle.solve(problem, given_)
    model = bounds.worst_case(rows.COMPUTE_DTYPE[problem.dtype])
    if truth.divisor == 0.0:
        return
    total = bounds.row_sum_error(problem, truth, model)
    for block in rows.blocks(problem, given_):
        entries = bounds.gradient_error(problem, truth, block, model, stored=True).sum(axis=1)
        assert (entries <= total[block.where] * (1.0 + 1e-9)).all()


def set_row(row, value):
    def tamper(gradient):
        gradient[row] = value

    return tamper


def scaled(gradient):
    gradient *= 1.001


def shifted_one_class(gradient):
    gradient.copy_(gradient.roll(1, 1))


def last_rows_unwritten(gradient):
    gradient[-3:] = 0.0


@pytest.mark.parametrize("tamper", [scaled, shifted_one_class, last_rows_unwritten])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_gradients_wrong_in_many_rows_are_found(tamper, reduction):
    problem = Problem(batch_size=300, num_classes=40, reduction=reduction)
    assert judge(gradient_with(tamper), problem).status is Status.WRONG_GRADIENT


def test_label_entry_of_one_row_in_the_middle_is_found_by_its_law():
    (row,) = unsampled(LARGE)
    label = int(inputs.make(LARGE, 0).target[row])

    def tamper(gradient):
        gradient[row, label] *= 1.0001

    verdict = judge(gradient_with(tamper), LARGE)
    assert verdict.status is Status.WRONG_GRADIENT
    assert verdict.reason.startswith(f"gradient[{row}, {label}] is ")
    assert f"1 of {LARGE.rows} numbers are wrong" in verdict.reason


def test_sum_of_one_row_is_found_off():
    (row,) = unsampled(LARGE)
    label = int(inputs.make(LARGE, 0).target[row])

    def tamper(gradient):
        gradient[row, (label + 1) % LARGE.num_classes] += 0.01

    assert judge(gradient_with(tamper), LARGE).reason.startswith(f"sum over classes of gradient[{row}] is 0.0")


def test_swapped_classes_that_no_sum_sees_are_found_by_the_secret_signs():
    chosen = unsampled(LARGE, 30)
    target = inputs.make(LARGE, 0).target

    def tamper(gradient):
        for row in chosen:
            others = [c for c in range(LARGE.num_classes) if c != target[row]]
            gradient[row, others] = gradient[row, others].flip(0)

    assert judge(gradient_with(tamper), LARGE).reason.startswith("sum over classes, with secret signs, of gradient[")


def test_ignored_row_that_gets_a_gradient_is_found():
    places, _ = sampling.draw(LARGE, 0)
    ignored = (inputs.make(LARGE, 0).target == LARGE.ignore_index).nonzero().reshape(-1).tolist()
    row = next(row for row in ignored if row not in places)

    def tamper(gradient):
        gradient[row, 3], gradient[row, 4] = 1e-5, -1e-5

    verdict = judge(gradient_with(tamper), LARGE)
    assert verdict.reason.startswith(f"largest entry of ignored gradient[{row}] is 9.99")


def test_only_the_sample_sees_a_probability_targets_gradient():
    problem = Problem(batch_size=40, num_classes=30, target="soft", target_grad=True)

    def tamper(gradient):
        gradient[-1, 3] *= 1.01

    def tampered(input, target, **options):  # noqa: A002 - torch's
        return functional.cross_entropy(input, _Tampered.apply(target, tamper), **options)

    assert judge(tampered, problem).reason.startswith("gradient of the target[39, 3] is ")


def test_wrong_loss_of_one_row_is_found_without_reduction():
    problem = Problem(batch_size=300, num_classes=40, reduction="none")
    (row,) = unsampled(problem)

    def change(loss, _):
        return loss * (1.0 + 1e-4 * (torch.arange(len(loss)) == row))

    assert judge(after(change), problem).reason.startswith(f"loss[{row}] is ")


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_mean_over_all_rows_is_found(dtype):
    problem = Problem(batch_size=300, num_classes=40, ignored=0.2, dtype=dtype)
    assert judge(WRONG["mean over all rows"], problem).status is Status.WRONG_VALUE


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "weight": "some-zero"}, {"target": "soft"}])
def test_special_values_are_judged_as_in_a_small_problem(reduction, dtype, options):
    problem = Problem(
        batch_size=60, num_classes=12, logits="special", ignored=0.3, reduction=reduction, dtype=dtype, **options
    )
    for name in ("F.cross_entropy", "log_softmax-gather"):
        assert judge(RIGHT[name], problem).reason == ""
    poisoned = gradient_with(set_row(next(r for r in unsampled(problem, 60) if r % 6 == 0), torch.nan))
    assert judge(poisoned, problem).status is Status.WRONG_GRADIENT


def test_reused_seed_gives_the_same_sample_and_another_one_another():
    first, again, other = (sampling.draw(LARGE, seed) for seed in (1, 1, 2))
    assert all(itertools.starmap(np.array_equal, zip(first, again, strict=True)))
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])
    places = first[0]
    assert {0, LARGE.rows - 1} <= set(places.tolist())
    assert len(set(places.tolist())) in (ROWS, ROWS - 1, ROWS - 2)
    assert set(first[1].tolist()) == {-1.0, 1.0}


def test_sampling_is_left_to_large_problems(monkeypatch):
    monkeypatch.setattr(problems, "SAMPLED_ELEMENTS", LARGE.elements)
    assert solve(LARGE, inputs.make(LARGE, 0)).sample is None
    monkeypatch.setattr(problems, "SAMPLED_ELEMENTS", LARGE.elements - 1)
    truth = solve(LARGE, inputs.make(LARGE, 0))
    assert truth.gradient.torch.shape == (len(truth.sample.places), LARGE.num_classes)


class _Told:
    """A worker that keeps what it is told."""

    def __init__(self):
        self.records = []

    def ask(self, verb, record=None, tensors=None):
        self.records.append((verb, record, tensors))
        if verb == "set-up":
            return {"setup_s": 0.0}, {}
        problem, given_ = Problem.parse(self.records[0][1]["problem"]), inputs.make(LARGE, 5)
        answers = calls.answer(lambda x, t: functional.cross_entropy(x, t, reduction="sum"), problem, given_)
        named = {name: getattr(answers, name) for name in ("loss", "loss_no_grad", "loss_again", "gradient")}
        return {"changed": [], "notes": []}, named


def test_worker_is_not_told_what_the_sample_follows_from():
    question, worker = Question.of(LARGE, inputs.make(LARGE, 5), 5), _Told()
    assert examine(worker, DECLARED, question, [], measure_memory=False).verdict.status is Status.PASSED
    (_, record, tensors), _ = worker.records
    assert set(record) == {"problem", "phases"}
    assert set(tensors) == {"logits", "target", "upstream"}


def test_memory_grows_with_the_rows_by_a_few_numbers_each(monkeypatch):
    monkeypatch.setattr(streaming, "STREAMED_ELEMENTS", 1 << 12)
    monkeypatch.setattr(rows, "BLOCK_ELEMENTS", 1 << 12)
    peaks = []
    for count in (256, 1024):
        problem = Problem(batch_size=count, num_classes=500)
        given_ = inputs.make(problem, 0)
        tracemalloc.start()
        solve(problem, given_)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 100 * 8 * (1024 - 256)
