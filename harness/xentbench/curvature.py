"""Second derivatives: the truth about a Hessian-vector product, and how far rounding may take it.

A row's loss has the gradient `Q p - q` with respect to its logits, and only `p` depends on them, so that its Hessian
times `v` is `Q p (v - sum p v)`; class weights, smoothing and kind of target enter through `Q`, the effective target's
mass, alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from xentbench import bounds
from xentbench.inputs import direction
from xentbench.rows import COMPUTE_DTYPE, blocks, classes_last, float64
from xentbench.spec import UNIT_ROUNDOFF

if TYPE_CHECKING:
    import numpy.typing as npt

    from xentbench.inputs import Inputs
    from xentbench.oracle import Truth
    from xentbench.rows import Block
    from xentbench.spec import Problem

    Array = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

SLACK: Final = 16.0
"""Autograd differentiates whatever a loss is made of; its second derivative may take several times the roundings."""


def product(problem: Problem, inputs: Inputs, truth: Truth) -> tuple[Array, Array]:
    """Return the Hessian of the upstream-weighted loss times `inputs.direction`, and the error allowed; `(rows, C)`.

    NaN where nothing is asked: where the product is not finite, or a logit lies beyond half of exp's range, since
    differentiating an exponential that is not shifted squares it.
    """
    vector = float64(classes_last(direction(problem), problem))
    expected, allowed = np.empty_like(vector), np.empty_like(vector)
    compute = COMPUTE_DTYPE[problem.dtype]
    shared = bounds.log_sum_error(truth.rows, bounds.worst_case(compute), problem.num_classes)
    shared = shared + bounds.stored_logsumexp_error(truth.rows, bounds.worst_case(compute))
    with np.errstate(all="ignore"):
        for block in blocks(problem, inputs):
            where, p, v = block.where, block.probabilities, vector[block.where]
            scale = truth.upstream[where, None] * truth.rows.mass[where, None]
            mean, size = (p * v).sum(axis=1, keepdims=True), (p * np.abs(v)).sum(axis=1, keepdims=True)
            roundings = block.below + block.nll + 8.0 + problem.num_classes
            relative = p * np.expm1(shared[where, None] + UNIT_ROUNDOFF[compute] * roundings)
            usable = _moderate(problem, block)[:, None] & np.isfinite(scale)
            expected[where] = np.where(usable, scale * p * (v - mean), np.nan)
            off = relative * (np.abs(v) + size) + relative.sum(axis=1, keepdims=True) * p * np.abs(v)
            off = off + p * (relative * np.abs(v)).sum(axis=1, keepdims=True)
            # A careful loss may form p (1 - p) with the absolute error u, as a sigmoid's derivative does.
            allowed[where] = SLACK * np.abs(scale) * (off + UNIT_ROUNDOFF[compute] * (np.abs(v) + size))
    return expected, allowed + bounds.Format.of(compute).tiny


def slope(problem: Problem, inputs: Inputs, truth: Truth) -> tuple[Array, Array]:
    """Return the derivative of `sum(gradient * direction)` by the upstream gradient, and the error allowed.

    It is the loss's own derivative along `direction`, `sum (Q p - q) v`: `(rows,)` for reduction none, else `(1,)`.
    NaN where nothing is asked, as in `product`.
    """
    vector = float64(classes_last(direction(problem), problem))
    gradient = classes_last(torch.from_numpy(truth.gradient.torch), problem).numpy()
    model = bounds.worst_case(COMPUTE_DTYPE[problem.dtype])
    expected, allowed = np.empty(problem.rows), np.empty(problem.rows)
    with np.errstate(all="ignore"):
        for block in blocks(problem, inputs):
            where, v = block.where, vector[block.where]
            error = bounds.gradient_error(problem, truth, block, model, stored=True)
            along = np.where(_moderate(problem, block), (gradient[where] * v).sum(axis=1), np.nan)
            adding = model.roundoff * problem.elements * np.abs(gradient[where])
            expected[where], allowed[where] = along, ((error + adding) * np.abs(v)).sum(axis=1)
        upstream = float64(inputs.upstream).reshape(-1)
        if problem.reduction != "none":
            expected, allowed = expected.sum(keepdims=True), allowed.sum(keepdims=True)
        expected = expected if truth.divisor else np.full_like(expected, np.nan)
        return expected / upstream, SLACK * allowed / np.abs(upstream)


def _moderate(problem: Problem, block: Block) -> Flags:
    """Return `(rows,)`: where no logit lies beyond half of exp's range."""
    limit = np.log(bounds.Format.of(problem.dtype).largest) / 2.0
    moderate: Flags = (np.abs(block.logits) <= limit).all(axis=1)
    return moderate
