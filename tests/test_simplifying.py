"""Simpler questions are questions: their tensors fit their problem, whatever the start was."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from test_panel import OPTIONS

from xentbench import inputs, oracle
from xentbench.simplifying import STEPS, Case, shortest
from xentbench.spec import Problem


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(problem=OPTIONS)
def test_every_candidate_is_a_whole_question(problem: Problem):
    start = Case.of(problem, inputs.make(problem, seed=0))
    for step in STEPS:
        for case in step(start):
            asked, given = case.problem, case.inputs
            assert given.logits.shape == asked.logits_shape
            assert given.target.shape == (asked.row_shape if asked.has_index_target else asked.logits_shape)
            assert given.upstream.shape == asked.loss_shape
            assert (given.weight is None) == (asked.weight == "none")
            if asked.has_index_target:
                valid = given.target[given.target != asked.ignore_index]
                assert ((valid >= 0) & (valid < asked.num_classes)).all()
            assert oracle.solve(asked, given).loss.torch.shape == asked.loss_shape


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(problem=OPTIONS)
def test_classes_left_out_keep_soft_targets_probabilities(problem: Problem):
    start = Case.of(problem, inputs.make(problem, seed=0))
    for step in STEPS:
        for case in step(start):
            if case.problem.target in ("soft", "one-hot") and case.problem.rows:
                sums = case.inputs.target.double().sum(0 if case.problem.batch_size is None else 1)
                torch.testing.assert_close(sums, torch.ones_like(sums), atol=0.02, rtol=0.0)


def test_a_recorded_question_becomes_one_of_its_own_numbers():
    problem = Problem(batch_size=2, num_classes=3, logits="digits@abc", weight="recorded")
    given = inputs.Inputs(torch.zeros(2, 3), torch.tensor([0, 1]), torch.ones(3), torch.tensor(1.0))
    assert Case.of(problem, given).problem.key == "cross_entropy:N=2,C=3,weight=random"


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (0.1, torch.float32, "0.1"),
        (0.1, torch.bfloat16, "0.1"),
        (100.0, torch.float64, "100"),
        (-100, torch.int64, "-100"),
        (1.0 / 3.0, torch.float16, "0.3333"),
        (-torch.inf, torch.float32, "-inf"),
        (torch.nan, torch.float32, "nan"),
    ],
)
def test_numbers_are_told_by_their_shortest_text(value: float, dtype: torch.dtype, text: str):
    assert shortest(torch.tensor(value, dtype=dtype).item(), dtype) == text


@hypothesis.given(st.floats(allow_nan=False), st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_the_shortest_text_reads_back(value: float, dtype: torch.dtype):
    stored = torch.tensor(value, dtype=dtype).item()
    assert torch.tensor(float(shortest(stored, dtype)), dtype=dtype).item() == stored
