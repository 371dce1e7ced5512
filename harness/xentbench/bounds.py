"""How far a correct implementation may be off: a-priori rounding-error bounds, one number for every number answered.

Model: every operation of the compute dtype is off by a relative error of a few unit roundoffs `u`; the arguments are
exact, since the truth is evaluated at the stored numbers. After Higham, *Accuracy and Stability of Numerical
Algorithms* (2nd ed., chapters 3 and 4), and Blanchard, D. Higham & N. Higham, *Accurately computing the log-sum-exp and
softmax functions* (IMA J. Numer. Anal. 41(4), 2021). Per row, with `z = x - max x`, `S = sum exp z`, `p = exp z / S`:

- an error of `d` in the argument `z_j` shifts `log S` by `p_j d`, so all arguments together cost
  `u sum p|z| <= u log C`, not `u max|z|`;
- a sum loses at most `min(u S, addend)` at each addition: addends below `u S` can be swallowed, all with one sign,
  the others err at random;
- what the output's own rounding may do is no part of the bounds: see `need`.

Five lines, from tight to loose, are the grades A, B, B-, H and C; the loosest decides whether an answer passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from xentbench.rows import COMPUTE_DTYPE, Rows
from xentbench.spec import UNIT_ROUNDOFF, Grade, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from xentbench.oracle import Truth
    from xentbench.rows import Block

    Array = npt.NDArray[np.float64]
    Lines = dict[Grade, Array]

MANY_ROWS: Final = 1000
"""Above this many rows some sum exceeds four standard deviations by chance."""


@dataclass(frozen=True, slots=True)
class Format:
    """A floating-point format.

    Attributes:
        epsilon: gap between 1 and the next number.
        tiny: smallest normal number.
        largest: largest finite number.
    """

    epsilon: float
    tiny: float
    largest: float

    @classmethod
    def of(cls, dtype: str) -> Format:
        """Return the format of a torch dtype by its name, e.g. `"bfloat16"`."""
        info = torch.finfo(getattr(torch, dtype))
        return cls(info.eps, info.tiny, info.max)


@dataclass(frozen=True, slots=True)
class Model:
    """What is assumed of the arithmetic; errors in units of the unit roundoff.

    Attributes:
        roundoff: unit roundoff of the arithmetic, `u`.
        exp: relative error of exp.
        exp_slope: further relative error of exp for each unit of its argument.
        log: relative error of log.
        log_offset: absolute error of log near 1.
        scale: roundings between probability and gradient entry.
        spread: standard deviations granted to a sum of random roundings; None counts every rounding in full.
        chain: share of a sum's roundings that are made in `roundoff`; the others are made in float32.
        rescales: whether an online softmax may rescale its running sum.
        underflow: what exp may flush to zero.
        floor: absolute error of one operation, where the format underflows early (float16).
    """

    roundoff: float
    exp: float
    exp_slope: float
    log: float
    log_offset: float
    scale: float
    underflow: float
    spread: float | None = None
    chain: float = 1.0
    rescales: bool = True
    floor: float = 0.0

    def sum_roundings(self, additions: Array | float) -> Array:
        """Return the error of a sum of so many additions, relative to the sum of its addends' sizes."""
        count: Array = np.maximum(np.asarray(additions, dtype=np.float64), 0.0)
        if self.spread is not None:
            count = np.minimum(count, self.spread * np.sqrt(count))
        elif self.chain != 1.0:
            count = self.chain * count + (count > 0.0)
        return count

    def rescalings(self, rows: Rows, classes: int) -> Array:
        """Return the error of the rescalings of an online softmax: one for each running maximum, in several lanes."""
        if not self.rescales:
            return np.zeros_like(rows.records)
        count: Array = np.minimum(classes - 1.0, rows.records + 2.0 * np.sqrt(classes))
        if self.spread is not None:
            count = np.minimum(count, self.spread / 2.0 * np.sqrt(rows.records + np.log2(classes)))
        return (self.exp + 2.0) * count


def worst_case(dtype: str) -> Model:
    """Return the model in which every rounding counts in full, computing in `dtype`."""
    return Model(UNIT_ROUNDOFF[dtype], 4.0, 1.5, 3.0, 3.0, 5.0, Format.of(dtype).tiny)


def random_walk(dtype: str, rows: int) -> Model:
    """Return the model in which the roundings of a sum are independent (Higham & Mary 2019), computing in `dtype`."""
    spread = 4.0 if rows <= MANY_ROWS else 6.0
    return Model(UNIT_ROUNDOFF[dtype], 2.0, 0.5, 2.0, 1.0, 3.0, Format.of(dtype).tiny, spread=spread)


def op_by_op(dtype: str) -> Model:
    """Return the model in which every operation's result is rounded to `dtype` while sums run in float32.

    A running sum in half precision is no part of it: the bound would be vacuous from a few hundred classes on.
    """
    half, eta = UNIT_ROUNDOFF[dtype], Format.of(dtype).tiny * Format.of(dtype).epsilon
    chain = UNIT_ROUNDOFF["float32"] / half
    return Model(half, 1.5, 0.1, 1.5, 0.1, 5.0, eta, chain=chain, rescales=False, floor=eta)


def log_sum_error(rows: Rows, model: Model, classes: int) -> Array:
    """Return the bound on the error of `log S`, `(rows,)`; inf where the model promises nothing."""
    lost = rows.lost_addends if model.chain == 1.0 else model.chain * rows.lost_addends
    summing = model.sum_roundings(rows.addends - 1.0) + lost
    underflow = rows.working_underflow if model.floor else rows.underflow
    per_addend = (1.0 + model.exp_slope) * rows.spread + model.exp + summing + model.rescalings(rows, classes)
    relative = model.roundoff * per_addend + underflow
    with np.errstate(all="ignore"):
        argument = np.where(relative < 1.0, relative / (1.0 - relative), np.inf)
    return argument + model.roundoff * (model.log * rows.log_sum + model.log_offset)


def stored_logsumexp_error(rows: Rows, model: Model) -> Array:
    """Return the further error, `(rows,)`, where `logsumexp(x)` is stored before x is subtracted, or exp unshifted."""
    return model.roundoff * (model.log * np.abs(rows.logsumexp) + model.exp_slope * np.abs(rows.largest))


def row_loss_error(problem: Problem, truth: Truth, model: Model, *, stored: bool) -> Array:
    """Return the bound on each row's loss before any reduction, `(rows,)`; `stored` as in `stored_logsumexp_error`."""
    rows, unit = truth.rows, model.roundoff
    forming, adding = _target_roundings(problem, truth), model.sum_roundings(rows.terms - 1.0)
    shared = log_sum_error(rows, model, problem.num_classes)
    if stored:
        shared = shared + stored_logsumexp_error(rows, model)
    error = rows.mass * shared + unit * (rows.target_spread + (2.0 + forming + adding) * rows.target_nll)
    several = rows.target_logits + rows.mass * np.abs(rows.logsumexp)
    error = error + np.where(rows.terms > 1.0, unit * (adding + forming) * several, 0.0)
    with np.errstate(all="ignore"):
        largest_nll = rows.logsumexp - rows.lowest
    floor = model.floor * (2.0 + rows.terms * (1.0 + np.where(np.isfinite(largest_nll), largest_nll, 0.0)))
    return np.where(rows.terms > 0.0, error + floor, 0.0)


def loss_error(problem: Problem, truth: Truth, model: Model, *, stored: bool) -> Array:
    """Return the bound on the loss, flattened: `(rows,)` for reduction none, else `(1,)`."""
    errors = row_loss_error(problem, truth, model, stored=stored)
    if problem.reduction == "none":
        return errors
    sizes = np.abs(truth.rows.loss).sum()
    adding = model.sum_roundings(float(truth.rows.valid.sum()) - 1.0)
    error = errors.sum() + model.roundoff * adding * sizes
    if problem.reduction == "mean":
        dividing = 3.0 + _divisor_roundings(truth, model)
        with np.errstate(all="ignore"):
            error = (error + model.roundoff * dividing * sizes) / np.float64(truth.divisor)
    return np.atleast_1d(np.asarray(error, dtype=np.float64))


def gradient_error(problem: Problem, truth: Truth, block: Block, model: Model, *, stored: bool) -> Array:
    """Return the bound on the gradient with respect to a block of logits, `(rows, C)`.

    Covers `p = e / S`, `p = exp(log p)` and `p = exp(x - logsumexp)`; where p is close to 1 the error of `p - 1` is
    bounded absolutely.
    """
    rows, unit = _rows_of(truth, block), model.roundoff
    upstream = np.abs(truth.upstream[block.where, None])
    shared = log_sum_error(rows, model, problem.num_classes)
    if stored:
        shared = shared + stored_logsumexp_error(rows, model)
    with np.errstate(all="ignore"):
        rho = shared[:, None] + unit * ((1.0 + model.exp_slope) * (block.below + block.nll) + model.exp + 2.0)
        mass = rows.mass[:, None] * block.probabilities
        softmax = np.where(mass == 0.0, 0.0, mass * np.expm1(rho))
        scaling = model.scale + _target_roundings(problem, truth) + _divisor_roundings(truth, model)
        adding = model.sum_roundings(rows.terms - 1.0)[:, None]
        error = softmax + unit * (scaling * (mass + np.abs(block.target)) + adding * mass)
        error = error + np.abs(rows.mass[:, None]) * np.minimum(block.probabilities, model.underflow)
        floor = model.floor * (2.0 + rows.terms[:, None] * block.probabilities) * (rows.terms[:, None] > 0.0)
        total: Array = upstream * (error + floor) + floor
        return total


def target_gradient_error(problem: Problem, truth: Truth, block: Block, model: Model, *, stored: bool) -> Array:
    """Return the bound on the gradient with respect to a block of the probability target, `(rows, C)`."""
    rows, unit = _rows_of(truth, block), model.roundoff
    shared = log_sum_error(rows, model, problem.num_classes)
    if stored:
        shared = shared + stored_logsumexp_error(rows, model)
    with np.errstate(all="ignore"):
        factor = np.abs(truth.upstream[block.where, None]) * block.weight * (1.0 - problem.label_smoothing)
        scaling = 2.0 + model.scale + _target_roundings(problem, truth) + _divisor_roundings(truth, model)
        error = shared[:, None] + unit * (block.below + scaling * block.nll)
        return np.where(factor == 0.0, 0.0, factor * error) + 2.0 * model.floor


def loss_lines(problem: Problem, truth: Truth) -> Lines:
    """Return the allowed errors of the loss by grade, each flattened: `(rows,)` for reduction none, else `(1,)`."""
    expected = truth.loss.masked.reshape(-1)
    lines = _lines(problem, expected, lambda model, stored: loss_error(problem, truth, model, stored=stored))
    return lines if truth.sample is None else _widened(problem, lines)


def gradient_lines(problem: Problem, truth: Truth, block: Block, expected: Array) -> Lines:
    """Return the allowed errors of the gradient of a block by grade, each `(rows, C)`."""
    return _lines(problem, expected, lambda model, stored: gradient_error(problem, truth, block, model, stored=stored))


def target_gradient_lines(problem: Problem, truth: Truth, block: Block, expected: Array) -> Lines:
    """Return the allowed errors of the gradient with respect to a block of the target by grade, each `(rows, C)`."""
    return _lines(
        problem, expected, lambda model, stored: target_gradient_error(problem, truth, block, model, stored=stored)
    )


def label_lines(problem: Problem, truth: Truth) -> Lines:
    """Return the allowed errors of the labels' entries of a sampled gradient by grade, each `(rows, 1)`."""
    assert truth.sample is not None
    label = truth.sample.label
    assert label is not None
    return _widened(problem, gradient_lines(problem, truth, label, truth.sample.label_gradient[:, None]))


def row_sum_allowed(problem: Problem, truth: Truth) -> Array:
    """Return how far a row of the gradient, its entries added with any signs, may be from the truth; `(rows,)`.

    To the entries' errors come their rounding, of at most `u |g|` or half the smallest number each, and that of adding
    them up in float64, which is the judge's.
    """
    compute, stored, classes = COMPUTE_DTYPE[problem.dtype], Format.of(problem.dtype), problem.num_classes
    allowed = row_sum_error(problem, truth, worst_case(compute))
    if problem.dtype != compute:
        allowed = np.fmax(allowed, row_sum_error(problem, truth, op_by_op(problem.dtype)))
    allowed = _widened(problem, {Grade.H: allowed + classes * Format.of(compute).tiny})[Grade.H]
    with np.errstate(all="ignore"):
        size = 2.0 * np.abs(truth.upstream * truth.rows.mass) + allowed
        rounding = (UNIT_ROUNDOFF[problem.dtype] + classes * UNIT_ROUNDOFF["float64"]) * size
        return allowed + rounding + np.fmin(size, classes * stored.tiny * stored.epsilon / 2.0)


def row_sum_error(problem: Problem, truth: Truth, model: Model) -> Array:
    """Return no less than the sum of `gradient_error` over the classes of each row, `(rows,)`, from the row's sums.

    With `below + nll = 2 |z| + log S`, the sum over classes of `p exp(2 b |z|)` is at most `(C / S)^(2 b)` for b below
    1/2, since `t^(1 - 2 b)` is concave.
    """
    rows, unit, classes = truth.rows, model.roundoff, problem.num_classes
    upstream, mass = np.abs(truth.upstream), np.abs(rows.mass)
    shared = log_sum_error(rows, model, classes) + stored_logsumexp_error(rows, model)
    with np.errstate(all="ignore"):
        slope = unit * (1.0 + model.exp_slope)
        rho = shared + slope * (2.0 * np.log(classes) - rows.log_sum) + unit * (model.exp + 2.0)
        scaling = model.scale + _target_roundings(problem, truth) + _divisor_roundings(truth, model)
        adding = model.sum_roundings(rows.terms - 1.0)
        relative = np.expm1(rho) + unit * (2.0 * scaling + adding) + min(1.0, classes * model.underflow)
        floor = model.floor * (2.0 * classes + rows.terms) * (rows.terms > 0.0)
        return np.where(upstream * mass == 0.0, 0.0, upstream * mass * relative) + (1.0 + upstream) * floor


def half_spacing(values: Array, towards: Array, dtype: str) -> Array:
    """Return half the gap between each number of `dtype` and its neighbour on the side of `towards`.

    Args:
        values: numbers that `dtype` holds exactly, as float64.
        towards: which side is meant; below a power of two the gap is half of that above.
        dtype: name of the format.
    """
    form = Format.of(dtype)
    size = np.abs(values)
    with np.errstate(all="ignore"):
        fraction, exponent = np.frexp(size)
        # frexp gives 0 the exponent of 1/2; its neighbours are the smallest subnormal numbers.
        exponent = np.where(size == 0.0, np.iinfo(np.int32).min // 2, exponent)
        gap = np.maximum(np.ldexp(form.epsilon, exponent - 1), form.tiny * form.epsilon)
        inwards = towards * np.sign(values) < size
    narrow = inwards & (fraction == 0.5) & (size > form.tiny)  # noqa: PLR2004 - frexp's mantissa of a power of two
    half: Array = np.where(narrow, gap / 4.0, gap / 2.0)
    return half


def need(got: Array, expected: Array, dtype: str, low: Array | None = None) -> Array:
    """Return the smallest `|d|` for which `expected + low + d`, rounded to nearest in `dtype`, is `got`.

    0 where `got` is the correctly rounded answer; inf where no finite error explains it (NaN for a number, a number for
    inf). Overflow is rounding too: inf is right for what lies half a gap above the largest number.

    Args:
        got: answers, exact in float64.
        expected: true values, same shape.
        dtype: name of the answers' format.
        low: what the float64 numbers lack of the truth, less than half a gap each; None for nothing.
    """
    form = Format.of(dtype)
    lacking = 0.0 if low is None else low
    half_gap = 0.0 if dtype == "float64" else form.epsilon / 2.0 * (form.largest / (2.0 - form.epsilon))
    limit = form.largest + half_gap
    with np.errstate(all="ignore"):
        within = np.maximum(0.0, np.abs((got - expected) - lacking) - half_spacing(got, expected, dtype))
        overflow = np.maximum(0.0, limit - np.sign(got) * expected)
        error = np.where(np.isinf(got) & np.isfinite(expected), overflow, within)
        error = np.where((got == expected) | (np.isnan(got) & np.isnan(expected)), 0.0, error)
    return np.where(np.isnan(error), np.inf, error)


def passes(error: Array, allowed: Array) -> npt.NDArray[np.bool_]:
    """Return where an error, as `need` gives it, is allowed; a vacuous bound never excuses NaN."""
    result: npt.NDArray[np.bool_] = (error == 0.0) | (np.isfinite(error) & (error <= allowed))
    return result


def _lines(problem: Problem, expected: Array, bound: Callable[[Model, bool], Array]) -> Lines:
    """Return the allowed errors by grade, each no tighter than the grade before.

    Nothing is granted to the truth itself, which is solved in more than twice the digits of what is judged; where it
    is not, see `_widened`.
    """
    compute = COMPUTE_DTYPE[problem.dtype]
    worst, likely, unit = worst_case(compute), random_walk(compute, problem.rows), UNIT_ROUNDOFF[compute]
    with np.errstate(all="ignore"):
        lines = {Grade.A: 2.0 * unit * np.abs(expected) + Format.of(compute).tiny}
        lines[Grade.B] = np.fmin(bound(likely, False), bound(worst, False))  # noqa: FBT003 - which form
        hard = bound(worst, True)  # noqa: FBT003 - which form
        lines[Grade.B_MINUS] = np.fmin(bound(likely, True), hard)  # noqa: FBT003 - which form
        lines[Grade.H] = hard
        if problem.dtype != compute:
            lines[Grade.C] = bound(op_by_op(problem.dtype), True)  # noqa: FBT003 - which form
        loosest = np.zeros_like(expected)
        for grade, line in lines.items():
            loosest = np.fmax(loosest, line)
            lines[grade] = loosest
    return lines


def _widened(problem: Problem, lines: Lines) -> Lines:
    """Return the lines for a truth that is held in float64 alone: doubled for float64 problems.

    The truth's own error is no more than what is granted to those it judges, since it adds pairwise and shifts once.
    """
    return {grade: 2.0 * line for grade, line in lines.items()} if problem.dtype == "float64" else lines


def _target_roundings(problem: Problem, truth: Truth) -> float:
    """Return how many roundings form an effective target: none for a bare label, one for its class weight."""
    if problem.has_index_target and not problem.label_smoothing:
        return 1.0 if truth.weighted else 0.0
    return 3.0


def _divisor_roundings(truth: Truth, model: Model) -> float:
    """Return the relative error of the mean's divisor: a count is exact, a sum of class weights is not."""
    if not truth.weighted:
        return 0.0 if model.chain == 1.0 else 1.0
    return float(model.sum_roundings(float(truth.rows.valid.sum()) - 1.0))


def _rows_of(truth: Truth, block: Block) -> Rows:
    return Rows(*(getattr(truth.rows, name)[block.where] for name in Rows.__slots__))
