"""Rows in float64: blocks, cancellation, ingredients of the bounds."""

import mpmath
import numpy as np
import pytest
import torch

from xentbench import inputs, oracle, rows
from xentbench.inputs import Inputs
from xentbench.spec import Problem

ADVERSARIAL = {
    "normal": [0.3, -1.2, 2.5, 0.1],
    "equal": [7.0, 7.0, 7.0],
    "margin 40": [40.0, 0.0, -1.0],
    "margin 600": [600.0, 0.0, 1.0],
    "offset 1e8": [1e8, 1e8 + 1.0, 1e8 - 3.0],
    "huge": [1e30, -1e30, 0.0],
    "masked": [-np.inf, 0.5, -np.inf, 0.25],
    "denormal": [1e-310, 0.0, -1e-310],
    "sorted": [0.0, 1.0, 2.0, 3.0, 4.0],
    "two classes, confident": [36.0, 0.0],
    "one class": [5.0],
}


def block_of(row):
    problem = Problem(batch_size=None, num_classes=len(row), dtype="float64", reduction="none")
    logits = torch.tensor(row, dtype=torch.float64)
    given = Inputs(logits, torch.tensor(0), None, torch.tensor(1.0, dtype=torch.float64))
    return next(rows.blocks(problem, given))


def exact_log_probabilities(row):
    """By the definition, in 400 digits: as many as it takes to add exp(-600) to 1."""
    with mpmath.workdps(400):
        finite = [mpmath.mpf(x) for x in row if np.isfinite(x)]
        shift = max(finite)
        lse = shift + mpmath.log(sum(mpmath.exp(x - shift) if x - shift > -1e4 else mpmath.mpf(0) for x in finite))
        return [mpmath.mpf(x) - lse if np.isfinite(x) else -mpmath.inf for x in row]


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_negative_log_probabilities_are_right_to_float64_rounding(name):
    expected = exact_log_probabilities(ADVERSARIAL[name])
    for got, exact in zip(block_of(ADVERSARIAL[name]).nll[0], expected, strict=True):
        if exact == -mpmath.inf:
            assert got == np.inf
        else:
            assert abs(mpmath.mpf(float(got)) + exact) <= 4 * 2.0**-53 * abs(exact)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_probabilities_and_complements_are_right_to_float64_rounding(name):
    block = block_of(ADVERSARIAL[name])
    with mpmath.workdps(400):
        exact = [
            mpmath.exp(logp) if logp > -1e4 else mpmath.mpf(0) for logp in exact_log_probabilities(ADVERSARIAL[name])
        ]
        for got, one_minus, p in zip(block.probabilities[0], block.complements[0], exact, strict=True):
            assert abs(mpmath.mpf(float(got)) - p) <= 8 * 2.0**-53 * p + 1e-320
            assert abs(mpmath.mpf(float(one_minus)) - (1 - p)) <= 8 * 2.0**-53 * (1 - p)


def test_answers_do_not_depend_on_the_block_size(monkeypatch):
    problem = Problem.parse("N=2,C=5,dims=3x4,weight=random,label-smoothing=0.1,ignored=0.3,reduction=none")
    given = inputs.make(problem, 0)
    whole = oracle.solve(problem, given)
    monkeypatch.setattr(rows, "BLOCK_ELEMENTS", 10)
    assert [block.where.stop for block in rows.blocks(problem, given)] == list(range(2, 25, 2))
    blocked = oracle.solve(problem, given)
    np.testing.assert_array_equal(blocked.loss.torch, whole.loss.torch)
    np.testing.assert_array_equal(blocked.gradient.torch, whole.gradient.torch)
    np.testing.assert_array_equal(blocked.rows.addends, whole.rows.addends)


def test_inputs_are_left_alone():
    problem = Problem.parse("N=4,C=5,dtype=float64,reduction=none")
    given = inputs.make(problem, 0)
    given.logits[1, 2] = torch.inf
    before = given.logits.clone()
    oracle.solve(problem, given)
    assert torch.equal(given.logits, before)


def test_ingredients_of_equal_logits_are_those_of_the_definition():
    problem = Problem(batch_size=3, num_classes=8, logits="equal", offset=2.0, dtype="float64")
    found = oracle.solve(problem, inputs.make(problem, 0)).rows
    np.testing.assert_allclose(found.log_sum, np.log(8.0), rtol=1e-15)
    np.testing.assert_allclose(found.logsumexp, 2.0 + np.log(8.0), rtol=1e-15)
    assert set(found.spread) == {0.0}
    assert set(found.addends) == {8.0}
    assert set(found.records) == {1.0}
    assert set(found.mass) == set(found.terms) == {1.0}


def test_addends_below_the_roundoff_of_the_sum_count_as_lost():
    given = Inputs(torch.tensor([0.0, -20.0, -1.0]), torch.tensor(0), None, torch.tensor(1.0))
    found = oracle.solve(Problem(batch_size=None, num_classes=3), given).rows
    assert found.addends[0] == 2.0
    assert found.lost_addends[0] == pytest.approx(np.exp(-20.0) / (2.0**-24 * (1.0 + np.exp(-1.0))), rel=1e-6)
