"""The truth in double-double, about 106 bits: what `oracle` evaluates in float64, once more for float64 problems.

Arguments and results are those of `oracle`, with 0 times anything 0; numbers are pairs of `doubledouble`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from xentbench import doubledouble as dd
from xentbench.doubledouble import Pair
from xentbench.rows import Block, blocks, class_weights, divisor_of, float64, labels_of, rows_at

if TYPE_CHECKING:
    from xentbench.inputs import Inputs
    from xentbench.rows import Places
    from xentbench.spec import Problem

PAIRED_ELEMENTS: Final = 1 << 15
"""Logits held in double-double at a time: some dozens of temporaries, which should stay in the cache."""


def solve_paired(problem: Problem, inputs: Inputs, places: Places | None) -> tuple[Pair, Pair, Pair | None]:
    """Return losses, gradient and target gradient as `oracle` does with 0 times anything 0, in double-double."""
    count = problem.rows if places is None else len(places)
    upstream, shape = _upstream(problem, inputs), (count, problem.num_classes)
    losses, gradient = dd.zeros(shape[:1]), dd.zeros(shape)
    target_gradient = dd.zeros(shape) if problem.target_grad and not problem.has_index_target else None
    slope = dd.multiply(_kept(problem), dd.exactly(class_weights(problem, inputs)))
    for block in blocks(problem, inputs, PAIRED_ELEMENTS, places):
        span, scale = block.span, upstream[block.where][:, None]
        target = _target(problem, inputs, block)
        nll, probabilities, complements = _row(block)
        losses[span] = dd.total(_times(target, nll))
        rest = dd.subtract(dd.total(target)[:, None], target)
        inner = dd.subtract(_times(rest, probabilities), _times(target, complements))
        gradient[span] = _times(scale, inner)
        if target_gradient is not None:
            target_gradient[span] = _times(dd.multiply(scale, slope), nll)
    return losses, gradient, target_gradient


def _row(block: Block) -> tuple[Pair, Pair, Pair]:
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


def _target(problem: Problem, inputs: Inputs, block: Block) -> Pair:
    """Return the effective target `(rows, C)`."""
    keep = _kept(problem)
    uniform = dd.divide(dd.exactly(problem.label_smoothing), dd.exactly(problem.num_classes))
    weight = dd.exactly(block.weight)
    if block.labels is None:
        given = dd.exactly(float64(rows_at(inputs.target, problem, block.where)))
        return dd.multiply(weight, dd.add(dd.multiply(keep, given), uniform))
    spread, nothing = dd.multiply(weight, uniform), dd.exactly(0.0)
    hit = (np.arange(problem.num_classes) == block.labels[:, None]) & block.valid[:, None]
    target = dd.where(hit, dd.add(spread, dd.multiply(weight, keep)), spread)
    return dd.where(block.valid[:, None], target, nothing)


def _kept(problem: Problem) -> Pair:
    """Return the share of the target that label smoothing leaves."""
    return dd.subtract(dd.exactly(1.0), dd.exactly(problem.label_smoothing))


def _divisor(problem: Problem, inputs: Inputs) -> Pair:
    if problem.reduction != "mean" or not problem.has_index_target or inputs.weight is None:
        return dd.exactly(divisor_of(problem, inputs))
    labels = labels_of(inputs)
    return dd.total(dd.exactly(class_weights(problem, inputs))[labels[labels != problem.ignore_index]])


def _upstream(problem: Problem, inputs: Inputs) -> Pair:
    """Return what `_upstream` does."""
    share = dd.divide(dd.exactly(float64(inputs.upstream).reshape(-1)), _divisor(problem, inputs))
    share = Pair(*(np.broadcast_to(part, (problem.rows,)) for part in (share.high, share.low)))
    if not problem.has_index_target:
        return share
    ignored = labels_of(inputs) == problem.ignore_index
    return dd.where(ignored, dd.exactly(0.0), share)


def paired_loss(problem: Problem, inputs: Inputs, losses: Pair) -> Pair:
    """Return the loss of all rows' losses."""
    if problem.reduction == "none":
        return losses.reshape(*problem.loss_shape)
    return dd.divide(dd.total(losses), _divisor(problem, inputs))


def _times(left: Pair, right: Pair) -> Pair:
    """Multiply; 0 times anything is 0."""
    return dd.where((left.high == 0.0) | (right.high == 0.0), dd.exactly(0.0), dd.multiply(left, right))
