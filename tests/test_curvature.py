"""The Hessian-vector product is the one autograd finds for F.cross_entropy; wrong ones are told apart."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from test_panel import OPTIONS
from torch.nn import functional

from xentbench import bounds, curvature, inputs, oracle
from xentbench.rows import classes_last
from xentbench.spec import Problem
from xentbench.worker import calls


@settings(max_examples=60, deadline=None)
@given(problem=OPTIONS)
def test_product_is_what_autograd_finds_in_float64(problem: Problem):
    exact = dataclasses.replace(problem, dtype="float64" if problem.dtype == "float64" else "float32")
    given_ = inputs.make(exact, 0)
    if not exact.elements:
        return
    double = inputs.Inputs(
        given_.logits.double(),
        given_.target if exact.has_index_target else given_.target.double(),
        None if given_.weight is None else given_.weight.double(),
        given_.upstream.double(),
    )
    expected, allowed = curvature.product(exact, given_, oracle.solve(exact, given_))
    logits = double.logits.clone().requires_grad_()
    loss = functional.cross_entropy(logits, double.target, **calls.options_of(exact, double.weight))
    (gradient,) = torch.autograd.grad(loss, logits, double.upstream, create_graph=True)
    (product,) = torch.autograd.grad(gradient, logits, inputs.direction(exact).double())
    asked = np.isfinite(expected)
    off = np.abs(classes_last(product, exact).numpy() - expected)[asked]
    assert (off <= allowed[asked]).all()


@pytest.mark.parametrize("change", [0.0, 1.001, -1.0])
def test_allowance_does_not_hide_a_product_that_is_zero_scaled_or_negated(change: float):
    problem = Problem(batch_size=16, num_classes=10)
    given_ = inputs.make(problem, 0)
    expected, allowed = curvature.product(problem, given_, oracle.solve(problem, given_))
    assert not bounds.passes(bounds.need(change * expected, expected, "float32"), allowed).all()


def test_rows_out_of_half_the_range_of_exp_are_not_asked():
    problem = Problem(batch_size=8, num_classes=4, logits="wide")
    given_ = inputs.make(problem, 0)
    expected, _ = curvature.product(problem, given_, oracle.solve(problem, given_))
    beyond = (given_.logits.abs() > 45.0).any(1).numpy()
    assert beyond.any()
    assert np.isnan(expected[beyond]).all()
