"""What mistake a wrong answer looks like: a table of well-known ones, each with the answer it would have given.

A diagnosis never decides anything. It is sought only after the judge has found an answer wrong, among mistakes that
implementations of this loss have really had.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from xentbench import bounds
from xentbench.oracle import solve
from xentbench.rows import blocks
from xentbench.spec import UNIT_ROUNDOFF

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from xentbench.inputs import Inputs
    from xentbench.oracle import Truth
    from xentbench.spec import Problem

    Array = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]
    Hypothesis = Callable[["Symptom"], float | bool]

SLACK: Final = 4.0
"""A mistaken computation rounds too, and a diagnosis may be generous: bounds are widened by this factor."""
FEWEST_FOR_A_FACTOR: Final = 3
"""One number is always some factor away from another; three that agree are a finding."""
NEVER_A_LABEL: Final = -(2**31)
"""Stands for ignore_index where nothing is to be ignored."""


@dataclass(frozen=True, slots=True)
class Symptom:
    """A wrong quantity, and all that could explain it. Arrays are flat for the loss, `(rows, C)` for gradients.

    Attributes:
        problem: what was asked.
        inputs: its tensors.
        truth: the right answers.
        quantity: `value`, `gradient` or `target-gradient`.
        got: what came.
        expected: what is right.
        allowed: the loosest bound.
        wrong: where `got` lies outside.
        dtype: format that `got` is rounded to.
    """

    problem: Problem
    inputs: Inputs
    truth: Truth
    quantity: str
    got: Array
    expected: Array
    allowed: Array
    wrong: Flags
    dtype: str

    def fits(self, values: Array) -> bool:
        """Return whether rounding leads from these values to what came, and they explain it better than the truth."""
        with np.errstate(all="ignore"):
            growth = np.abs(values / self.expected)
            growth = np.where(np.isfinite(growth), np.fmax(growth, 1.0), 1.0)
            rounding = 4.0 * UNIT_ROUNDOFF[self.problem.dtype] * np.abs(values)
            slack = SLACK * np.fmax(self.allowed * growth, rounding)
        error = bounds.need(self.got, values, self.dtype)
        better = error < bounds.need(self.got, self.expected, self.dtype)
        return bool(bounds.passes(error, slack).all() and better[self.wrong].all())

    def fits_answer_to(self, inputs: Inputs | None = None, **axes: Any) -> bool:  # noqa: ANN401 - axes of a problem
        """Return whether what came is the right answer to another question: other axes, other tensors."""
        return self.fits(self.answer_to(inputs, **axes))

    def answer_to(self, inputs: Inputs | None = None, **axes: Any) -> Array:  # noqa: ANN401 - axes of a problem
        """Return this quantity's true values for another question."""
        problem = dataclasses.replace(self.problem, **axes)
        return pick(problem, solve(problem, inputs or self.inputs), self.quantity)


def pick(problem: Problem, truth: Truth, quantity: str) -> Array:
    """Return one quantity of the truth by torch's conventions: flat for the loss, `(rows, C)` for gradients."""
    if quantity == "value":
        return truth.loss.torch.reshape(-1)
    values = truth.gradient if quantity == "gradient" else truth.target_gradient
    assert values is not None
    rows = values.torch if problem.batch_size is None else np.moveaxis(values.torch, 1, -1)
    return rows.reshape(problem.rows, problem.num_classes)


def explain(symptom: Symptom) -> str:
    """Return what mistake looks like this, or an empty string: the first row of the table whose hypothesis fits."""
    with np.errstate(all="ignore"):
        for sentence, hypothesis in SUSPECTS:
            found = hypothesis(symptom)
            if found:
                return sentence.format(found)
    return ""


def out_of_unshifted_range(problem: Problem, truth: Truth) -> Flags:
    """Return `(rows,)`: where, unless the maximum is subtracted, `sum exp(x)` overflows or an exponential underflows.

    Overflow: `max x > log(largest finite) - log C`; underflow: a logit that matters lies below `log(smallest normal)`;
    both in the dtype of the logits.
    """
    form = bounds.Format.of(problem.dtype)
    over = truth.rows.largest > np.log(form.largest) - np.log(problem.num_classes)
    under = (truth.rows.lowest < np.log(form.tiny)) & np.isfinite(truth.rows.lowest)
    result: Flags = (over | under) & (truth.rows.valid > 0.0)
    return result


def mean_of_nothing(problem: Problem, truth: Truth) -> Flags:
    """Return `(rows,)`, one where there is no row: every row of a mean over none: NaN, or 0 by a divisor of 1."""
    is_over_none = not problem.rows or (problem.has_index_target and not (truth.rows.valid > 0.0).any())
    return np.full(max(1, problem.rows), problem.reduction == "mean" and is_over_none, dtype=bool)


def every_row(problem: Problem, _truth: Truth) -> Flags:
    """Return `(rows,)`: all of them."""
    return np.ones(problem.rows, dtype=bool)


def _constant_factor(symptom: Symptom) -> float | bool:
    """Return the factor by which every entry is too large or small, where there is one and enough entries tell it."""
    usable = np.isfinite(symptom.expected) & (np.abs(symptom.expected) > SLACK * symptom.allowed)
    if not symptom.wrong.any() or usable.sum() < FEWEST_FOR_A_FACTOR:
        return False
    factor = float(np.median(symptom.got[usable] / symptom.expected[usable]))
    plausible = np.isfinite(factor) and factor not in (0.0, 1.0)
    return factor if plausible and symptom.fits(factor * symptom.expected) else False


def _count(symptom: Symptom) -> float | bool:
    """Return the whole number that the mean divides by, where it is not the right one."""
    if symptom.problem.reduction != "mean" or symptom.quantity != "value" or not symptom.got.all():
        return False
    with np.errstate(all="ignore"):
        count = np.round(symptom.truth.divisor * symptom.expected / symptom.got)[0]
    most = symptom.problem.elements + 1
    return (
        float(count) if 1 <= count <= most and symptom.fits(symptom.truth.divisor / count * symptom.expected) else False
    )


def _times_divisor(symptom: Symptom, divisor: float) -> bool:
    """Return whether dividing by `divisor` instead of the right one explains a mean."""
    if symptom.problem.reduction != "mean" or divisor in (0.0, symptom.truth.divisor):
        return False
    return symptom.fits(symptom.truth.divisor / divisor * symptom.expected)


def _valid_rows(symptom: Symptom) -> float:
    return float(symptom.truth.rows.valid.sum())


def _averaged_sum(symptom: Symptom) -> bool:
    rows = _valid_rows(symptom)
    return symptom.problem.reduction == "sum" and rows > 1.0 and symptom.fits(symptom.expected / rows)


def _no_weight(symptom: Symptom) -> bool:
    return symptom.inputs.weight is not None and symptom.fits_answer_to(
        dataclasses.replace(symptom.inputs, weight=None)
    )


def _smoothing(symptom: Symptom, to: Callable[[Problem], tuple[float, float]]) -> bool:
    """Return whether other shares of the label's and of the uniform part explain the answer."""
    if not symptom.problem.label_smoothing:
        return False
    label, uniform = to(symptom.problem)
    with np.errstate(all="ignore"):
        label_part, uniform_part = (symptom.answer_to(label_smoothing=share) for share in (0.0, 1.0))
        return symptom.fits(label * label_part + uniform * uniform_part)


def _smoothing_unweighted(symptom: Symptom) -> bool:
    """Return whether the label's part bears its weight and the uniform part none, whatever the mean divides by."""
    problem, weight = symptom.problem, symptom.inputs.weight
    if not problem.label_smoothing or weight is None:
        return False
    bare = dataclasses.replace(symptom.inputs, weight=None)
    label, uniform = symptom.answer_to(label_smoothing=0.0), symptom.answer_to(bare, label_smoothing=1.0)
    if problem.reduction == "mean":  # each part was divided by its own sum of weights; the mistaken mean has one
        uniform = uniform * _valid_rows(symptom) / symptom.truth.divisor
    return symptom.fits((1.0 - problem.label_smoothing) * label + problem.label_smoothing * uniform)


def _wider(problem: Problem) -> float:
    """Return the share of label smoothing spread over C - 1 classes instead of C."""
    return problem.label_smoothing * problem.num_classes / max(1, problem.num_classes - 1)


def _nothing_ignored(symptom: Symptom) -> bool:
    inside = 0 <= symptom.problem.ignore_index < symptom.problem.num_classes
    return symptom.problem.has_index_target and inside and symptom.fits_answer_to(ignore_index=NEVER_A_LABEL)


def _hard_target(symptom: Symptom) -> bool:
    if symptom.problem.has_index_target or symptom.quantity == "target-gradient":
        return False
    axis = 0 if symptom.problem.batch_size is None else 1
    labels = dataclasses.replace(symptom.inputs, target=symptom.inputs.target.argmax(axis))
    return symptom.fits_answer_to(labels, target="index", target_grad=False)


def _other_upstream(symptom: Symptom, upstream: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    if symptom.quantity == "value" or not symptom.inputs.upstream.numel():
        return False
    return symptom.fits_answer_to(dataclasses.replace(symptom.inputs, upstream=upstream(symptom.inputs.upstream)))


def _zero(symptom: Symptom) -> bool:
    return not symptom.got.any()


def _without_last_class(symptom: Symptom) -> bool:
    """Return whether the answer is right for logits whose last class is -inf, or no gradient arrives there."""
    if symptom.problem.num_classes == 1 or symptom.quantity == "target-gradient":
        return False
    if symptom.quantity == "gradient":
        return bool(symptom.wrong[:, -1].any() and not symptom.got[:, -1].any())
    logits = symptom.inputs.logits.detach().clone(memory_format=torch.contiguous_format)
    logits.select(0 if symptom.problem.batch_size is None else 1, -1).fill_(-torch.inf)
    return symptom.fits_answer_to(dataclasses.replace(symptom.inputs, logits=logits))


def _overflows(symptom: Symptom) -> Flags:
    """Return `(rows,)`: where `sum exp(x)` overflows unless the maximum is subtracted, or all of it underflows."""
    form = bounds.Format.of(symptom.problem.dtype)
    largest = symptom.truth.rows.largest
    over = largest > np.log(form.largest) - np.log(symptom.problem.num_classes)
    under = (largest < np.log(form.tiny)) & np.isfinite(largest)
    result: Flags = (over | under) & (symptom.truth.rows.valid > 0.0)
    return result


def _rounds_to_zero(symptom: Symptom) -> Flags:
    """Return `(rows,)`: where a probability that matters is too small for the dtype, the maximum subtracted or not."""
    rows = symptom.truth.rows
    below = rows.largest - rows.lowest
    result: Flags = (below > -np.log(bounds.Format.of(symptom.problem.dtype).tiny)) & (rows.valid > 0.0)
    return result & np.isfinite(below)


def _running_sum(symptom: Symptom) -> bool:
    """Return whether adding up the shifted exponentials one by one, in the half dtype of the logits, explains a loss.

    Such a sum stops growing where its terms are below half a unit in its last place: in bfloat16, ones at 256.
    """
    problem = symptom.problem
    plain = problem.has_index_target and problem.label_smoothing == 0.0 and problem.weight == "none"
    if symptom.quantity != "value" or problem.dtype not in ("bfloat16", "float16") or not plain:
        return False
    logits = symptom.inputs.logits.detach().cpu()
    last = logits if problem.batch_size is None else logits.movedim(1, -1)
    terms = last.reshape(problem.rows, problem.num_classes)
    exponentials = (terms - terms.amax(1, keepdim=True)).exp()
    total = torch.zeros_like(exponentials[:, 0])
    for term in exponentials.unbind(1):
        total = total + term
    lost = (total.double() / exponentials.double().sum(1)).log().numpy() * (symptom.truth.rows.valid > 0.0)
    if problem.reduction == "none":
        return symptom.fits(symptom.expected + lost)
    return symptom.fits(symptom.expected + lost.sum() / (symptom.truth.divisor if problem.reduction == "mean" else 1.0))


def _rounded_to_half(symptom: Symptom, dtype: str) -> bool:
    """Return whether a gradient is right but for a rounding to a half dtype: all its numbers are such."""
    if symptom.quantity == "value" or not symptom.got.any():
        return False
    if UNIT_ROUNDOFF[dtype] <= UNIT_ROUNDOFF[symptom.problem.dtype] or not np.isfinite(symptom.got).all():
        return False
    unit, tiny = UNIT_ROUNDOFF[dtype], bounds.Format.of(dtype).tiny
    near = np.abs(symptom.got - symptom.expected) <= unit * np.abs(symptom.expected) + symptom.allowed + unit * tiny
    return bool(near.all() and _holds(dtype, symptom.got).all())


def _breaks_in(symptom: Symptom, rows: Flags) -> bool:
    """Return whether NaN or inf came, and wrong are these rows alone (of a sum or mean: there is one of them)."""
    broken = symptom.wrong & ~np.isfinite(symptom.got)
    if symptom.quantity == "value" and symptom.problem.reduction != "none":
        return bool(rows.any() and broken.any())
    at_fault = symptom.wrong if symptom.wrong.ndim == 1 else symptom.wrong.any(axis=1)
    return bool(broken.any() and (at_fault <= rows).all())


def _filtered(symptom: Symptom) -> bool:
    """Return whether exactly the smallest entries of a gradient are wrong, and 0."""
    if symptom.quantity == "value" or symptom.got[symptom.wrong].any() or not symptom.got.any():
        return False
    return bool(np.abs(symptom.expected[symptom.wrong]).max() < np.abs(symptom.expected[symptom.got != 0.0]).min())


def _floored(symptom: Symptom) -> bool:
    """Return whether exactly the largest losses are wrong, and too small: a probability with a floor under it."""
    if symptom.quantity != "value" or symptom.problem.reduction != "none" or symptom.wrong.all():
        return False
    small = symptom.got[symptom.wrong] < symptom.expected[symptom.wrong]
    return bool(small.all() and symptom.expected[symptom.wrong].min() >= symptom.expected[~symptom.wrong].max())


def _coarser(symptom: Symptom, dtype: str) -> bool:
    """Return whether computing in a coarser dtype than that of the logits explains the answer."""
    if UNIT_ROUNDOFF[dtype] <= UNIT_ROUNDOFF[symptom.problem.dtype]:
        return False
    model = bounds.worst_case(dtype) if dtype == "float32" else bounds.op_by_op(dtype)
    problem, truth = symptom.problem, symptom.truth
    if symptom.quantity == "value":
        allowed = bounds.loss_error(problem, truth, model, stored=False)
    else:
        of = bounds.gradient_error if symptom.quantity == "gradient" else bounds.target_gradient_error
        parts = [of(problem, truth, block, model, stored=False) for block in blocks(problem, symptom.inputs)]
        allowed = np.concatenate(parts)
    error = bounds.need(symptom.got, symptom.expected, symptom.dtype)
    # A truth that the coarser dtype holds may be missed there by a rounding, but not by a number that it cannot hold.
    plain = symptom.wrong & _holds(dtype, symptom.expected) & ~_holds(dtype, symptom.got)
    return bool(bounds.passes(error, np.where(np.isfinite(allowed), allowed, 0.0)).all() and not plain.any())


def _holds(dtype: str, values: Array) -> Flags:
    """Return which of the values are numbers of a dtype."""
    given = torch.from_numpy(np.array(values))
    return np.asarray(given.to(getattr(torch, dtype)).to(torch.float64) == given)


ROUNDED: Final = (
    "a probability that rounded to 0 before its logarithm was taken: use log_softmax, or logsumexp minus the logit"
)
SUSPECTS: Final[tuple[tuple[str, Hypothesis], ...]] = (
    ("zero: no gradient at all arrives", lambda s: s.quantity != "value" and _zero(s)),
    ("wrong sign: the negated answer fits", lambda s: s.fits(-s.expected)),
    (
        f"exp overflows for want of a shift by the maximum, or {ROUNDED}",
        lambda s: _breaks_in(s, _overflows(s)) and _breaks_in(s, _rounds_to_zero(s)),
    ),
    (
        "the exponent is not shifted by the maximum: exp overflows or underflows",
        lambda s: _breaks_in(s, _overflows(s)),
    ),
    (
        ROUNDED,
        lambda s: _breaks_in(s, _rounds_to_zero(s)),
    ),
    ("upstream gradient ignored: the gradient for upstream all ones fits", lambda s: _other_upstream(s, _ones)),
    ("upstream gradient: its first element is used for all rows", lambda s: _other_upstream(s, _first)),
    ("summed instead of averaged (1/N is missing)", lambda s: _times_divisor(s, 1.0)),
    ("averaged instead of summed", _averaged_sum),
    (
        "the mean divides by the number of valid rows instead of their weights",
        lambda s: _times_divisor(s, _valid_rows(s)),
    ),
    (
        "the mean divides by all rows instead of the valid ones or their weights",
        lambda s: _times_divisor(s, s.problem.rows),
    ),
    ("class weights ignored", _no_weight),
    ("label smoothing ignored", lambda s: _smoothing(s, lambda _: (1.0, 0.0))),
    (
        "label smoothing spread over C - 1 classes, the label's left out",
        lambda s: _smoothing(s, lambda p: (1.0 - _wider(p), _wider(p))),
    ),
    (
        "label smoothing divided by C - 1 instead of C",
        lambda s: _smoothing(s, lambda p: (1.0 - p.label_smoothing, _wider(p))),
    ),
    ("label smoothing's uniform part bears no class weights", _smoothing_unweighted),
    ("label smoothing's uniform part missing", lambda s: _smoothing(s, lambda p: (1.0 - p.label_smoothing, 0.0))),
    ("ignore_index not honoured: its rows count", _nothing_ignored),
    ("probability target taken as its largest class", _hard_target),
    ("the sum of exponentials is kept in half precision: add it up in float32", _running_sum),
    ("the last class is left out", _without_last_class),
    ("the mean divides by {:.0f}, which is neither rows nor weights", _count),
    ("a floor under the probability (clipping, or + eps): only the largest losses are wrong, and too small", _floored),
    ("small entries of the gradient are dropped", _filtered),
    ("every entry is {:.10g} times the right one: a wrong constant", _constant_factor),
    ("rounded to bfloat16: right but for that", lambda s: _rounded_to_half(s, "bfloat16")),
    ("rounded to float16: right but for that", lambda s: _rounded_to_half(s, "float16")),
    ("computed in float32: errors have the size of its rounding", lambda s: _coarser(s, "float32")),
    ("computed in float16 or TF32: errors have the size of their rounding", lambda s: _coarser(s, "float16")),
    ("computed in bfloat16: errors have the size of its rounding", lambda s: _coarser(s, "bfloat16")),
)
"""Sentence and hypothesis, the most telling first; `{}` takes what the hypothesis found."""


def _ones(upstream: torch.Tensor) -> torch.Tensor:
    return upstream.new_ones(upstream.shape)


def _first(upstream: torch.Tensor) -> torch.Tensor:
    return upstream.flatten()[0].expand(upstream.shape)
