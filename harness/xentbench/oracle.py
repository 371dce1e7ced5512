"""The truth in float64, from the definition, at the stored (already rounded) numbers; it never calls `F.cross_entropy`.

Where there is another well-founded choice than that of `F.cross_entropy`, the truth holds both. The other choice is a
masked kernel's: 0 times anything is 0 (an ignored row with NaN logits has gradient 0, a probability 0 on a -inf logit
costs nothing), a +inf logit makes the loss inf instead of NaN, and with every row ignored the gradient of the mean is
NaN instead of 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xentbench.rows import Block, Rows, blocks, float64, ingredients, row_losses, times

if TYPE_CHECKING:
    import numpy.typing as npt

    from xentbench.inputs import Inputs
    from xentbench.spec import Problem

    Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Values:
    """One true quantity, float64.

    Attributes:
        torch: by the conventions of `F.cross_entropy`.
        masked: by the conventions of masked kernels; the same object where no number is special.
    """

    torch: Array
    masked: Array


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
    """

    loss: Values
    gradient: Values
    target_gradient: Values | None
    rows: Rows
    divisor: float
    weighted: bool
    upstream: Array


def solve(problem: Problem, inputs: Inputs) -> Truth:
    """Return loss, gradients and the bounds' ingredients in float64, evaluated at the stored numbers.

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
    loss, gradient, target_gradient, rows = plain
    return Truth(
        loss=Values(loss, other[0]),
        gradient=Values(gradient, other[1]),
        target_gradient=None if target_gradient is None or other[2] is None else Values(target_gradient, other[2]),
        rows=rows,
        divisor=_divisor(problem, inputs),
        weighted=inputs.weight is not None,
        upstream=_upstream(problem, inputs),
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
    labels = inputs.target.detach().cpu().reshape(-1).numpy()
    labels = labels[labels != problem.ignore_index]
    return float(len(labels) if inputs.weight is None else float64(inputs.weight)[labels].sum())


def _upstream(problem: Problem, inputs: Inputs) -> Array:
    """Return, for each row, the derivative of the later scalar with respect to the row's loss; 0 for ignored rows."""
    with np.errstate(all="ignore"):
        share = float64(inputs.upstream).reshape(-1) / _divisor(problem, inputs)
    share = np.broadcast_to(share, (problem.rows,))
    if problem.has_index_target:
        return np.where(inputs.target.detach().cpu().reshape(-1).numpy() == problem.ignore_index, 0.0, share)
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
