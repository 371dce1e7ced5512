"""The truth about large problems: every row's loss, a secret sample of the gradient's rows, and laws for all of them.

In full, `oracle` takes a fraction of a microsecond an element and ten float64 copies of the logits. Here every row is
streamed once (see `streaming`), so that the loss, its reduction and its bounds leave nothing out; the gradient is
solved in full for some rows, and of every row are known its sum, 0, its sum with secret signs, and its label's entry
(see `laws`). Which rows and signs follows from the run's seed, which no worker is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xentbench import oracle, problems
from xentbench.drawing import Stream
from xentbench.oracle import Sample, Truth, Values
from xentbench.rows import Block, Rows, class_weights, divisor_of
from xentbench.streaming import Streamed, stream

if TYPE_CHECKING:
    import numpy.typing as npt

    from xentbench.inputs import Inputs
    from xentbench.rows import Places
    from xentbench.spec import Problem

    Array = npt.NDArray[np.float64]


def solve(problem: Problem, inputs: Inputs, seed: int) -> Truth:
    """Return the truth, with a sample of the gradient where there are more than `problems.SAMPLED_ELEMENTS` logits.

    Args:
        problem: as for `oracle.solve`.
        inputs: as for `oracle.solve`.
        seed: of the run; sample and signs follow from it.
    """
    if problem.elements <= problems.SAMPLED_ELEMENTS:
        return oracle.solve(problem, inputs)
    places, signs = draw(problem, seed)
    with np.errstate(all="ignore"):
        every, chosen = stream(problem, inputs, signs), oracle.solve_rows(problem, inputs, places)
        for name in Rows.__slots__:
            getattr(every.rows, name)[places] = getattr(chosen.rows, name)
        finite = np.isfinite(every.losses).all()
        upstream = oracle.upstream_of(problem, inputs)
        return Truth(
            loss=oracle.reduced(problem, inputs, Values(every.losses, every.losses if finite else every.masked)),
            gradient=chosen.gradient,
            target_gradient=chosen.target_gradient,
            rows=every.rows,
            divisor=divisor_of(problem, inputs),
            weighted=inputs.weight is not None,
            upstream=upstream,
            open=every.infinite,
            sample=Sample(
                places=places,
                label=_label(class_weights(problem, inputs), every) if problem.has_index_target else None,
                label_gradient=upstream * _label_slope(every),
                signs=signs,
                signed=upstream * every.signed,
            ),
        )


def draw(problem: Problem, seed: int) -> tuple[Places, Array]:
    """Return the sampled rows, ascending, the first and the last among them, and `(C,)` signs: +1 or -1."""
    numbers = Stream(problem.key, seed, "sample")
    order = np.argsort(numbers.uniform(problem.rows), kind="stable")
    places = np.unique(np.concatenate([[0, problem.rows - 1], order[: problems.SAMPLED_ROWS - 2]]))
    return places, np.where(numbers.uniform(problem.num_classes) < 0.5, -1.0, 1.0)  # noqa: PLR2004 - a fair coin


def _label(weight: Array, every: Streamed) -> Block:
    """Return every row's label as a block of one class: what the bounds of its entry of the gradient are made from."""
    below = every.below[:, None]
    return Block(
        where=slice(0, len(every.losses)),
        span=slice(0, len(every.losses)),
        logits=every.rows.largest[:, None] - below,
        below=below,
        exponentials=np.exp(-below),
        others=every.others,
        peak=np.zeros_like(every.labels),
        nll=every.rows.log_sum[:, None] + below,
        target=every.target[:, None],
        weight=weight,
        labels=every.labels,
        valid=every.rows.valid > 0.0,
        infinite=every.infinite,
    )


def _label_slope(every: Streamed) -> Array:
    """Return `(rows,)` the label's entry of `Q p - q`, written `(Q - q) p - q (1 - p)`."""
    total, exponential = 1.0 + every.others, np.exp(-every.below)
    rest = np.where(every.at_peak, every.others, total - exponential)
    return ((every.rows.mass - every.target) * exponential - every.target * rest) / total
