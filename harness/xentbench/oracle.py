"""The truth, from the definition, at the stored (already rounded) numbers; it never calls `F.cross_entropy`.

It is evaluated in float64, and for float64 problems once more in pairs (`paired`), so that the truth is never merely as
good as what is judged. The second evaluation replaces finite numbers only: what is special is decided in float64.

Where there is another well-founded choice than that of `F.cross_entropy`, the truth holds both. The other choice is a
masked kernel's: 0 times anything is 0 (an ignored row with NaN logits has gradient 0, a probability 0 on a -inf logit
costs nothing), a +inf logit, or nothing but -inf, makes the loss inf instead of NaN, and with every row ignored the
gradient of the mean is NaN instead of 0. The gradient of a row whose maximum is infinite is nobody's to say (torch:
NaN, log-sum-exp forms: 0 or NaN): `Truth.open` marks it, and it is not judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xentbench.doubledouble import Pair
from xentbench.paired import paired_loss, solve_paired
from xentbench.rows import (
    Block,
    Rows,
    blocks,
    classes_last,
    divisor_of,
    float64,
    ingredients,
    labels_of,
    row_losses,
    times,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from xentbench.inputs import Inputs
    from xentbench.rows import Places
    from xentbench.spec import Problem

    Array = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]


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
class Sample:
    """What is known of the gradient where only some of its rows are solved in full (see `sampling`).

    Attributes:
        places: the rows that `Truth.gradient` and `Truth.target_gradient` hold.
        label: every row's label as a block of one class, `(rows, 1)`; None for probability targets.
        label_gradient: `(rows, 1)` its entry of the gradient.
        signs: `(C,)`, of size 1.
        signed: `(rows,)` sum of a row's gradient times the signs.
    """

    places: Places
    label: Block | None
    label_gradient: Array
    signs: Array
    signed: Array


@dataclass(frozen=True, slots=True)
class Truth:
    """The right answers to one problem.

    Attributes:
        loss: float64, `problem.loss_shape`.
        gradient: of the upstream-weighted loss with respect to the logits; the logits' shape, or `(len(places), C)`.
        target_gradient: with respect to a probability target that requires it, else None; shaped as the gradient.
        rows: ingredients of the bounds, of all rows.
        divisor: of the mean: sum of the valid labels' weights, or number of rows for probabilities; 1 if not a mean.
        weighted: whether class weights take part.
        upstream: `(rows,)` derivative of the later scalar with respect to each row's own loss, 1 / divisor included.
        open: `(rows,)` whether the row's gradient may be anything.
        sample: where the problem is large, which rows the gradients hold, and what is known of the others.
    """

    loss: Values
    gradient: Values
    target_gradient: Values | None
    rows: Rows
    divisor: float
    weighted: bool
    upstream: Array
    open: Flags
    sample: Sample | None = None


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
        found = solve_rows(problem, inputs)
        loss = reduced(problem, inputs, found.losses)
    return Truth(
        loss=loss,
        gradient=_shaped(found.gradient, problem),
        target_gradient=None if found.target_gradient is None else _shaped(found.target_gradient, problem),
        rows=found.rows,
        divisor=divisor_of(problem, inputs),
        weighted=inputs.weight is not None,
        upstream=upstream_of(problem, inputs),
        open=np.isinf(float64(classes_last(inputs.logits, problem).amax(dim=1))),
    )


@dataclass(frozen=True, slots=True)
class Solved:
    """The truth about some rows: losses `(rows,)` before any reduction, gradients `(rows, C)`, ingredients."""

    losses: Values
    gradient: Values
    target_gradient: Values | None
    rows: Rows


def solve_rows(problem: Problem, inputs: Inputs, places: Places | None = None) -> Solved:
    """Return the truth about these rows, by default all; their gradients are those of the reduced, weighted loss."""
    *plain, rows = _solve(problem, inputs, places, masked=False)
    special = divisor_of(problem, inputs) == 0.0 or not all(
        np.isfinite(part).all() for part in plain if part is not None
    )
    other = _solve(problem, inputs, places, masked=True)[:3] if special else plain
    paired = solve_paired(problem, inputs, places) if problem.dtype == "float64" else (None, None, None)
    losses, gradient, target_gradient = (
        None if part is None or second is None else _values(part, second, pair)
        for part, second, pair in zip(plain, other, paired, strict=True)
    )
    assert losses is not None
    assert gradient is not None
    return Solved(losses, gradient, target_gradient, rows)


def reduced(problem: Problem, inputs: Inputs, losses: Values) -> Values:
    """Return the loss, `problem.loss_shape`, of all rows' losses."""
    divisor = divisor_of(problem, inputs)
    torch_loss = _reduce(problem, losses.torch, divisor, masked=False)
    same = losses.masked is losses.torch and divisor != 0.0
    masked_loss = torch_loss if same else _reduce(problem, losses.masked, divisor, masked=True)
    if losses.low is None:
        return Values(torch_loss, masked_loss)
    paired = paired_loss(problem, inputs, Pair(losses.masked, losses.low))
    return _values(torch_loss, masked_loss, paired)


def _shaped(values: Values, problem: Problem) -> Values:
    """Return gradients `(rows, C)` of all rows in the shape of the logits."""
    torch_rows = classes_second(values.torch, problem)
    masked_rows = torch_rows if values.masked is values.torch else classes_second(values.masked, problem)
    return Values(torch_rows, masked_rows, None if values.low is None else classes_second(values.low, problem))


def classes_second(rows: Array, problem: Problem) -> Array:
    """Return `(rows, C)` in the shape of the logits."""
    if problem.batch_size is None:
        return rows.reshape(problem.num_classes)
    return np.moveaxis(rows.reshape(problem.batch_size, *problem.dims, problem.num_classes), -1, 1)


def _solve(
    problem: Problem, inputs: Inputs, places: Places | None, *, masked: bool
) -> tuple[Array, Array, Array | None, Rows]:
    """Return losses, gradient, target gradient and ingredients of these rows by one of the two conventions."""
    count = problem.rows if places is None else len(places)
    divisor, upstream, shape = divisor_of(problem, inputs), upstream_of(problem, inputs), (count, problem.num_classes)
    losses, gradient = np.empty(count), np.empty(shape)
    target_gradient = np.empty(shape) if problem.target_grad and not problem.has_index_target else None
    rows = np.empty((len(Rows.__slots__), count))
    for block in blocks(problem, inputs, places=places):
        span, share = block.span, upstream[block.where, None]
        losses[span] = row_losses(problem, block, masked=masked)
        gradient[span] = _gradient(block, share, masked=masked, no_divisor=divisor == 0.0)
        if target_gradient is not None:
            slope = (1.0 - problem.label_smoothing) * block.nll
            target_gradient[span] = times(share * block.weight, slope, masked=masked)
        rows[:, span] = ingredients(problem, block)
    return losses, gradient, target_gradient, Rows(*rows)


def upstream_of(problem: Problem, inputs: Inputs) -> Array:
    """Return, for each row, the derivative of the later scalar with respect to the row's loss; 0 for ignored rows."""
    with np.errstate(all="ignore"):
        share = float64(inputs.upstream).reshape(-1) / divisor_of(problem, inputs)
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
