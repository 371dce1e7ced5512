"""Every row of a large problem in one lean pass: its loss, the ingredients of its bounds, and what its gradient obeys.

The formulas are those of `rows`, in float64 and a fraction of the time (`benchmarks/large_problems.py`), since no array
of the logits' shape outlives a block. Ingredients that would cost another pass are replaced by upper bounds: the
entropy of a softmax is at most `log C`, so that `sum p |z| <= log C - log S`; `|x| <= |max x| + |z|`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from xentbench.rows import COMPUTE_DTYPE, Rows, class_weights, float64, rows_at, spans, target_at, times
from xentbench.spec import UNIT_ROUNDOFF

if TYPE_CHECKING:
    import numpy.typing as npt

    from xentbench.inputs import Inputs
    from xentbench.spec import Problem

    Array = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]
    Labels = npt.NDArray[np.int64]

STREAMED_ELEMENTS: Final = 1 << 17
"""Logits in float64 at a time: two arrays of 1 MiB, which stay in the cache."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """What one pass brings of every row; arrays of shape `(rows,)`, `e`, `S`, `p`, `q` and `Q` as in `rows.Rows`.

    Attributes:
        losses: class weight included, by the conventions of `F.cross_entropy`; ignored rows 0.
        masked: the same by the conventions of masked kernels.
        rows: ingredients of the bounds, none smaller than the exact one.
        others: `S - 1`, the exponentials without the maximum's.
        labels: class indices, 0 where ignored or where the target is probabilities.
        below: `max x - x` of the label.
        at_peak: whether the label is the class of the first maximum.
        target: `q` of the label.
        signed: `sum v (Q p - q)` for the signs `v` that were given.
        infinite: whether the maximum is +inf or -inf.
    """

    losses: Array
    masked: Array
    rows: Rows
    others: Array
    labels: Labels
    below: Array
    at_peak: Flags
    target: Array
    signed: Array
    infinite: Flags


@dataclass(frozen=True, slots=True)
class _Softmax:
    """What follows from a block of logits alone; arrays `(rows,)`, NaN in rows without a finite maximum."""

    largest: Array
    lowest: Array
    peak: Labels
    others: Array
    addends: Array
    lost_addends: Array
    records: Array
    signed: Array
    infinite: Flags

    @property
    def log_sum(self) -> Array:
        return np.log1p(self.others)


@dataclass(frozen=True, slots=True)
class _Target:
    """What follows from a block's target; arrays `(rows,)`, sums over classes by the two conventions of 0 times inf."""

    labels: Labels
    valid: Flags
    label_weight: Array
    label_below: Array
    label_logit: Array
    mass: Array
    terms: Array
    spread: Array
    masked_spread: Array
    signed: Array


def stream(problem: Problem, inputs: Inputs, signs: Array) -> Streamed:
    """Return what one pass over all rows brings.

    Args:
        problem: sizes, ignore_index, label_smoothing and kind of target.
        inputs: tensors in any dtype and layout.
        signs: `(C,)`, of size 1, that the implementations do not know.
    """
    weight = class_weights(problem, inputs)
    parts = [
        _part(problem, float64(rows_at(inputs.logits, problem, span)), target_at(problem, inputs, span), weight, signs)
        for span in spans(problem, STREAMED_ELEMENTS)
    ]
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in Streamed.__slots__ if name != "rows"
    }
    rows = Rows(*(np.concatenate([getattr(part.rows, name) for part in parts]) for name in Rows.__slots__))
    return Streamed(rows=rows, **joined)


def _part(problem: Problem, logits: Array, given: torch.Tensor, weight: Array, signs: Array) -> Streamed:
    """Return the same of a block; the logits are overwritten."""
    logits = np.ascontiguousarray(logits)
    every, peak = np.arange(len(logits)), logits.argmax(axis=1)
    top = logits[every, peak]
    largest = np.where(np.isfinite(top), top, np.nan)
    logits[np.isnan(largest)] = np.nan
    bare = problem.has_index_target and not problem.label_smoothing
    lowest, records = largest if bare else logits.min(axis=1), _records(logits)
    labelled = _labels(problem, given) if problem.has_index_target else (every * 0, every >= 0)
    label_logit = logits[every, labelled[0]]
    np.subtract(logits, largest[:, None], out=logits)
    target = _target(problem, (*labelled, label_logit), logits, given, weight, signs)
    others, signed, addends, lost = _exponentials(problem, logits, peak, signs)
    others = others + 0.0 * largest
    softmax = _Softmax(largest, lowest, peak, others, addends, lost, records, signed, np.isinf(top))
    return _together(problem, softmax, target)


def _records(logits: Array) -> Array:
    running = np.maximum.accumulate(logits, axis=1)
    records: Array = 1.0 + np.count_nonzero(running[:, 1:] > running[:, :-1], axis=1)
    return records


def _exponentials(problem: Problem, shifted: Array, peak: Labels, signs: Array) -> tuple[Array, Array, Array, Array]:
    """Return `S - 1`, `sum v p`, and addends and lost addends of `rows.Rows`; `x - max x` is overwritten."""
    every = np.arange(len(shifted))
    np.exp(shifted, out=shifted)
    shifted[every, peak] = 0.0
    others = shifted.sum(axis=1)
    signed = (shifted @ signs + signs[peak]) / (1.0 + others)
    swallowed = UNIT_ROUNDOFF[COMPUTE_DTYPE[problem.dtype]] * (1.0 + others)
    addends = np.count_nonzero(shifted >= swallowed[:, None], axis=1)
    np.minimum(shifted, swallowed[:, None], out=shifted)
    lost = np.maximum(0.0, shifted.sum(axis=1) / swallowed - addends)
    return others, signed, 1.0 + addends, lost


def _labels(problem: Problem, given: torch.Tensor) -> tuple[Labels, Flags]:
    """Return class indices, 0 where ignored, and which rows count."""
    index = given.to(torch.int64).numpy()
    valid = index != problem.ignore_index
    return np.where(valid, index, 0), valid


def _target(
    problem: Problem,
    labelled: tuple[Labels, Flags, Array],
    shifted: Array,
    given: torch.Tensor,
    weight: Array,
    signs: Array,
) -> _Target:
    labels, valid, logit = labelled
    keep, uniform = 1.0 - problem.label_smoothing, problem.label_smoothing / problem.num_classes
    below = -shifted[np.arange(len(labels)), labels]
    if not problem.has_index_target:
        target = weight * (keep * float64(given) + uniform)
        spread = -target * shifted
        masked = spread if np.isfinite(spread).all() else times(target, -shifted, masked=True)
        terms = np.count_nonzero(target, axis=1).astype(np.float64)
        sums = (target.sum(axis=1), terms, spread.sum(axis=1), masked.sum(axis=1), target @ signs)
        return _Target(labels, valid, weight[labels], below, logit, *sums)
    own, used = weight[labels], weight != 0.0
    mass, signed = keep * own + uniform * weight.sum(), keep * own * signs[labels] + uniform * (weight @ signs)
    spread, masked = keep * own * below, keep * times(own, below, masked=True)
    terms = (keep * own != 0.0).astype(np.float64)
    if uniform:
        terms = np.full(len(labels), float(np.count_nonzero(used)))
        beside = uniform * (shifted[:, used] @ weight[used] if not used.all() else shifted @ weight)
        spread, masked = spread - beside, masked - beside
        spread[np.isinf(shifted[:, ~used]).any(axis=1)] = np.nan
    counted = (np.where(valid, part, 0.0) for part in (mass, terms, spread, masked, signed))
    return _Target(labels, valid, own, below, logit, *counted)


def _together(problem: Problem, softmax: _Softmax, target: _Target) -> Streamed:
    mass, log_sum = target.mass, softmax.log_sum
    uniform = problem.label_smoothing / problem.num_classes
    own = np.where(target.valid, ((1.0 - problem.label_smoothing) + uniform) * target.label_weight, 0.0)
    nothing = ~target.valid | (target.terms == 0.0)
    masked = np.where(nothing, 0.0, mass * log_sum + target.masked_spread)
    losses = np.where(target.valid, mass * log_sum + target.spread, 0.0)
    return Streamed(
        losses=losses,
        masked=np.where(softmax.infinite & ~nothing, np.inf, masked),
        rows=_rows(problem, softmax, target, np.where(softmax.infinite & ~nothing, np.inf, masked)),
        others=softmax.others,
        labels=target.labels,
        below=target.label_below,
        at_peak=target.labels == softmax.peak,
        target=own,
        signed=mass * softmax.signed - target.signed,
        infinite=softmax.infinite,
    )


def _rows(problem: Problem, softmax: _Softmax, target: _Target, losses: Array) -> Rows:
    """Return the ingredients of the bounds, or what is no smaller."""
    log_sum, total, mass = softmax.log_sum, 1.0 + softmax.others, target.mass
    compute, working = (torch.finfo(getattr(torch, name)) for name in (COMPUTE_DTYPE[problem.dtype], problem.dtype))
    bare = problem.has_index_target and not problem.label_smoothing
    lowest = np.where(target.valid, target.label_logit, softmax.largest) if bare else softmax.lowest
    size = np.abs(target.label_logit) if bare else np.abs(softmax.largest)
    spread = np.where(target.terms == 0.0, 0.0, target.masked_spread)

    def underflow(limit: float) -> Array:
        return (limit + np.minimum((problem.num_classes - 1) * limit, softmax.others)) / total

    return Rows(
        largest=softmax.largest,
        lowest=lowest,
        log_sum=log_sum,
        logsumexp=softmax.largest + log_sum,
        spread=np.maximum(0.0, np.log(problem.num_classes) - log_sum),
        addends=softmax.addends,
        lost_addends=softmax.lost_addends,
        underflow=underflow(compute.tiny),
        working_underflow=underflow(working.tiny * working.eps),
        records=softmax.records,
        mass=mass,
        terms=target.terms,
        target_spread=spread,
        target_nll=np.where(target.terms == 0.0, 0.0, mass * log_sum + spread),
        target_logits=times(mass, size, masked=True) + (0.0 if bare else spread),
        loss=losses,
        valid=target.valid.astype(np.float64),
    )
