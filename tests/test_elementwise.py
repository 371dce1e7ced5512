"""Numbers held against the truth: what counts as the same, what cannot be read, and in which format they are."""

import numpy as np
import pytest
import torch

from xentbench import elementwise
from xentbench.oracle import Values
from xentbench.spec import Grade


def compared(got, expected, masked=None, allowed=0.01):
    truth = np.array(expected)
    values = Values(truth, truth if masked is None else np.array(masked))
    return elementwise.compare(
        np.array(got), values, {Grade.A: np.array(allowed / 10), Grade.H: np.array(allowed)}, "float32"
    )


def test_grade_is_the_best_whose_line_holds_everywhere():
    assert compared([1.0, 2.0], [1.0, 2.0]).grade is Grade.A
    assert compared([1.0, 2.005], [1.0, 2.0]).grade is Grade.H
    assert compared([1.0, 2.05], [1.0, 2.0]).grade is Grade.FAIL
    assert compared([], []).grade is Grade.A


def test_worst_is_the_wrong_number_furthest_off():
    assert compared([1.5, 1.0, 4.0], [1.0, 1.0, 3.0]).worst == 2
    assert compared([1.5, 1.0, np.nan], [1.0, 1.0, 3.0]).worst == 2


def test_either_convention_may_be_followed_number_by_number():
    both = compared([np.nan, 0.0], [np.nan, np.nan], masked=[0.0, 0.0])
    assert not both.wrong.any()
    assert both.other_convention
    assert not compared([np.nan, np.nan], [np.nan, np.nan], masked=[0.0, 0.0]).other_convention
    assert compared([1.0, np.nan], [np.nan, np.nan], masked=[0.0, 0.0]).wrong.tolist() == [True, False]


def test_low_half_of_the_truth_counts():
    gap = 2.0**-52
    values = Values(np.array([1.0]), np.array([1.0]), np.array([0.4 * gap]))
    lines = {Grade.A: np.array([0.2 * gap]), Grade.H: np.array([gap])}
    above = elementwise.compare(np.array([1.0 + gap]), values, lines, "float64")
    assert above.error == pytest.approx(0.1 * gap, rel=1e-9, abs=0.0)
    assert above.grade is Grade.A
    assert elementwise.error_ulp(above, "float64") == pytest.approx(0.6)
    below = elementwise.compare(np.array([1.0 - gap / 2.0]), values, lines, "float64")
    assert below.error == pytest.approx(0.65 * gap, rel=1e-9, abs=0.0)
    assert below.grade is Grade.H


def test_an_error_that_half_a_unit_was_taken_off_says_so_beside_the_two_numbers():
    truth = np.array(12.1370946)
    half = elementwise.compare(np.array(12.015625), Values(truth, truth), {Grade.H: np.array(0.01)}, "float16")
    assert "off by 0.118 beyond its own rounding where 0.01" in elementwise.sentence("loss", half, (), "")
    assert "off by 0.5 where" in elementwise.sentence("loss", compared([1.5], [1.0]), (0,), "")


def test_numbers_that_cannot_be_read_are_none():
    assert elementwise.numbers_of(torch.ones(2, dtype=torch.complex64)) is None
    assert elementwise.numbers_of(torch.ones(2, device="meta")) is None
    assert elementwise.numbers_of(torch.ones(2, dtype=torch.int8)).dtype is torch.float64


def test_identical_answers_agree_in_dtype_shape_and_numbers():
    one = torch.tensor([1.0, torch.nan])
    assert elementwise.identical(one, one.clone())
    assert not elementwise.identical(one, one.double())
    assert not elementwise.identical(one, one.reshape(2, 1))
    assert not elementwise.identical(one, torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_error_is_counted_in_units_of_the_last_place(dtype):
    epsilon = torch.finfo(getattr(torch, dtype)).eps
    found = compared([1.0 + 3.0 * epsilon, 0.0, np.nan], [1.0, 0.0, np.nan])
    assert elementwise.error_ulp(found, dtype) == 3.0
    assert elementwise.error_ulp(compared([np.inf], [1.0]), dtype) is None
