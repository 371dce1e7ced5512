"""The truth, from the definition, at the stored (already rounded) numbers; it never calls `F.cross_entropy`.

It is evaluated in float64, and for float64 problems once more in `doubledouble`, so that the truth is never merely as
good as what is judged. The second evaluation replaces finite numbers only: what is special is decided in float64.

Where there is another well-founded choice than that of `F.cross_entropy`, the truth holds both. The other choice is a
masked kernel's: 0 times anything is 0 (an ignored row with NaN logits has gradient 0, a probability 0 on a -inf logit
costs nothing), a +inf logit, or nothing but -inf, makes the loss inf instead of NaN, and with every row ignored the
gradient of the mean is NaN instead of 0. The gradient of a row whose maximum is infinite is nobody's to say (torch:
NaN, log-sum-exp forms: 0 or NaN): `Truth.open` marks it, and it is not judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from xentbench import doubledouble as dd
from xentbench.doubledouble import Pair
from xentbench.rows import Block, Rows, blocks, classes_last, float64, ingredients, labels_of, row_losses, times

if TYPE_CHECKING:
    import numpy.typing as npt

    from xentbench.inputs import Inputs
    from xentbench.spec import Problem

    Array = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

PAIRED_ELEMENTS: Final = 1 << 15
"""Logits held in double-double at a time: some dozens of temporaries, which should stay in the cache."""


@dataclass(frozen=True, slots=True)
class Values:
    """One true quantity, float64.

    Attributes:
        torch: by the conventions of `F.cross_entropy`.
        masked: by the conventions of masked kernels; the same object where no number is special.
        low: what is to be added to either for the truth in double-double; None where it is held in float64.
    """

    torch: Array
    masked: Array
    low: Array | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """The right answers to one problem.

    Attributes:
        loss: float64, `problem.loss_shape`.
        gradient: of the upstream-weighted loss with respect to the logits; the logits' shape.
        target_gradient: with respect to a probability target that requires it, else None.
        rows: ingredients of the bounds.
        divisor: of the mean: sum of the valid labels' weights, or number of rows for probabilities; 1 if not a mean.
        weighted: whether class weights take part.
        upstream: `(rows,)` derivative of the later scalar with respect to each row's own loss, 1 / divisor included.
        open: `(rows,)` whether the row's gradient may be anything.
    """

    loss: Values
    gradient: Values
    target_gradient: Values | None
    rows: Rows
    divisor: float
    weighted: bool
    upstream: Array
    open: Flags


def solve(problem: Problem, inputs: Inputs) -> Truth:
    """Return loss, gradients and the bounds' ingredients, evaluated at the stored numbers.

    A row's loss is `sum q (logsumexp(x) - x)` with the effective target `q`: `(1 - eps) w_t e_t + eps w / C` for the
    class index t, `w ((1 - eps) y + eps / C)` for probabilities y; ignored rows count 0. The mean divides by the sum of
    the valid labels' weights, for probabilities by the number of rows (documentation of `torch.nn.CrossEntropyLoss`);
    with nothing to divide by it is NaN. Gradients: `s (Q p - q)` and `s w (1 - eps) (-log p)`, where `s` arrives from
    upstream.

    Args:
        problem: reduction, ignore_index, label_smoothing and kind of target.
        inputs: tensors in any dtype and layout; `upstream` is where the gradient starts.
    """
    with np.errstate(all="ignore"):
        plain = _solve(problem, inputs, masked=False)
        special = not all(np.isfinite(values).all() for values in plain[:3] if values is not None)
        other = _solve(problem, inputs, masked=True) if special else plain
        paired = _solve_paired(problem, inputs) if problem.dtype == "float64" else (None, None, None)
    loss, gradient, target_gradient, rows = plain
    return Truth(
        loss=_values(loss, other[0], paired[0]),
        gradient=_values(gradient, other[1], paired[1]),
        target_gradient=(
            None if target_gradient is None or other[2] is None else _values(target_gradient, other[2], paired[2])
        ),
        rows=rows,
        divisor=_divisor(problem, inputs),
        weighted=inputs.weight is not None,
        upstream=_upstream(problem, inputs),
        open=np.isinf(float64(classes_last(inputs.logits, problem).amax(dim=1))),
    )


def classes_second(rows: Array, problem: Problem) -> Array:
    """Return `(rows, C)` in the shape of the logits."""
    if problem.batch_size is None:
        return rows.reshape(problem.num_classes)
    return np.moveaxis(rows.reshape(problem.batch_size, *problem.dims, problem.num_classes), -1, 1)


def _solve(problem: Problem, inputs: Inputs, *, masked: bool) -> tuple[Array, Array, Array | None, Rows]:
    """Return loss, gradient, target gradient and ingredients by one of the two conventions."""
    divisor, upstream, shape = (
        _divisor(problem, inputs),
        _upstream(problem, inputs),
        (problem.rows, problem.num_classes),
    )
    losses, gradient = np.empty(problem.rows), np.empty(shape)
    target_gradient = np.empty(shape) if problem.target_grad and not problem.has_index_target else None
    rows = np.empty((len(Rows.__slots__), problem.rows))
    for block in blocks(problem, inputs):
        where, share = block.where, upstream[block.where, None]
        losses[where] = row_losses(problem, block, masked=masked)
        gradient[where] = _gradient(block, share, masked=masked, no_divisor=divisor == 0.0)
        if target_gradient is not None:
            slope = (1.0 - problem.label_smoothing) * block.nll
            target_gradient[where] = times(share * block.weight, slope, masked=masked)
        rows[:, where] = ingredients(problem, block)
    return (
        _reduce(problem, losses, divisor, masked=masked),
        classes_second(gradient, problem),
        None if target_gradient is None else classes_second(target_gradient, problem),
        Rows(*rows),
    )


def _divisor(problem: Problem, inputs: Inputs) -> float:
    if problem.reduction != "mean":
        return 1.0
    if not problem.has_index_target:
        return float(problem.rows)
    labels = labels_of(inputs)
    labels = labels[labels != problem.ignore_index]
    return float(len(labels) if inputs.weight is None else float64(inputs.weight)[labels].sum())


def _upstream(problem: Problem, inputs: Inputs) -> Array:
    """Return, for each row, the derivative of the later scalar with respect to the row's loss; 0 for ignored rows."""
    with np.errstate(all="ignore"):
        share = float64(inputs.upstream).reshape(-1) / _divisor(problem, inputs)
    share = np.broadcast_to(share, (problem.rows,))
    if problem.has_index_target:
        return np.where(labels_of(inputs) == problem.ignore_index, 0.0, share)
    return share


def _gradient(block: Block, share: Array, *, masked: bool, no_divisor: bool) -> Array:
    """Return `(rows, C)` gradient `s (Q p - q)`, written `s ((Q - q) p - q (1 - p))`.

    With nothing to divide by, torch gives NaN where rows count and 0 where they are ignored, others the reverse.
    """
    mass = block.target.sum(axis=1, keepdims=True)
    inner = times(mass - block.target, block.probabilities, masked=masked)
    inner = inner - times(block.target, block.complements, masked=masked)
    gradient = times(share, inner, masked=masked)
    if no_divisor:
        gradient[block.valid ^ masked] = np.nan
    return gradient


def _reduce(problem: Problem, losses: Array, divisor: float, *, masked: bool) -> Array:
    if problem.reduction == "none":
        return losses.reshape(problem.loss_shape)
    if divisor == 0.0 and not masked:
        return np.asarray(np.nan)
    return np.asarray(losses.sum() / np.float64(divisor))


def _values(plain: Array, masked: Array, paired: Pair | None) -> Values:
    """Return one quantity by both conventions, in double-double wherever it is finite there."""
    if paired is None:
        return Values(plain, masked)
    known = np.isfinite(paired.high) & np.isfinite(paired.low)
    finer = np.where(known & np.isfinite(plain), paired.high, plain)
    other = finer if masked is plain else np.where(known & np.isfinite(masked), paired.high, masked)
    return Values(finer, other, np.where(known, paired.low, 0.0))


def _solve_paired(problem: Problem, inputs: Inputs) -> tuple[Pair, Pair, Pair | None]:
    """Return loss, gradient and target gradient as `_solve` does with 0 times anything 0, in double-double."""
    share, shape = _paired_upstream(problem, inputs), (problem.rows, problem.num_classes)
    losses, gradient = dd.zeros(shape[:1]), dd.zeros(shape)
    target_gradient = dd.zeros(shape) if problem.target_grad and not problem.has_index_target else None
    slope = dd.multiply(_kept(problem), _weight(problem, inputs))
    for block in blocks(problem, inputs, PAIRED_ELEMENTS):
        scale = share[block.where][:, None]
        target = _paired_target(problem, inputs, block)
        nll, probabilities, complements = _paired_row(block)
        losses[block.where] = dd.total(_paired_times(target, nll))
        rest = dd.subtract(dd.total(target)[:, None], target)
        inner = dd.subtract(_paired_times(rest, probabilities), _paired_times(target, complements))
        gradient[block.where] = _paired_times(scale, inner)
        if target_gradient is not None:
            target_gradient[block.where] = _paired_times(dd.multiply(scale, slope), nll)
    return (
        _paired_loss(problem, losses, _paired_divisor(problem, inputs)),
        _paired_classes_second(gradient, problem),
        None if target_gradient is None else _paired_classes_second(target_gradient, problem),
    )


def _paired_row(block: Block) -> tuple[Pair, Pair, Pair]:
    """Return `-log p`, `p` and `1 - p`, each `(rows, C)`, as `Block` has them."""
    every = np.arange(len(block.logits))
    below = dd.two_sum(block.logits[every, block.peak][:, None], -block.logits)
    below = Pair(below.high, np.where(np.isfinite(below.low), below.low, 0.0))
    exponentials = dd.exp(-below)
    without_peak = dd.where(np.arange(block.logits.shape[1]) == block.peak[:, None], dd.exactly(0.0), exponentials)
    others = dd.total(without_peak)
    whole = dd.add(dd.exactly(1.0), others)
    inverse = dd.divide(dd.exactly(1.0), whole)[:, None]
    rest = dd.subtract(whole[:, None], exponentials)
    rest[every, block.peak] = others
    nll = dd.add(dd.log1p(others)[:, None], below)
    return nll, dd.multiply(exponentials, inverse), dd.multiply(rest, inverse)


def _paired_target(problem: Problem, inputs: Inputs, block: Block) -> Pair:
    """Return the effective target `(rows, C)`."""
    keep = _kept(problem)
    uniform = dd.divide(dd.exactly(problem.label_smoothing), dd.exactly(problem.num_classes))
    weight = dd.exactly(block.weight)
    if block.labels is None:
        given = dd.exactly(float64(classes_last(inputs.target, problem)[block.where]))
        return dd.multiply(weight, dd.add(dd.multiply(keep, given), uniform))
    spread, nothing = dd.multiply(weight, uniform), dd.exactly(0.0)
    hit = (np.arange(problem.num_classes) == block.labels[:, None]) & block.valid[:, None]
    target = dd.where(hit, dd.add(spread, dd.multiply(weight, keep)), spread)
    return dd.where(block.valid[:, None], target, nothing)


def _kept(problem: Problem) -> Pair:
    """Return the share of the target that label smoothing leaves."""
    return dd.subtract(dd.exactly(1.0), dd.exactly(problem.label_smoothing))


def _weight(problem: Problem, inputs: Inputs) -> Pair:
    return dd.exactly(np.ones(problem.num_classes) if inputs.weight is None else float64(inputs.weight))


def _paired_divisor(problem: Problem, inputs: Inputs) -> Pair:
    if problem.reduction != "mean" or not problem.has_index_target or inputs.weight is None:
        return dd.exactly(_divisor(problem, inputs))
    labels = labels_of(inputs)
    return dd.total(_weight(problem, inputs)[labels[labels != problem.ignore_index]])


def _paired_upstream(problem: Problem, inputs: Inputs) -> Pair:
    """Return what `_upstream` does."""
    share = dd.divide(dd.exactly(float64(inputs.upstream).reshape(-1)), _paired_divisor(problem, inputs))
    share = Pair(*(np.broadcast_to(part, (problem.rows,)) for part in (share.high, share.low)))
    if not problem.has_index_target:
        return share
    ignored = labels_of(inputs) == problem.ignore_index
    return dd.where(ignored, dd.exactly(0.0), share)


def _paired_loss(problem: Problem, losses: Pair, divisor: Pair) -> Pair:
    if problem.reduction == "none":
        return losses.reshape(*problem.loss_shape)
    return dd.divide(dd.total(losses), divisor)


def _paired_times(left: Pair, right: Pair) -> Pair:
    """Multiply; 0 times anything is 0."""
    return dd.where((left.high == 0.0) | (right.high == 0.0), dd.exactly(0.0), dd.multiply(left, right))


def _paired_classes_second(rows: Pair, problem: Problem) -> Pair:
    return Pair(classes_second(rows.high, problem), classes_second(rows.low, problem))
