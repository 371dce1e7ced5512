"""The rows of a problem in float64, classes last, in blocks: log-probabilities and whatever else follows from a row.

With `m = max x`, `z = x - m`, `s` the sum of `exp z` over all classes but the maximum's, a row's negative
log-probability is `log1p(s) + (m - x)`: two terms of one sign, so that nothing cancels, and `1 - p` is formed from the
other classes' exponentials. NumPy evaluates it, so that not even `exp` is shared with what is judged.
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
    Places = npt.NDArray[np.int64]

BLOCK_ELEMENTS: Final = 1 << 20
"""Logits held in float64 at a time: about a dozen temporaries of 8 MiB, however many rows there are."""
COMPUTE_DTYPE: Final = {"float64": "float64", "float32": "float32", "bfloat16": "float32", "float16": "float32"}
"""Dtype in which a careful implementation computes: half precision is for storage."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows in float64, classes last, with what follows from them; arrays are `(rows, C)`, or `(rows,)` where said.

    Attributes:
        where: which rows of the problem.
        span: which of the rows that were asked for.
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
        infinite: `(rows,)` whether the row's maximum is +inf or -inf: masked kernels find an infinite loss there.
    """

    where: slice | Places
    span: slice
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


def labels_of(inputs: Inputs) -> npt.NDArray[np.int64]:
    """Return class indices of any dtype as int64 `(rows,)`."""
    labels: npt.NDArray[np.int64] = inputs.target.detach().cpu().reshape(-1).to(torch.int64).numpy()
    return labels


def divisor_of(problem: Problem, inputs: Inputs) -> float:
    """Return what the mean divides by: `Truth.divisor`."""
    if problem.reduction != "mean":
        return 1.0
    if not problem.has_index_target:
        return float(problem.rows)
    labels = labels_of(inputs)
    labels = labels[labels != problem.ignore_index]
    return float(len(labels) if inputs.weight is None else float64(inputs.weight)[labels].sum())


def classes_last(tensor: torch.Tensor, problem: Problem) -> torch.Tensor:
    """Return a tensor shaped as the logits as `(rows, C)`: one row for each target, in the target's order."""
    rows = tensor.detach() if problem.batch_size is None else tensor.detach().movedim(1, -1)
    return rows.reshape(problem.rows, problem.num_classes)


def rows_at(tensor: torch.Tensor, problem: Problem, where: slice | Places) -> torch.Tensor:
    """Return some rows `(rows, C)` of a tensor shaped as the logits, in its own dtype; no other row is copied."""
    values = tensor.detach()
    if not problem.dims:
        return values.reshape(problem.rows, problem.num_classes)[_index(where)]
    places = np.arange(*where.indices(problem.rows)) if isinstance(where, slice) else where
    index = np.unravel_index(places, problem.row_shape)
    return values.movedim(1, -1)[tuple(_index(part) for part in index)]


def blocks(
    problem: Problem, inputs: Inputs, elements: int | None = None, places: Places | None = None
) -> Iterator[Block]:
    """Yield rows in blocks of at most `elements`, or `BLOCK_ELEMENTS`, logits (at least one row).

    Args:
        problem: whose rows.
        inputs: its tensors.
        elements: of a block.
        places: which rows, in which order; None for all.
    """
    weight = class_weights(problem, inputs)
    for span in spans(problem, elements or BLOCK_ELEMENTS, None if places is None else len(places)):
        where = span if places is None else places[span]
        logits = float64(rows_at(inputs.logits, problem, where))
        yield _block(problem, (where, span), logits, target_at(problem, inputs, where), weight)


def spans(problem: Problem, elements: int, count: int | None = None) -> Iterator[slice]:
    """Yield spans that together cover so many rows, by default all; at most `elements` logits, at least one row."""
    rows, size = problem.rows if count is None else count, max(1, elements // problem.num_classes)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def target_at(problem: Problem, inputs: Inputs, where: slice | Places) -> torch.Tensor:
    """Return the target of some rows, on the CPU: `(rows,)` class indices, or `(rows, C)` probabilities."""
    if problem.has_index_target:
        return inputs.target.detach().reshape(-1)[_index(where)].cpu()
    return rows_at(inputs.target, problem, where).cpu()


def class_weights(problem: Problem, inputs: Inputs) -> Array:
    """Return class weights `(C,)`, ones where there are none."""
    return np.ones(problem.num_classes) if inputs.weight is None else float64(inputs.weight)


def _index(where: slice | Places) -> slice | torch.Tensor:
    return where if isinstance(where, slice) else torch.from_numpy(np.ascontiguousarray(where))


def float64(tensor: torch.Tensor) -> Array:
    """Copy to float64: exact for every dtype of logits."""
    array: Array = tensor.detach().to("cpu", torch.float64, copy=True).numpy()
    return array


def times(left: Array, right: Array, *, masked: bool) -> Array:
    """Multiply; masked kernels take 0 times anything as 0, torch follows IEEE 754."""
    product = left * right
    return np.where((left == 0.0) | (right == 0.0), 0.0, product) if masked else product


def row_losses(problem: Problem, block: Block, *, masked: bool) -> Array:
    """Return `(rows,)` losses, class weight included; ignored rows 0."""
    nll = np.where(block.infinite[:, None], np.inf, block.nll) if masked else block.nll
    if block.labels is None:
        losses: Array = times(block.target, nll, masked=masked).sum(axis=1)
        return losses
    keep, uniform = 1.0 - problem.label_smoothing, problem.label_smoothing / problem.num_classes
    losses = keep * times(block.weight[block.labels], nll[np.arange(len(nll)), block.labels], masked=masked)
    if uniform:
        losses = losses + uniform * times(block.weight, nll, masked=masked).sum(axis=1)
    return np.where(block.valid, losses, 0.0)


def ingredients(problem: Problem, block: Block) -> tuple[Array, ...]:
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
        times(block.probabilities, block.below, masked=True).sum(axis=1),
        (relative >= 1.0).sum(axis=1),
        np.where(relative < 1.0, relative, 0.0).sum(axis=1),
        np.minimum(block.exponentials, tiny).sum(axis=1) / total,
        np.minimum(block.exponentials, working.tiny * working.eps).sum(axis=1) / total,
        1.0 + (running[:, 1:] > running[:, :-1]).sum(axis=1),
        block.target.sum(axis=1),
        (block.target != 0.0).sum(axis=1),
        times(block.target, block.below, masked=True).sum(axis=1),
        times(block.target, block.nll, masked=True).sum(axis=1),
        times(block.target, np.abs(block.logits), masked=True).sum(axis=1),
        row_losses(problem, block, masked=True),
        block.valid.astype(np.float64),
    )


def _lowest(problem: Problem, block: Block, largest: Array) -> Array:
    if block.labels is None or problem.label_smoothing:
        every: Array = block.logits.min(axis=1)
        return every
    return np.where(block.valid, block.logits[np.arange(len(largest)), block.labels], largest)


def _block(
    problem: Problem, place: tuple[slice | Places, slice], logits: Array, target: torch.Tensor, weight: Array
) -> Block:
    largest = logits.max(axis=1)
    logits[~np.isfinite(largest)] = np.nan
    peak = logits.argmax(axis=1)
    below = largest[:, None] - logits
    exponentials = np.exp(-below)
    others = exponentials.copy()
    others[np.arange(len(others)), peak] = 0.0
    total = others.sum(axis=1)
    labels, valid, effective = effective_target(problem, target, weight)
    return Block(
        where=place[0],
        span=place[1],
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
        infinite=np.isinf(largest),
    )


def effective_target(
    problem: Problem, target: torch.Tensor, weight: Array
) -> tuple[npt.NDArray[np.int64] | None, Flags, Array]:
    """Return labels (None for probabilities), which rows count, and the effective target `(rows, C)`."""
    keep, uniform = 1.0 - problem.label_smoothing, problem.label_smoothing / problem.num_classes
    if not problem.has_index_target:
        return None, np.ones(len(target), dtype=bool), weight * (keep * float64(target) + uniform)
    index = target.to(torch.int64).numpy()
    valid = index != problem.ignore_index
    labels = np.where(valid, index, 0)
    effective = np.where(valid[:, None], uniform * weight, 0.0)
    effective[np.arange(len(labels)), labels] += np.where(valid, keep * weight[labels], 0.0)
    return labels, valid, effective
