from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xentbench import inputs
from xentbench.spec import FAMILIES, LAYOUTS, Problem, UsageError


def digest(made: inputs.Inputs) -> str:
    tensors = (made.logits.double(), made.target, made.upstream.double())
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in tensors)).hexdigest()


def test_the_same_problem_and_seed_give_the_same_bytes_and_others_do_not():
    problem = Problem(batch_size=8, num_classes=10)
    assert digest(inputs.make(problem, 1)) == digest(inputs.make(problem, 1))
    assert digest(inputs.make(problem, 1)) != digest(inputs.make(problem, 2))
    assert digest(inputs.make(problem, 1)) != digest(inputs.make(Problem(batch_size=8, num_classes=10, seed=1), 1))


def test_the_global_generators_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    inputs.make(Problem(batch_size=8, num_classes=10), 1)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dims", [(), (3,), (2, 2)])
def test_every_family_gives_the_shapes_asked_for(family: str, dims: tuple[int, ...]):
    problem = Problem(batch_size=4, num_classes=6, dims=dims, logits=family, weight="random")
    made = inputs.make(problem, 0)
    assert made.logits.shape == problem.logits_shape
    assert made.target.shape == problem.row_shape
    assert made.weight is not None
    assert made.weight.shape == (6,)
    assert made.upstream.shape == problem.loss_shape
    assert int(made.target.min()) >= 0
    assert int(made.target.max()) < 6


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dims", [(), (3,), (3, 2)])
def test_a_layout_changes_strides_and_never_values(layout: str, dims: tuple[int, ...]):
    values = torch.arange(4.0 * 6 * max(1, int(np.prod(dims)))).reshape(4, 6, *dims)
    laid = inputs.lay_out(values, layout)
    expected = values[:1].expand(values.shape) if layout == "expanded" else values
    assert torch.equal(laid, expected)
    assert laid.is_contiguous() == (layout in ("contiguous", "offset") or (layout == "channels-last" and not dims))


@given(st.floats(0, 1), st.integers(-5, 20))
def test_the_share_of_ignored_rows_is_the_one_asked_for(ignored: float, ignore_index: int):
    problem = Problem(batch_size=400, num_classes=10, ignored=ignored, ignore_index=ignore_index)
    hit = (inputs.make(problem, 0).target == ignore_index).double().mean()
    natural = 0.1 if 0 <= ignore_index < 10 else 0.0
    assert abs(float(hit) - (ignored + (1 - ignored) * natural)) < 0.12


def test_an_upstream_gradient_is_never_all_ones_unless_asked_for():
    made = inputs.make(Problem(batch_size=64, num_classes=3, reduction="none"), 0)
    assert made.upstream.unique().numel() == 64
    assert (made.upstream < 0).any()
    assert float(inputs.make(Problem(batch_size=4, num_classes=3), 0).upstream) != 1.0
    expanded = inputs.make(Problem(batch_size=4, num_classes=3, reduction="none", upstream="expanded"), 0)
    assert expanded.upstream.stride() == (0,)


def test_probability_targets_sum_to_one_unless_asked_otherwise():
    soft = inputs.make(Problem(batch_size=9, num_classes=7, target="soft", dtype="float64"), 0).target
    assert torch.allclose(soft.sum(1), torch.ones(9, dtype=torch.float64))
    assert (soft == 0).any()
    loose = inputs.make(Problem(batch_size=9, num_classes=7, target="unnormalised", dtype="float64"), 0).target
    assert (loose.sum(1) != 1).all()


def test_unlikely_labels_sit_far_below_the_maximum_and_likely_ones_on_it():
    for labels, least in (("likely", 0.8), ("unlikely", -0.01)):
        made = inputs.make(Problem(batch_size=200, num_classes=10, labels=labels), 0)
        hit = float((made.logits.argmax(1) == made.target).double().mean())
        assert hit >= least
        assert labels == "likely" or hit == 0


def test_an_unknown_family_is_told_with_the_known_ones():
    with pytest.raises(UsageError, match="normal, peaked"):
        inputs.make(Problem(batch_size=4, num_classes=3, logits="gaussian"), 0)


def test_the_seed_of_what_is_timed_tells_nothing_of_the_runs():
    assert inputs.timed_seed(1) == inputs.timed_seed(1)
    told = [inputs.timed_seed(seed) for seed in range(100)]
    assert len(set(told)) == 100
    assert not set(told) & set(range(10**6))
