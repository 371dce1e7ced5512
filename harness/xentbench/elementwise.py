"""Numbers held against the truth: which are wrong, how accurate they are, and the worst of them in words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from xentbench import bounds
from xentbench.spec import UNIT_ROUNDOFF, Failure, Grade

if TYPE_CHECKING:
    import numpy.typing as npt

    from xentbench.oracle import Values

    Array = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

LOOKS_LIKE: Final = "; looks like: "
"""Stands before the mistake that a message names."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Numbers held against the truth, all of one shape.

    Attributes:
        got: what came.
        expected: what is right, by the convention that fits; `low` is to be added.
        error: `bounds.need` of both.
        allowed: the loosest bound.
        wrong: where the error is not allowed.
        grade: the best grade whose line holds everywhere.
        other_convention: whether some number is right only by the conventions of masked kernels.
        low: what `expected` lacks of the truth in double-double, None where that is not known.
    """

    got: Array
    expected: Array
    error: Array
    allowed: Array
    wrong: Flags
    grade: Grade
    other_convention: bool
    low: Array | None = None

    @property
    def ratio(self) -> Array:
        """Error in units of the loosest bound."""
        with np.errstate(all="ignore"):
            return np.where(self.error == 0.0, 0.0, self.error / self.allowed)

    @property
    def worst(self) -> int:
        """Flat position of the wrong number that is furthest off."""
        return int(np.where(self.wrong, np.nan_to_num(self.ratio, nan=np.inf), -1.0).argmax())


def compare(got: Array, values: Values, lines: bounds.Lines, dtype: str) -> Compared:
    """Hold numbers against the truth; each may follow either convention."""
    *_, allowed = lines.values()
    error, expected, other = bounds.need(got, values.torch, dtype, values.low), values.torch, False
    if values.masked is not values.torch:
        second = bounds.need(got, values.masked, dtype, values.low)
        use = bounds.passes(second, allowed) & ~bounds.passes(error, allowed)
        error, expected, other = np.where(use, second, error), np.where(use, values.masked, expected), bool(use.any())
    grade = next((grade for grade, line in lines.items() if bounds.passes(error, line).all()), Grade.FAIL)
    return Compared(got, expected, error, allowed, ~bounds.passes(error, allowed), grade, other, values.low)


def numbers_of(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return a tensor's values as float64 on the CPU, or None where they are no real numbers that can be read."""
    try:
        dense = dense_of(tensor)
        return None if dense is None else dense.to(torch.float64)
    except (RuntimeError, NotImplementedError, TypeError):
        return None


def dense_of(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return a tensor's values with strides, on the CPU, in its own dtype; None as for `numbers_of`."""
    try:
        if tensor.is_complex():
            return None
        dense = tensor.detach()
        return (dense if dense.layout is torch.strided else dense.to_dense()).to("cpu")
    except (RuntimeError, NotImplementedError, TypeError):
        return None


def format_of(tensor: torch.Tensor) -> str:
    """Return the dtype that the answer was rounded to; float64 where it is none of ours."""
    name = str(tensor.dtype).removeprefix("torch.")
    return name if name in UNIT_ROUNDOFF else "float64"


def identical(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two answers agree in dtype, shape and every number; NaN equals NaN."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    left, right = numbers_of(one), numbers_of(other)
    return left is not None and right is not None and np.array_equal(left.numpy(), right.numpy(), equal_nan=True)


def sentence(name: str, compared: Compared, index: tuple[object, ...], looks_like: str) -> str:
    """Return where the worst number is, what came, what was expected, by how much, and what it looks like."""
    got, expected, error, allowed, ratio = (
        float(array.reshape(-1)[compared.worst])
        for array in (compared.got, compared.expected, compared.error, compared.allowed, compared.ratio)
    )
    where = _place(name, index)
    parts = [f"{where} is {got:.9g}, expected {expected:.9g}: {_class_of(got)} where {_class_of(expected)} is right"]
    if np.isfinite(got) and np.isfinite(expected):
        beyond = " beyond its own rounding" if f"{error:.3g}" != f"{abs(got - expected):.3g}" else ""
        off = f"off by {error:.3g}{beyond} where {allowed:.3g} is allowed ({ratio:.3g} times)"
        parts = [f"{where} is {got:.9g}, expected {expected:.9g}: {off}"]
    if compared.wrong.size > 1:
        parts.append(f"{compared.wrong.sum()} of {compared.wrong.size} numbers are wrong")
    return "; ".join(parts) + (f"{LOOKS_LIKE}{looks_like}" if looks_like else "")


def hint_of(message: str) -> str:
    """Return the mistake that a message names, its numbers left out; '' where it names none."""
    return re.sub(r"-?\d+\.?\d*(e[-+]?\d+)?", "#", message.partition(LOOKS_LIKE)[2])


def without_hint(message: str) -> str:
    """Return the message without the mistake that it names."""
    return message.partition(LOOKS_LIKE)[0]


def failure(quantity: str, name: str, compared: Compared, index: tuple[object, ...], looks_like: str) -> Failure:
    """Return the failure whose worst number is at this index, told in one sentence and as numbers."""
    got, expected = (float(array.reshape(-1)[compared.worst]) for array in (compared.got, compared.expected))
    message = sentence(name, compared, index, looks_like)
    return Failure(quantity, message, _place(name, index), expected, got)


def error_ulp(compared: Compared, dtype: str) -> float | None:
    """Return the largest error in units in the last place of the right answer; None where all are 0, inf or NaN."""
    finite = np.isfinite(compared.got) & np.isfinite(compared.expected) & (compared.expected != 0.0)
    if not finite.any():
        return None
    got, expected = compared.got[finite], compared.expected[finite]
    low = 0.0 if compared.low is None else compared.low[finite]
    smallest = torch.finfo(getattr(torch, dtype)).smallest_normal * torch.finfo(getattr(torch, dtype)).eps
    ulp = np.maximum(2.0 * bounds.half_spacing(expected, np.inf * np.sign(expected), dtype), smallest)
    return float((np.abs((got - expected) - low) / ulp).max())


def _class_of(number: float) -> str:
    """Return the class of a number in words."""
    return "a finite number" if np.isfinite(number) else str(number)


def shortened(tensor: torch.Tensor) -> str:
    """Return up to four of a tensor's numbers as text."""
    numbers = numbers_of(tensor)
    if numbers is None:
        return f"dtype {tensor.dtype}"
    told = [f"{number:.6g}" for number in numbers.reshape(-1)[:4].tolist()]
    return told[0] if numbers.dim() == 0 else f"[{', '.join(told)}{', …' if numbers.numel() > len(told) else ''}]"


def _place(name: str, index: tuple[object, ...]) -> str:
    return f"{name}[{', '.join(map(str, index))}]" if index else name
