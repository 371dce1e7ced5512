"""What holds of every row of a gradient and is checked in one pass, where only a sample of rows is solved in full.

With `g = s (Q p - q)`: a row's entries add up to 0, since both parts have the mass `Q`; with signs that nobody knows
they add up to what the forward pass found (Freivalds' check of a product by a random vector: an error that no sum sees
is missed in one row of two, so hardly in several); for class indices the label's entry is `s (Q p - q)` with `p`
known from the loss; and an ignored row is 0. A row without a finite maximum, or with a NaN, is left to the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xentbench import bounds
from xentbench.elementwise import Compared, compare
from xentbench.oracle import Values
from xentbench.rows import float64, rows_at, spans
from xentbench.spec import Grade
from xentbench.streaming import STREAMED_ELEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    import torch

    from xentbench.oracle import Truth
    from xentbench.spec import Problem

    Array = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Law:
    """A law held against a gradient.

    Attributes:
        name: of what came, for a message.
        compared: one number a row.
        classes: `(rows,)` the class whose entry it is about, None where it is about a whole row.
        grade: of the entries; of a sum, which says only whether they are right, FAIL or None.
    """

    name: str
    compared: Compared
    classes: npt.NDArray[np.int64] | None = None
    grade: Grade | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one pass over a gradient brings, `(rows,)` each; of rows that count, the largest is 0."""

    total: Array
    signed: Array
    label: Array
    largest_ignored: Array


def held(problem: Problem, truth: Truth, gradient: torch.Tensor) -> Iterator[Law]:
    """Yield each law as held against the gradient, in the problem's dtype and the logits' shape.

    Nothing is yielded where the mean has nothing to divide by: what such a gradient is, is a convention.
    """
    sample = truth.sample
    assert sample is not None
    if truth.divisor == 0.0:
        return
    seen, usable = _seen(problem, truth, gradient), np.isfinite(sample.signed)
    if sample.label is not None:
        expected = np.where(usable, sample.label_gradient, 0.0)[:, None]
        got = np.where(usable, seen.label, 0.0)[:, None]
        compared = compare(got, Values(expected, expected), bounds.label_lines(problem, truth), problem.dtype)
        yield Law("gradient", compared, sample.label.labels, compared.grade)
    ignored = (truth.rows.valid == 0.0) & usable
    if ignored.any():
        allowed = np.full(problem.rows, bounds.Format.of("float32").tiny)
        yield _law("largest entry of ignored gradient", seen.largest_ignored, 0.0 * usable, allowed, usable)
    allowed = np.nan_to_num(bounds.row_sum_allowed(problem, truth), nan=np.inf)
    yield _law("sum over classes of gradient", seen.total, 0.0 * usable, allowed, usable)
    yield _law("sum over classes, with secret signs, of gradient", seen.signed, sample.signed, allowed, usable)


def _law(name: str, got: Array, expected: Array, allowed: Array, usable: Flags) -> Law:
    got, expected = np.where(usable, got, 0.0), np.where(usable, expected, 0.0)
    compared = compare(got, Values(expected, expected), {Grade.H: allowed}, "float64")
    return Law(name, compared, grade=Grade.FAIL if compared.wrong.any() else None)


def _seen(problem: Problem, truth: Truth, gradient: torch.Tensor) -> _Seen:
    sample = truth.sample
    assert sample is not None
    seen = _Seen(*np.zeros((len(_Seen.__slots__), problem.rows)))
    for span in spans(problem, STREAMED_ELEMENTS):
        got = float64(rows_at(gradient, problem, span))
        seen.total[span], seen.signed[span] = got.sum(axis=1), got @ sample.signs
        if sample.label is not None and sample.label.labels is not None:
            seen.label[span] = got[np.arange(len(got)), sample.label.labels[span]]
        ignored = np.flatnonzero(truth.rows.valid[span] == 0.0)
        seen.largest_ignored[span.start + ignored] = np.abs(got[ignored]).max(axis=1, initial=0.0)
    return seen
