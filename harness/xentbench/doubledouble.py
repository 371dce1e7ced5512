"""Numbers of about 106 bits: the unevaluated sum of two float64, elementwise over NumPy arrays.

After Dekker (Numer. Math. 18, 1971), Knuth (TAOCP 2, 4.2.2) and Joldes, Muller & Popescu, *Tight and rigorous error
bounds for basic building blocks of double-word arithmetic* (ACM TOMS 44(2), 2017). Needs IEEE 754 float64, rounded to
nearest, and no fused multiply-add, which NumPy's elementwise functions give on every platform.

Relative errors are some `2^-103` for sum, product and quotient, `2^-100` for `exp` and `2^-89` for `expm1` and `log1p`,
as long as the low half is a normal number, so for results beyond `2^-968`; where they underflow the error is some
`2^-1074`. Where a result is inf or NaN its low half may be NaN.
"""

from __future__ import annotations

import decimal
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

DIGITS: Final = 60
"""Decimal digits to which constants are computed before they are cut into float64 parts."""
STEPS: Final = 1024
"""Tabulated exponentials per unit of the argument: what is left is below `2^-11`."""
LOWEST: Final = -800.0
"""Below this the exponential is 0 in float64."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The numbers `high + low`, where `high` is the float64 nearest to the sum; both arrays of one shape.

    Attributes:
        high: float64 of any shape.
        low: what `high` lacks, at most half the gap to its neighbour.
    """

    high: Array
    low: Array

    def __getitem__(self, key: Any) -> Pair:  # noqa: ANN401 - whatever NumPy takes
        """Return the numbers at an index, as NumPy does."""
        return Pair(self.high[key], self.low[key])

    def __setitem__(self, key: Any, values: Pair) -> None:  # noqa: ANN401 - whatever NumPy takes
        """Replace the numbers at an index, as NumPy does."""
        self.high[key], self.low[key] = values.high, values.low

    def __neg__(self) -> Pair:
        """Return the numbers with the other sign: exact."""
        return Pair(-self.high, -self.low)

    def reshape(self, *shape: int) -> Pair:
        """Return the numbers in another shape, as NumPy does."""
        return Pair(self.high.reshape(shape), self.low.reshape(shape))


def exactly(values: npt.ArrayLike) -> Pair:
    """Return float64 numbers as pairs."""
    high = np.array(values, dtype=np.float64)
    return Pair(high, np.zeros_like(high))


def zeros(shape: tuple[int, ...]) -> Pair:
    """Return pairs that are 0."""
    return Pair(np.zeros(shape), np.zeros(shape))


def where(condition: npt.NDArray[np.bool_], left: Pair, right: Pair) -> Pair:
    """Choose number by number, as NumPy does."""
    return Pair(np.where(condition, left.high, right.high), np.where(condition, left.low, right.low))


def two_sum(left: Array, right: Array) -> Pair:
    """Return the sum of two float64 exactly, unless it overflows (Knuth)."""
    high = left + right
    virtual = high - left
    return Pair(high, (left - (high - virtual)) + (right - virtual))


def two_product(left: Array, right: Array) -> Pair:
    """Return the product of two float64 exactly (Dekker), unless it overflows or its low half underflows."""
    high = left * right
    (coarse, fine), (other_coarse, other_fine) = _split(left), _split(right)
    low = ((coarse * other_coarse - high) + coarse * other_fine + fine * other_coarse) + fine * other_fine
    return Pair(high, low)


def add(left: Pair, right: Pair) -> Pair:
    """Return the sum; relative error `2^-104.4` even where the signs differ."""
    upper, lower = two_sum(left.high, right.high), two_sum(left.low, right.low)
    middle = _ordered_sum(upper.high, upper.low + lower.high)
    return _ordered_sum(middle.high, middle.low + lower.low)


def subtract(left: Pair, right: Pair) -> Pair:
    """Return the difference, as `add` would."""
    return add(left, -right)


def multiply(left: Pair, right: Pair) -> Pair:
    """Return the product; relative error `2^-103.6`."""
    product = two_product(left.high, right.high)
    return _ordered_sum(product.high, product.low + (left.high * right.low + left.low * right.high))


def divide(left: Pair, right: Pair) -> Pair:
    """Return the quotient by long division in three steps; relative error some `2^-103`."""
    first = left.high / right.high
    rest = subtract(left, multiply(exactly(first), right))
    second = rest.high / right.high
    rest = subtract(rest, multiply(exactly(second), right))
    return add(_ordered_sum(first, second), exactly(rest.high / right.high))


def total(values: Pair) -> Pair:
    """Return the sums along the last axis, added in halves: the error grows with the logarithm of the count."""
    count = values.high.shape[-1]
    if count == 0:
        return zeros(values.high.shape[:-1])
    while count > 1:
        pairs, half = count // 2, (count + 1) // 2
        merged = add(values[..., :pairs], values[..., half:count])
        if half > pairs:
            middle = values[..., pairs:half]
            merged = Pair(
                np.concatenate([merged.high, middle.high], axis=-1), np.concatenate([merged.low, middle.low], axis=-1)
            )
        values, count = merged, half
    return values[..., 0]


def exp(argument: Pair) -> Pair:
    """Return the exponential of numbers that are not positive; -inf gives 0."""
    power, base, excess = _reduced(argument)
    return _scaled(add(base, excess), power, argument)


def expm1(argument: Pair) -> Pair:
    """Return `exp(z) - 1` of numbers that are not positive, without cancellation near 0."""
    power, base, excess = _reduced(argument)
    one = exactly(1.0)
    near = add(subtract(base, one), excess)
    return where(power == 0, near, subtract(_scaled(add(base, excess), power, argument), one))


def log1p(argument: Pair) -> Pair:
    """Return `log(1 + s)` of numbers that are not negative, by one step of Newton from float64.

    With `y` the first guess, `log(1 + s) - y = log1p(f)` where `f = (1 + s) exp(-y) - 1`, some `2^-53`; for small `s`
    it is `s + (1 + s) expm1(-y)`, so that `s` keeps its digits.
    """
    guess = np.log1p(argument.high)
    power, one = exactly(-guess), exactly(1.0)
    raised = add(one, argument)
    small = add(argument, multiply(raised, expm1(power)))
    large = subtract(multiply(raised, exp(power)), one)
    change = where(argument.high < 1.0, small, large)
    square = 0.5 * change.high * change.high
    return add(exactly(guess), Pair(change.high, change.low - square))


def _split(values: Array) -> tuple[Array, Array]:
    """Cut into 26 bits and the rest, of 26 bits and a sign; on the bits themselves, so that nothing overflows."""
    bits = (np.asarray(values).view(np.int64) + (1 << 26)) & -(1 << 27)
    coarse: Array = bits.view(np.float64)
    return coarse, values - coarse


def _ordered_sum(larger: Array, smaller: Array) -> Pair:
    """Return the sum exactly where `|larger| >= |smaller|` (Dekker)."""
    high = larger + smaller
    return Pair(high, smaller - (high - larger))


def _reduced(argument: Pair) -> tuple[npt.NDArray[np.int64], Pair, Pair]:
    """Return `k`, `b` and `d` with `exp(z) = 2^k (b + d)` and `d = b expm1(t)`, `|t| <= 2^-11`; any k for NaN.

    `z = k log 2 + j / STEPS + t`; `b` is tabulated.
    """
    table, logarithm, sixth = _constants()
    clamped = np.fmax(argument.high, LOWEST)
    power = np.rint(clamped / logarithm[0])
    rest = two_sum(clamped, -power * logarithm[0])
    rest = add(rest, exactly(-power * logarithm[1]))
    low = np.where(clamped == argument.high, argument.low, 0.0)
    rest = add(rest, two_sum(low, -power * logarithm[2]))
    step = np.rint(rest.high * STEPS)
    rest = add(rest, exactly(-step / STEPS))
    base = table[step.astype(np.int64) + STEPS // 2]
    t = rest.high
    tail = 1.0 / 24.0 + t * (1.0 / 120.0 + t * (1.0 / 720.0 + t / 5040.0))
    slope = add(exactly(0.5), multiply(rest, add(sixth, two_product(t, tail))))
    excess = add(rest, multiply(multiply(rest, rest), slope))
    return power.astype(np.int64), base, multiply(base, excess)


def _scaled(values: Pair, power: npt.NDArray[np.int64], argument: Pair) -> Pair:
    """Return `2^k` times the values, NaN where the argument is."""
    high = np.where(np.isnan(argument.high), np.nan, np.ldexp(values.high, power))
    return Pair(high, np.ldexp(values.low, power))


@functools.cache
def _constants() -> tuple[Pair, tuple[float, float, float], Pair]:
    """Return `exp(j / STEPS)` for `j` from `-STEPS / 2` on, log 2 in parts of 32, 40 and 53 bits, and 1/6.

    The short parts times any power of two's exponent are exact.
    """
    with decimal.localcontext(prec=DIGITS):
        table = _pairs([(decimal.Decimal(j) / STEPS).exp() for j in range(-STEPS // 2, STEPS // 2 + 1)])
        rest, parts = decimal.Decimal(2).ln(), list[float]()
        for bits in (32, 72):
            parts.append(int(rest * 2**bits) / 2**bits)
            rest -= decimal.Decimal(parts[-1])
        return table, (parts[0], parts[1], float(rest)), _pairs([decimal.Decimal(1) / 6])[0]


def _pairs(numbers: list[decimal.Decimal]) -> Pair:
    high = [float(number) for number in numbers]
    low = [float(number - decimal.Decimal(part)) for number, part in zip(numbers, high, strict=True)]
    return Pair(np.array(high), np.array(low))
