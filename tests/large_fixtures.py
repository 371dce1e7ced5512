"""Problems judged as large ones are, however small, and gradients that are tampered with."""

from typing import Any

import pytest
import torch
from test_panel import before, judge_answers

from xentbench import inputs, problems, sampling
from xentbench.spec import Problem, Verdict

LARGE = Problem(batch_size=300, num_classes=40, ignored=0.2, reduction="sum")
ROWS = 9


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    monkeypatch.setattr(problems, "SAMPLED_ELEMENTS", 0)
    monkeypatch.setattr(problems, "SAMPLED_ROWS", ROWS)
    monkeypatch.setattr(inputs, "SMALL_ELEMENTS", 0)  # nothing large is asked for second derivatives


def judge(loss: Any, problem: Problem, seed: int = 0) -> Verdict:
    return judge_answers(loss, problem, inputs.make(problem, seed))


def unsampled(problem, count=1):
    """Rows that count and whose gradient is not in the sample of seed 0."""
    places, _ = sampling.draw(problem, 0)
    target = inputs.make(problem, 0).target.reshape(-1)
    return [row for row in range(problem.rows) if row not in places and target[row] != problem.ignore_index][:count]


def gradient_with(tamper):
    return before(lambda a: {"input": Tampered.apply(a["input"], tamper)})


class Tampered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor, tamper):
        ctx.tamper = tamper
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        changed = gradient.clone()
        ctx.tamper(changed)
        return changed, None


def set_row(row, value):
    def tamper(gradient):
        gradient[row] = value

    return tamper
