"""What every timed call had to answer: the parent replays the refreshes of a burst and knows each loss and gradient.

Between two calls a refresh moves one logit of every row and relabels an eighth of the rows, from a seed that the worker
is sent once it has answered for the burst before. The sums of a row change by one term each, so that a right loss costs
the parent O(rows) a call and no oracle run.

An answer is held against its own right one, not against a bound of the worst case: what honest code errs by hardly
changes with one logit in a row, so the median error of a burst is its own, and what a single answer is off by beyond
that has to be rounding. (Whether that median is small enough, the judge has said before: see `parity`.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from xentbench import inputs
from xentbench.spec import UNIT_ROUNDOFF, Problem
from xentbench.worker.storage import REFRESHED_TARGETS, Cells, Drawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from xentbench.inputs import Recorded

    Array = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

ROUNDINGS: Final = 8.0
"""Roundings of the problem's dtype that a right answer may be off by, of a number as large as the log-sum-exp."""
SUMMING: Final = 0.25
"""Further roundings of float32 for each class: how much of a running sum is lost depends on what comes when."""
ADDING: Final = 2.0
"""Roundings of float32 for the square root of the rows that are added up: one after the other, a sum strays by a third
of one (each step by its own rounding, independently)."""
_ANEW: Final = 2.0**-10
"""Of a row's sum no less may be left after its largest term has gone, or too few digits of the rest are known."""
_AT_ONCE: Final = 1 << 20
"""Logits that are added up in one step."""
_FINEST: Final = 2.0**-44
"""Unit roundoff that is granted at least: the parent's own sums are in float64."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What refreshes made of a problem, for several calls.

    Attributes:
        classes: `(calls, rows)` class whose logit was moved.
        logits: `(calls, rows)` its value, as stored.
        labels: `(calls, rows)` all labels; `(calls, 0)` where the target is probabilities, which are not refreshed.
        logsumexp: `(calls, rows)` of the moved logits.
        losses: `(calls, numel)` the right losses, as the problem reduces them; infinite where the dtype ends.
        allowed: `(calls, numel)` how far rounding may take an answer from its right loss and the burst's median error.
    """

    classes: Ints
    logits: Array
    labels: Ints
    logsumexp: Array
    losses: Array
    allowed: Array


class Challenge:
    """A problem as the parent knows it while it is timed: its numbers, and the sums of each row.

    Args:
        problem: what is timed.
        seed: that its tensors follow from.
        recorded: the workload, where the problem names one.
    """

    def __init__(self, problem: Problem, seed: int, recorded: Recorded | None = None) -> None:
        self.problem = problem
        self.given = given = inputs.make(problem, seed, recorded)
        self.nbytes = given.logits.nbytes + given.target.nbytes
        self._cells = Cells(given.logits.detach().cpu())
        self._places = np.unravel_index(np.arange(problem.rows), problem.row_shape or (1,))
        self._logits = _by_rows(given.logits, problem)
        self._labels = np.zeros(0, dtype=np.int64)
        self._shares: Array | None = None
        if problem.has_index_target:
            self._labels = given.target.detach().cpu().reshape(-1).numpy().astype(np.int64)
        else:
            self._shares = _float64(_by_rows(given.target, problem))
        weight = given.weight
        self._weight = np.ones(problem.num_classes) if weight is None else _float64(weight)
        self._upstream = _float64(given.upstream).reshape(-1)
        unit = max(UNIT_ROUNDOFF[problem.dtype], _FINEST)
        self._unit, self._end = unit, float(torch.finfo(given.logits.dtype).max)
        adds_up = min(UNIT_ROUNDOFF["float32"], unit)
        self._relative = SUMMING * problem.num_classes * adds_up
        # Relative errors of a sum over the rows, and of the divisor where that is one too.
        self._added = ADDING * math.sqrt(problem.rows) * adds_up
        self._through_maximum = ROUNDINGS * unit + ADDING * math.sqrt(problem.num_classes) * adds_up
        is_weighted_mean = problem.reduction == "mean" and problem.has_index_target and weight is not None
        self._divided = self._added if is_weighted_mean else 0.0
        self._at_once = max(1, _AT_ONCE // max(1, problem.num_classes))
        with np.errstate(all="ignore"):
            self._sum_rows()

    def changed(self, drawn: Sequence[Drawn]) -> Changed:
        """Return what these refreshes, one a call, each make of the original problem."""
        known = None if self._shares is not None else self._labels
        classes, steps = map(
            np.stack, zip(*(one.moves(known, self.problem.ignore_index) for one in drawn), strict=True)
        )
        with np.errstate(all="ignore"):
            old, new = self._move(steps, classes)
            labels = self._relabel(np.stack([one.classes for one in drawn]), np.stack([one.donors for one in drawn]))
            logsumexp = self._logsumexp(classes, old, new)
            losses = self._row_losses(classes, old, new, labels, logsumexp)
            sizes = self._unit * ROUNDINGS * (1.0 + np.abs(losses) + np.abs(logsumexp)) + self._relative
            scale = self._scales(labels)
            if self.problem.reduction == "none":
                reduced, allowed = losses, sizes * np.maximum(1.0, scale)
            else:
                divisor = self._divisors(labels)
                reduced = losses.sum(axis=1, keepdims=True) / divisor
                sizes = sizes * scale + (self._added + self._divided) * np.abs(losses)
                allowed = sizes.sum(axis=1, keepdims=True) / divisor + self._unit * ROUNDINGS * np.abs(reduced)
            # Beyond the format's end infinity is right, and near it either is.
            reduced = np.where(np.abs(reduced) + allowed > self._end, np.copysign(np.inf, reduced), reduced)
        return Changed(classes, new, labels, logsumexp, reduced, allowed)

    def original(self) -> Array:
        """Return the right losses before any refresh, `(numel,)`."""
        rows = self.problem.rows
        zeros = np.zeros(rows, dtype=np.int64)
        still = Drawn(np.zeros(rows), zeros, np.arange(rows), zeros > 0, 0.0, -1)
        losses: Array = self.changed([still]).losses[0]
        return losses

    def gradient(self, changed: Changed, call: int, rows: Ints) -> tuple[Array, Array]:
        """Return rows of the right gradient after one of the calls, and how far each entry may be off: `(rows, C)`."""
        problem, eps, weight = self.problem, self.problem.label_smoothing, self._weight
        logits = _float64(self._logits[rows])
        at = np.arange(len(rows))
        logits[at, changed.classes[call, rows]] = changed.logits[call, rows]
        logsumexp = changed.logsumexp[call, rows, None]
        with np.errstate(all="ignore"):
            probabilities = np.exp(logits - logsumexp)
            if self._shares is None:
                labels = changed.labels[call, rows]
                is_valid = labels != problem.ignore_index
                target = np.where(is_valid[:, None], eps / problem.num_classes * weight[None, :], 0.0)
                inside = np.where(is_valid, labels, 0)
                target[at, inside] += np.where(is_valid, (1.0 - eps) * weight[inside], 0.0)
            else:
                target = weight * ((1.0 - eps) * self._shares[rows] + eps / problem.num_classes)
            softmax = target.sum(axis=1, keepdims=True) * probabilities
            upstream = self._upstream[rows] if problem.reduction == "none" else self._upstream[0]
            factor = np.broadcast_to(upstream / self._divisors(changed.labels)[call, 0], (len(rows),))[:, None]
            spread = 1.0 + np.abs(logsumexp) + np.abs(logits)
            allowed = np.abs(softmax) * (self._unit * ROUNDINGS * spread + self._relative)
            # Where autograd goes through the maximum too, its entry is less the sum of the row's others, near 0 but
            # for roundings of numbers that add up to 1: no share of the entry, which may be small.
            allowed[at, logits.argmax(axis=1)] += np.abs(target).sum(axis=1) * self._through_maximum
            allowed = np.abs(factor) * (allowed + self._unit * ROUNDINGS * np.abs(target))
            right = factor * (softmax - target)
            return right, allowed + self._divided * np.abs(right) + _smallest(problem)

    def _sum_rows(self) -> None:
        """Add up each row once: maximum, sum of exponentials, and the sums that smoothed or soft targets need."""
        rows = self.problem.rows
        self._largest, self._sum, self._plain, self._soft = (np.zeros(rows) for _ in range(4))
        for start in range(0, rows, self._at_once):
            part = slice(start, start + self._at_once)
            logits = _float64(self._logits[part])
            self._largest[part] = logits.max(axis=1)
            self._sum[part] = np.exp(logits - self._largest[part, None]).sum(axis=1)
            if self.problem.label_smoothing:
                self._plain[part] = logits @ self._weight
            if self._shares is not None:
                self._soft[part] = ((self._shares[part] * self._weight) * logits).sum(axis=1)

    def _move(self, steps: Array, classes: Ints) -> tuple[Array, Array]:
        first, *rest = self._places
        index = (first[None, :], classes, *(part[None, :] for part in rest))
        stored = self._cells.read((classes,) if self.problem.batch_size is None else index)
        return self._cells.decoded(stored), self._cells.decoded(self._cells.moved(stored, steps))

    def _relabel(self, classes: Ints, donors: Ints) -> Ints:
        """Return every row's label: each eighth row, from one that the first class names, has another row's."""
        if self._shares is not None:
            return np.zeros((len(classes), 0), dtype=np.int64)
        old, new, ignored = self._labels[None, :], self._labels[donors], self.problem.ignore_index
        is_new = np.arange(self.problem.rows)[None, :] % REFRESHED_TARGETS == classes[:, :1] % REFRESHED_TARGETS
        return np.where(is_new & (old != ignored) & (new != ignored), new, old)

    def _logsumexp(self, classes: Ints, old: Array, new: Array) -> Array:
        gone = np.exp(old - self._largest)
        left = self._sum[None, :] - gone
        total = left + np.exp(new - self._largest)
        found: Array = self._largest + np.log(total)
        lost = np.argwhere((left < _ANEW * gone) | ~np.isfinite(total))
        for start in range(0, len(lost), self._at_once):
            call, row = lost[start : start + self._at_once].T
            logits = _float64(self._logits[row])
            logits[np.arange(len(row)), classes[call, row]] = new[call, row]
            largest = logits.max(axis=1)
            found[call, row] = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
        return found

    def _row_losses(self, classes: Ints, old: Array, new: Array, labels: Ints, logsumexp: Array) -> Array:
        problem, eps, weight = self.problem, self.problem.label_smoothing, self._weight
        change, losses = weight[classes] * (new - old), np.zeros_like(logsumexp)
        if eps:
            losses = eps / problem.num_classes * (weight.sum() * logsumexp - (self._plain + change))
        if self._shares is not None:
            share = np.take_along_axis(self._shares, classes.T, axis=1).T
            hard = (self._shares @ weight) * logsumexp - (self._soft + share * change)
            return losses + (1.0 - eps) * hard
        is_valid = labels != problem.ignore_index
        inside = np.where(is_valid, labels, 0)
        # A row whose own label's logit was moved has that one, any other the original.
        original = self._at_labels(inside)
        at_label = np.where(inside == classes, new, original)
        losses = losses + (1.0 - eps) * weight[inside] * (logsumexp - at_label)
        return np.where(is_valid, losses, 0.0)

    def _at_labels(self, labels: Ints) -> Array:
        first, *rest = self._places
        index = (first[None, :], labels, *(part[None, :] for part in rest))
        return self._cells.decoded(self._cells.read((labels,) if self.problem.batch_size is None else index))

    def _scales(self, labels: Ints) -> Array:
        """Return what a row's error is multiplied by before it is reduced: the size of its effective target."""
        eps, weight = self.problem.label_smoothing, self._weight
        if self._shares is not None:
            return np.broadcast_to(self._shares @ weight + eps * weight.mean(), (1, self.problem.rows))
        is_valid = labels != self.problem.ignore_index
        own = weight[np.where(is_valid, labels, 0)]
        return np.where(is_valid, (1.0 - eps) * own + eps * weight.mean(), 0.0)

    def _divisors(self, labels: Ints) -> Array:
        """Return what the summed losses are divided by, `(calls, 1)`."""
        if self.problem.reduction != "mean":
            return np.ones((len(labels), 1))
        if self._shares is not None:
            return np.full((len(labels), 1), float(self.problem.rows))
        is_valid = labels != self.problem.ignore_index
        own: Array = np.where(is_valid, self._weight[np.where(is_valid, labels, 0)], 0.0)
        total: Array = own.sum(axis=1, keepdims=True)
        return total


def _by_rows(tensor: torch.Tensor, problem: Problem) -> torch.Tensor:
    """Return logits or probabilities as `(rows, C)`, in their own dtype."""
    values = tensor.detach().cpu()
    if problem.batch_size is None:
        return values.reshape(1, -1)
    return values.movedim(1, -1).reshape(-1, problem.num_classes)


def _float64(tensor: torch.Tensor) -> Array:
    values: Array = tensor.detach().cpu().double().numpy()
    return values


def _smallest(problem: Problem) -> float:
    """Return what may be lost where numbers of the dtype end: an entry too small for it is 0."""
    smallest = {"float16": 2.0**-24, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}
    return 4.0 * smallest[problem.dtype]
