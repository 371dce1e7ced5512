"""Double-double numbers against exact fractions and sixty digits."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from xentbench import doubledouble as dd
from xentbench.doubledouble import Pair

# Neither sums nor products of these overflow, and the low half of a product is a normal number or 0.
MODERATE = st.one_of(st.just(0.0), *(st.floats(*sorted((sign * 1e-120, sign * 1e120))) for sign in (1.0, -1.0)))
PAIRS = st.builds(lambda high, share: Pair(*_normal(high, share)), MODERATE, st.floats(-0.5, 0.5))


def _normal(high, share):
    """A float64 and the share of the gap beside it; a share of half may round up a power of two."""
    low = share * np.spacing(abs(high)) / 2.0 if high else 0.0
    return np.array([high]), np.array([low])


def array(*values):
    return np.array(values, dtype=np.float64)


def exact(pair):
    return Fraction(float(pair.high.item())) + Fraction(float(pair.low.item()))


def sixty_digits(pair):
    return [
        mpmath.mpf(float(high)) + mpmath.mpf(float(low))
        for high, low in zip(pair.high.flat, pair.low.flat, strict=True)
    ]


def worst_relative(found, argument, function):
    with mpmath.workdps(60):
        right = [function(number) for number in sixty_digits(argument)]
        return float(max(abs(f / r - 1) for f, r in zip(sixty_digits(found), right, strict=True)))


def spread(largest, seed=0):
    """Numbers of every size up to `largest`, with a low half."""
    fresh = np.random.default_rng(seed)
    high = np.r_[fresh.uniform(0.0, largest, 200), largest * 10.0 ** -fresh.uniform(0.0, 200.0, 200)]
    return Pair(high, high * fresh.uniform(-1.0, 1.0, high.size) * 2.0**-54)


@given(left=st.floats(-1e300, 1e300), right=st.floats(-1e300, 1e300))
@example(left=1e300, right=-1e-300)
@example(left=5e-324, right=-1.0)
def test_two_sum_is_exact(left, right):
    pair = dd.two_sum(array(left), array(right))
    assert exact(pair) == Fraction(left) + Fraction(right)
    assert pair.high == left + right


@given(left=MODERATE, right=MODERATE)
@example(left=1.0 - 2.0**-53, right=1.0 - 2.0**-53)
@example(left=1.0 + 2.0**-52, right=2.0 - 2.0**-52)
@example(left=134217727.0, right=134217729.0)
@example(left=1.0 + 2.0**-26 - 2.0**-52, right=1.0 + 2.0**-26 + 2.0**-52)
def test_two_product_is_exact(left, right):
    pair = dd.two_product(array(left), array(right))
    assert exact(pair) == Fraction(left) * Fraction(right)
    assert pair.high == left * right


def test_large_factors_do_not_overflow_on_the_way():
    assert exact(dd.two_product(array(1e307), array(1.1))) == Fraction(1e307) * Fraction(1.1)


@given(left=PAIRS, right=PAIRS)
def test_sum_difference_and_product_are_right_to_a_hundred_and_two_bits(left, right):
    tolerance = Fraction(1, 2**102)
    one, other = exact(left), exact(right)
    for found, right_ in (
        (dd.add(left, right), one + other),
        (dd.subtract(left, right), one - other),
        (dd.multiply(left, right), one * other),
    ):
        assert abs(exact(found) - right_) <= tolerance * abs(right_)
        assert found.high == found.high + found.low


@given(left=PAIRS, right=PAIRS)
def test_quotient_is_right_to_a_hundred_bits(left, right):
    assume(right.high != 0.0)
    expected = exact(left) / exact(right)
    assert abs(exact(dd.divide(left, right)) - expected) <= Fraction(1, 2**100) * abs(expected)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 64, 1001])
def test_total_adds_the_last_axis(count):
    fresh = np.random.default_rng(count)
    high = fresh.standard_normal((3, count)) * 10.0 ** fresh.uniform(-9, 9, (3, count))
    found = dd.total(dd.exactly(high))
    for place, row in enumerate(high):
        right, size = sum(map(Fraction, row.tolist()), Fraction(0)), sum(map(abs, row.tolist()))
        assert abs(exact(found[place]) - right) <= Fraction(size) / 2**98
    assert found.high.shape == found.low.shape == (3,)


@pytest.mark.parametrize("largest", [2.0**-11, 0.4, 5.0, 100.0, 650.0])
def test_exponential_is_right_to_ninety_nine_bits(largest):
    argument = -spread(largest)
    assert worst_relative(dd.exp(argument), argument, mpmath.exp) < 2.0**-99


@pytest.mark.parametrize("largest", [2.0**-11, 2.0**-10, 0.4, 0.7, 40.0])
def test_exponential_less_one_is_right_to_twenty_six_digits(largest):
    argument = -spread(largest)
    assert worst_relative(dd.expm1(argument), argument, mpmath.expm1) < 1e-26


@pytest.mark.parametrize("largest", [1e-5, 0.9, 1.1, 100.0, 1e6])
def test_logarithm_is_right_to_twenty_six_digits(largest):
    argument = spread(largest)
    assert worst_relative(dd.log1p(argument), argument, mpmath.log1p) < 1e-26


def test_exponential_at_the_ends_of_the_range():
    found = dd.exp(dd.exactly([0.0, -np.inf, -1e308, -745.2, -744.4, -710.0, np.nan]))
    assert found.high[:4].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert found.high[4] == 5e-324
    assert found.high[5] == pytest.approx(np.exp(-710.0), abs=5e-324)
    assert np.isnan(found.high[6])
    assert not found.low[:4].any()


def test_logarithm_at_the_ends_of_the_range():
    found = dd.log1p(dd.exactly([0.0, 1e-310]))
    assert found.high.tolist() == [0.0, 1e-310]
    assert np.abs(found.low).max() <= 5e-324


def test_pairs_are_indexed_shaped_and_chosen_as_arrays_are():
    pair = Pair(np.arange(6.0).reshape(2, 3), np.full((2, 3), 1e-20))
    assert pair[1, 2].high == 5.0
    assert pair.reshape(3, 2).low.shape == (3, 2)
    chosen = dd.where(pair.high > 2.0, -pair, dd.exactly(0.0))
    assert chosen.high.tolist() == [[0.0, 0.0, 0.0], [-3.0, -4.0, -5.0]]
    assert chosen.low[1].tolist() == [-1e-20] * 3
    pair[0] = dd.exactly([7.0, 8.0, 9.0])
    assert pair.high[0].tolist() == [7.0, 8.0, 9.0]
    assert not pair.low[0].any()
