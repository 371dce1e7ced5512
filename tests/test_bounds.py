"""The interval rule at its edges, and bounds that hold for right code and not much beyond."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from xentbench import bounds, inputs, oracle
from xentbench.rows import blocks
from xentbench.spec import UNIT_ROUNDOFF, Grade, Problem

HALVES = ("bfloat16", "float16")
# Exact in float32: torch narrows float64 to half precision through float32, which would round twice.
SINGLES = st.floats(width=32, allow_nan=False, allow_infinity=False)


def array(*values):
    return np.array(values, dtype=np.float64)


def rounded(value, dtype):
    return torch.tensor([value], dtype=torch.float64).to(getattr(torch, dtype)).double().numpy()


def neighbour(values, dtype, towards):
    """The next number of a format, by counting its bit patterns."""
    tensor = torch.from_numpy(values).to(getattr(torch, dtype))
    return torch.nextafter(tensor, torch.full_like(tensor, towards)).double().numpy()


@given(value=SINGLES, dtype=st.sampled_from(("float32", *HALVES)))
@example(value=65519.0, dtype="float16")
@example(value=65520.0, dtype="float16")
@example(value=2.0**-25, dtype="float16")
@example(value=1.0 + 2.0**-8, dtype="bfloat16")
def test_correctly_rounded_answer_needs_no_error(value, dtype):
    assert bounds.need(rounded(value, dtype), array(value), dtype) == 0.0


@given(value=SINGLES, dtype=st.sampled_from(HALVES), up=st.booleans())
def test_neighbour_needs_the_distance_to_the_midpoint(value, dtype, up):
    right = rounded(value, dtype)
    other = neighbour(right, dtype, np.inf if up else -np.inf)
    if not np.isfinite(right).all() or not np.isfinite(other).all():
        return
    midpoint = (right + other) / 2.0
    needed = bounds.need(other, array(value), dtype)
    assert abs(needed - np.abs(midpoint - value)) <= 2.0**-52 * np.abs(other - right)


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
@pytest.mark.parametrize("power", [-3, 0, 5])
def test_spacing_halves_below_a_power_of_two(dtype, power):
    value, epsilon = array(2.0**power), torch.finfo(getattr(torch, dtype)).eps
    assert bounds.half_spacing(value, array(np.inf), dtype) == 2.0**power * epsilon / 2.0
    assert bounds.half_spacing(value, array(0.0), dtype) == 2.0**power * epsilon / 4.0
    assert bounds.half_spacing(-value, array(0.0), dtype) == 2.0**power * epsilon / 4.0
    assert bounds.half_spacing(-value, array(-np.inf), dtype) == 2.0**power * epsilon / 2.0


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
def test_subnormal_spacing_is_that_of_the_smallest_normal(dtype):
    info = torch.finfo(getattr(torch, dtype))
    smallest = info.tiny * info.eps
    for value in (0.0, smallest, info.tiny - smallest, info.tiny):
        assert bounds.half_spacing(array(value), array(0.0), dtype) == smallest / 2.0
        assert bounds.half_spacing(array(value), array(1.0), dtype) == smallest / 2.0


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
def test_overflow_is_rounding_from_half_a_gap_above_the_largest(dtype):
    largest = torch.finfo(getattr(torch, dtype)).max
    edge = float(largest + (largest - neighbour(array(largest), dtype, 0.0)[0]) / 2.0)
    assert bounds.need(array(np.inf), array(edge), dtype) == 0.0
    assert bounds.need(array(-np.inf), array(-edge), dtype) == 0.0
    assert bounds.need(array(largest), array(edge), dtype) == 0.0
    below = np.nextafter(edge, 0.0)
    assert bounds.need(array(np.inf), array(below), dtype) == edge - below
    assert bounds.need(array(np.inf), array(0.0), dtype) == edge
    assert bounds.need(array(-np.inf), array(largest), dtype) > edge


@given(value=st.floats(0.1, 1e6), share=st.floats(-0.49, 0.49))
def test_nearest_float64_of_a_pair_needs_no_error_and_its_neighbour_half_a_gap_less_the_low_half(value, share):
    gap = np.spacing(value) / 2.0  # below a power of two the gap is half of that above
    low, above = array(share * gap), array(np.nextafter(value, np.inf))
    assert bounds.need(array(value), array(value), "float64", low) == 0.0
    needed = bounds.need(above, array(value), "float64", low)
    assert needed == pytest.approx(np.spacing(value) / 2.0 - share * gap, rel=1e-12, abs=0.0)


def test_no_error_leads_from_one_class_of_numbers_to_another():
    got = array(np.nan, 1.0, 1.0, np.inf, np.nan, np.inf, 0.0)
    expected = array(1.0, np.nan, np.inf, -np.inf, np.inf, np.nan, -np.inf)
    assert set(bounds.need(got, expected, "float32")) == {np.inf}
    same = array(np.nan, np.inf, -np.inf, 0.0)
    assert set(bounds.need(same, same, "float32")) == {0.0}


def test_vacuous_bound_never_excuses_another_class():
    needed = bounds.need(array(np.nan, 2.0, np.inf), array(1.0, 1.0, np.inf), "float32")
    assert bounds.passes(needed, array(np.inf, np.inf, np.nan)).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", UNIT_ROUNDOFF)
@pytest.mark.parametrize("axes", ["N=9,C=10", "N=9,C=10,weight=random,label-smoothing=0.1,reduction=none", "N=3,C=700"])
def test_lines_widen_from_grade_to_grade(dtype, axes):
    problem = Problem.parse(f"{axes},dtype={dtype}")
    given_ = inputs.make(problem, 0)
    truth = oracle.solve(problem, given_)
    block = next(blocks(problem, given_))
    for lines in (
        bounds.loss_lines(problem, truth),
        bounds.gradient_lines(problem, truth, block, truth.gradient.torch),
    ):
        assert list(lines) == [grade for grade in Grade if grade in lines]
        assert (Grade.C in lines) == (dtype in HALVES)
        allowed = list(lines.values())
        assert all((tight <= loose).all() for tight, loose in itertools.pairwise(allowed))
        assert all(np.isfinite(line).all() and (line > 0.0).all() for line in allowed)


def test_bound_of_two_classes_is_about_twenty_roundoffs():
    problem = Problem(batch_size=200, num_classes=2, reduction="none")
    truth = oracle.solve(problem, inputs.make(problem, 0))
    allowed = np.median(bounds.loss_error(problem, truth, bounds.worst_case("float32"), stored=False))
    assert 10.0 < allowed / UNIT_ROUNDOFF["float32"] < 30.0


def test_common_offset_widens_the_stored_form_only():
    widths = []
    for offset in (0.0, 8192.0):
        problem = Problem(batch_size=50, num_classes=10, offset=offset, dtype="float64", reduction="none")
        truth = oracle.solve(problem, inputs.make(problem, 0))
        model = bounds.worst_case("float64")
        widths.append([np.median(bounds.loss_error(problem, truth, model, stored=stored)) for stored in (False, True)])
    (shift, stored), (shift_far, stored_far) = widths
    assert shift_far == pytest.approx(shift, rel=0.1)
    assert stored_far > 100.0 * stored


def test_ignored_rows_and_their_gradients_must_be_exact():
    problem = Problem(batch_size=8, num_classes=4, ignored=1.0, reduction="none")
    given_ = inputs.make(problem, 0)
    truth = oracle.solve(problem, given_)
    block = next(blocks(problem, given_))
    *_, loss = bounds.loss_lines(problem, truth).values()
    *_, gradient = bounds.gradient_lines(problem, truth, block, truth.gradient.torch).values()
    assert loss.max() <= np.finfo(np.float32).tiny
    assert gradient.max() <= np.finfo(np.float32).tiny


def test_more_rows_are_granted_more_standard_deviations():
    assert bounds.random_walk("float32", 1000).spread < bounds.random_walk("float32", 1001).spread
