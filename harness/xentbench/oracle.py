"""The truth in float64, from the definition, at the stored (already rounded) numbers; it never calls `F.cross_entropy`.

With `m = max x`, `z = x - m`, `s` the sum of `exp z` over all classes but the maximum's, a row's negative
log-probability is `log1p(s) + (m - x)`: two terms of one sign, so that nothing cancels, and `p - 1` is formed from the
other classes' exponentials. NumPy evaluates it, so that not even `exp` is shared with what is judged.

Where there is another well-founded choice than that of `F.cross_entropy`, the truth holds both. The other choice is a
masked kernel's: 0 times anything is 0 (an ignored row with NaN logits has gradient 0, a probability 0 on a -inf logit
costs nothing), a +inf logit makes the loss inf instead of NaN, and with every row ignored the gradient of the mean is
NaN instead of 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from xentbench.spec import UNIT_ROUNDOFF

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from xentbench.inputs import Inputs
    from xentbench.spec import Problem

    Array = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

BLOCK_ELEMENTS: Final = 1 << 20
"""Logits held in float64 at a time: about a dozen temporaries of 8 MiB, however many rows there are."""
COMPUTE_DTYPE: Final = {"float64": "float64", "float32": "float32", "bfloat16": "float32", "float16": "float32"}
"""Dtype in which a careful implementation computes: half precision is for storage."""


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
class Rows:
    """Ingredients of the error bounds, one number a row of the logits, each of shape `(rows,)` and dtype float64.

    `e` is `exp(x - max)`, `S` its sum, `q` the effective target (class weights and label smoothing included), `Q` its
    sum, `u` the unit roundoff and `tiny` the smallest normal number of the compute dtype.

    Attributes:
        largest: `max x`.
        lowest: the smallest logit whose exponential matters: the label's, or of all where all classes take part.
        log_sum: `log S`, from 0 to log C.
        logsumexp: `max x + log S`.
        spread: `sum p |z|`.
        addends: how many `e >= u S`.
        lost_addends: sum of `e / (u S)` over the others: what stagnation can swallow, in units of `u S`.
        underflow: sum of `min(e, tiny) / S`.
        working_underflow: the same with the smallest positive number of the logits' own dtype.
        records: how many running maxima there are from the first class to the last.
        mass: `Q`.
        terms: how many `q` are not zero.
        target_spread: `sum q |z|`.
        target_nll: `sum q |log p|`.
        target_logits: `sum q |x|`.
        loss: the row's loss, `0 * inf` taken as 0.
        valid: 1 where the row counts, 0 where its target is ignore_index.
    """

    largest: Array
    lowest: Array
    log_sum: Array
    logsumexp: Array
    spread: Array
    addends: Array
    lost_addends: Array
    underflow: Array
    working_underflow: Array
    records: Array
    mass: Array
    terms: Array
    target_spread: Array
    target_nll: Array
    target_logits: Array
    loss: Array
    valid: Array


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


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows in float64, classes last, with what follows from them; arrays are `(rows, C)`, or `(rows,)` where said.

    Attributes:
        where: which rows of the problem.
        logits: `x`; rows without a finite maximum are all NaN.
        below: `m - x >= 0`.
        exponentials: `exp(x - m)`.
        others: `(rows,)` sum of the exponentials without the maximum's, `S - 1`.
        peak: `(rows,)` class of the (first) maximum.
        nll: `-log p >= 0`.
        target: effective target `q`.
        weight: `(C,)` class weights, ones where there are none.
        labels: `(rows,)` class indices, 0 where ignored, None for probabilities.
        valid: `(rows,)` whether the row counts.
        infinite: `(rows,)` whether the row's maximum is +inf.
    """

    where: slice
    logits: Array
    below: Array
    exponentials: Array
    others: Array
    peak: npt.NDArray[np.int64]
    nll: Array
    target: Array
    weight: Array
    labels: npt.NDArray[np.int64] | None
    valid: Flags
    infinite: Flags

    @property
    def probabilities(self) -> Array:
        """`p`, the softmax."""
        return self.exponentials / (1.0 + self.others)[:, None]

    @property
    def complements(self) -> Array:
        """`1 - p`, without cancellation at the maximum."""
        rest = (1.0 + self.others)[:, None] - self.exponentials
        rest[np.arange(len(rest)), self.peak] = self.others
        return rest / (1.0 + self.others)[:, None]


def classes_last(tensor: torch.Tensor, problem: Problem) -> torch.Tensor:
    """Return a tensor shaped as the logits as `(rows, C)`: one row for each target, in the target's order."""
    rows = tensor.detach() if problem.batch_size is None else tensor.detach().movedim(1, -1)
    return rows.reshape(problem.rows, problem.num_classes)


def blocks(problem: Problem, inputs: Inputs) -> Iterator[Block]:
    """Yield the problem's rows in blocks of at most `BLOCK_ELEMENTS` logits (at least one row)."""
    size = max(1, BLOCK_ELEMENTS // problem.num_classes)
    logits = classes_last(inputs.logits, problem)
    target = inputs.target.reshape(-1) if problem.has_index_target else classes_last(inputs.target, problem)
    weight = np.ones(problem.num_classes) if inputs.weight is None else _float64(inputs.weight)
    for start in range(0, problem.rows, size):
        where = slice(start, min(start + size, problem.rows))
        yield _block(problem, where, _float64(logits[where]), target[where].detach().cpu(), weight)


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
        losses[where] = _row_losses(problem, block, masked=masked)
        gradient[where] = _gradient(block, share, masked=masked, no_divisor=divisor == 0.0)
        if target_gradient is not None:
            slope = (1.0 - problem.label_smoothing) * block.nll
            target_gradient[where] = _times(share * block.weight, slope, masked=masked)
        rows[:, where] = _ingredients(problem, block)
    return (
        _reduce(problem, losses, divisor, masked=masked),
        classes_second(gradient, problem),
        None if target_gradient is None else classes_second(target_gradient, problem),
        Rows(*rows),
    )


def _float64(tensor: torch.Tensor) -> Array:
    """Copy to float64: exact for every dtype of logits."""
    array: Array = tensor.detach().to("cpu", torch.float64, copy=True).numpy()
    return array


def _divisor(problem: Problem, inputs: Inputs) -> float:
    if problem.reduction != "mean":
        return 1.0
    if not problem.has_index_target:
        return float(problem.rows)
    labels = inputs.target.detach().cpu().reshape(-1).numpy()
    labels = labels[labels != problem.ignore_index]
    return float(len(labels) if inputs.weight is None else _float64(inputs.weight)[labels].sum())


def _upstream(problem: Problem, inputs: Inputs) -> Array:
    """Return, for each row, the derivative of the later scalar with respect to the row's loss; 0 for ignored rows."""
    with np.errstate(all="ignore"):
        share = _float64(inputs.upstream).reshape(-1) / _divisor(problem, inputs)
    share = np.broadcast_to(share, (problem.rows,))
    if problem.has_index_target:
        return np.where(inputs.target.detach().cpu().reshape(-1).numpy() == problem.ignore_index, 0.0, share)
    return share


def _block(problem: Problem, where: slice, logits: Array, target: torch.Tensor, weight: Array) -> Block:
    largest = logits.max(axis=1)
    logits[~np.isfinite(largest)] = np.nan
    peak = logits.argmax(axis=1)
    below = largest[:, None] - logits
    exponentials = np.exp(-below)
    others = exponentials.copy()
    others[np.arange(len(others)), peak] = 0.0
    total = others.sum(axis=1)
    labels, valid, effective = _effective_target(problem, target, weight)
    return Block(
        where=where,
        logits=logits,
        below=below,
        exponentials=exponentials,
        others=total + 0.0 * largest,
        peak=peak,
        nll=np.log1p(total)[:, None] + below,
        target=effective,
        weight=weight,
        labels=labels,
        valid=valid,
        infinite=largest == np.inf,
    )


def _effective_target(
    problem: Problem, target: torch.Tensor, weight: Array
) -> tuple[npt.NDArray[np.int64] | None, Flags, Array]:
    """Return labels (None for probabilities), which rows count, and the effective target `(rows, C)`."""
    keep, uniform = 1.0 - problem.label_smoothing, problem.label_smoothing / problem.num_classes
    if not problem.has_index_target:
        return None, np.ones(len(target), dtype=bool), weight * (keep * _float64(target) + uniform)
    index = target.to(torch.int64).numpy()
    valid = index != problem.ignore_index
    labels = np.where(valid, index, 0)
    effective = np.where(valid[:, None], uniform * weight, 0.0)
    effective[np.arange(len(labels)), labels] += np.where(valid, keep * weight[labels], 0.0)
    return labels, valid, effective


def _times(left: Array, right: Array, *, masked: bool) -> Array:
    """Multiply; masked kernels take 0 times anything as 0, torch follows IEEE 754."""
    product = left * right
    return np.where((left == 0.0) | (right == 0.0), 0.0, product) if masked else product


def _row_losses(problem: Problem, block: Block, *, masked: bool) -> Array:
    """Return `(rows,)` losses, class weight included; ignored rows 0."""
    nll = np.where(block.infinite[:, None], np.inf, block.nll) if masked else block.nll
    if block.labels is None:
        return _times(block.target, nll, masked=masked).sum(axis=1)
    keep, uniform = 1.0 - problem.label_smoothing, problem.label_smoothing / problem.num_classes
    losses = keep * _times(block.weight[block.labels], nll[np.arange(len(nll)), block.labels], masked=masked)
    if uniform:
        losses = losses + uniform * _times(block.weight, nll, masked=masked).sum(axis=1)
    kept: Array = np.where(block.valid, losses, 0.0)
    return kept


def _gradient(block: Block, share: Array, *, masked: bool, no_divisor: bool) -> Array:
    """Return `(rows, C)` gradient `s (Q p - q)`, written `s ((Q - q) p - q (1 - p))`."""
    mass = block.target.sum(axis=1, keepdims=True)
    inner = _times(mass - block.target, block.probabilities, masked=masked)
    inner = inner - _times(block.target, block.complements, masked=masked)
    gradient = _times(share, inner, masked=masked)
    if masked and no_divisor:
        gradient[~block.valid] = np.nan
    return gradient


def _reduce(problem: Problem, losses: Array, divisor: float, *, masked: bool) -> Array:
    if problem.reduction == "none":
        return losses.reshape(problem.loss_shape)
    if divisor == 0.0 and not masked:
        return np.asarray(np.nan)
    return np.asarray(losses.sum() / np.float64(divisor))


def _ingredients(problem: Problem, block: Block) -> tuple[Array, ...]:
    """Return the fields of `Rows` for a block, in their order."""
    compute = COMPUTE_DTYPE[problem.dtype]
    total = 1.0 + block.others
    relative = block.exponentials / (UNIT_ROUNDOFF[compute] * total[:, None])
    tiny, working = torch.finfo(getattr(torch, compute)).tiny, torch.finfo(getattr(torch, problem.dtype))
    running = np.maximum.accumulate(block.logits, axis=1)
    largest = block.logits.max(axis=1)
    return (
        largest,
        _lowest(problem, block, largest),
        np.log1p(block.others),
        largest + np.log1p(block.others),
        _times(block.probabilities, block.below, masked=True).sum(axis=1),
        (relative >= 1.0).sum(axis=1),
        np.where(relative < 1.0, relative, 0.0).sum(axis=1),
        np.minimum(block.exponentials, tiny).sum(axis=1) / total,
        np.minimum(block.exponentials, working.tiny * working.eps).sum(axis=1) / total,
        1.0 + (running[:, 1:] > running[:, :-1]).sum(axis=1),
        block.target.sum(axis=1),
        (block.target != 0.0).sum(axis=1),
        _times(block.target, block.below, masked=True).sum(axis=1),
        _times(block.target, block.nll, masked=True).sum(axis=1),
        _times(block.target, np.abs(block.logits), masked=True).sum(axis=1),
        _row_losses(problem, block, masked=True),
        block.valid.astype(np.float64),
    )


def _lowest(problem: Problem, block: Block, largest: Array) -> Array:
    if block.labels is None or problem.label_smoothing:
        every: Array = block.logits.min(axis=1)
        return every
    return np.where(block.valid, block.logits[np.arange(len(largest)), block.labels], largest)
