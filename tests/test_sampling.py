"""Large problems: every loss, a secret sample of the gradient, laws for all of it; here with no problem too small."""

import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from large_fixtures import LARGE, ROWS, Tampered, gradient_with, judge, nothing_is_small, set_row, unsampled
from test_panel import DECLARED, FULL, OPTIONS, RIGHT, WRONG, after
from torch.nn import functional

from xentbench import inputs, oracle, panel, problems, rows, sampling, streaming
from xentbench.examining import examine
from xentbench.posing import Question
from xentbench.spec import Problem, Status
from xentbench.worker import calls

__all__ = ["nothing_is_small"]


@pytest.mark.parametrize("name", RIGHT)
def test_right_implementation_passes_the_full_panel(name):
    failures = {problem.key: judge(RIGHT[name], problem) for problem in FULL}
    assert {key: verdict.reason for key, verdict in failures.items() if verdict.status is not Status.PASSED} == {}


@settings(max_examples=150, deadline=None)
@given(problem=OPTIONS, name=st.sampled_from(["chunked-online", "float64-inside"]))
def test_right_implementation_never_fails(problem, name):
    assert judge(RIGHT[name], problem).reason == ""


@pytest.mark.parametrize("name", sorted(WRONG.keys() - {"hidden state"}))  # a second call is not asked for
def test_planted_mistakes_of_the_panel_are_found(name):
    assert any(judge(WRONG[name], problem).is_wrong for problem in panel.panel("quick"))


@settings(max_examples=100, deadline=None)
@given(problem=OPTIONS)
def test_sample_label_and_signed_sum_are_those_of_the_whole_gradient(problem):
    given_ = inputs.make(problem, 0)
    whole, lean = oracle.solve(problem, given_), sampling.solve(problem, given_, 0)
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
        # Q p and q may cancel, in both.
        assert (np.abs(found - wanted) <= 1e-9 * np.abs(wanted) + 1e-3 * size + 1e-300).all()


def test_only_the_sample_sees_a_probability_targets_gradient():
    problem = Problem(batch_size=40, num_classes=30, target="soft", target_grad=True)

    def tamper(gradient):
        gradient[-1, 3] *= 1.01

    def tampered(input, target, **options):  # noqa: A002 - torch's
        return functional.cross_entropy(input, Tampered.apply(target, tamper), **options)

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
    assert sampling.solve(LARGE, inputs.make(LARGE, 0), 0).sample is None
    monkeypatch.setattr(problems, "SAMPLED_ELEMENTS", LARGE.elements - 1)
    truth = sampling.solve(LARGE, inputs.make(LARGE, 0), 0)
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
        return {"changed": [], "notes": [], "shared": []}, named

    def check_silence(self, verb: str) -> None:
        """Nothing was written that nobody asked for."""


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
        sampling.solve(problem, given_, 0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 100 * 8 * (1024 - 256)
