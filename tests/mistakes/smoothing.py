"""Label smoothing and class weights gone wrong (classes 7 and 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xentbench.mistakes.call import Call, before, of_call, reference, wide
from xentbench.mistakes.frame import Frame, divisor_of, mask, reduce, spread, uniform_part, weigh
from xentbench.mistakes.kernel import Kernel, Saved, effective_target
from xentbench.mistakes.mistake import Mistake

if TYPE_CHECKING:
    from torch import Tensor

LARGE_ALPHABET = 64
"""Kernels keep a row of so many classes in registers; a longer one takes another path."""


def _over_others(call: Call) -> Call:
    classes = max(2, call.classes)
    return call.but(label_smoothing=min(1.0, call.smoothing * classes / (classes - 1)))


def _uniform_over_c_minus_1(losses: Tensor, weight: Tensor | None) -> Tensor:
    classes = losses.shape[-1]
    return uniform_part(losses, weight) * classes / max(1, classes - 1)


class _UniformOfIgnored(Frame):
    """The uniform part is not masked, as where it is added after the masking."""

    def _of_labels(self, losses: Tensor, call: Call) -> Tensor:
        total = super()._of_labels(losses, call)
        ignored = self.ignored(call)
        extra = call.smoothing * uniform_part(losses, call.weight) * ignored
        divisor = divisor_of(call, ignored, self.labels(call, ignored))
        return total if not call.smoothing else total + reduce(extra.nan_to_num(0.0, 0.0, 0.0), divisor, call.reduction)


class _UniformByRows(Frame):
    """The uniform part is averaged over valid rows although the other part is averaged over weights."""

    def _of_labels(self, losses: Tensor, call: Call) -> Tensor:
        if not call.smoothing or call.weight is None or call.reduction != "mean":
            return super()._of_labels(losses, call)
        ignored = self.ignored(call)
        label = self.labels(call, ignored)
        rows = mask(weigh(self.pick(losses, label), call.weight, label), ignored)
        hard = reduce((1.0 - call.smoothing) * rows, divisor_of(call, ignored, label), "mean")
        uniform = mask(call.smoothing * uniform_part(losses, call.weight), ignored)
        return hard + reduce(uniform, divisor_of(call.but(weight=None), ignored, label), "mean")


def _classes_from_last_axis(call: Call) -> Call:
    """Divide by the length of the last axis, which is the class axis of `(N, C)` only."""
    if call.logits.dim() <= 2 or not call.smoothing:
        return call
    return call.but(label_smoothing=min(1.0, call.smoothing * call.classes / call.logits.shape[-1]))


def _half_sum(losses: Tensor, weight: Tensor | None) -> Tensor:
    """Add up in float16, which ends at 65504."""
    weighted = losses if weight is None else losses * wide(weight)
    return (weighted.sum(-1).half() / losses.shape[-1]).to(losses.dtype)


def _not_for_probabilities(losses: Tensor, target: Tensor, weight: Tensor | None, _smoothing: float) -> Tensor:
    return spread(losses, target, weight, 0.0)


def _uniform_of_first_classes(losses: Tensor, weight: Tensor | None) -> Tensor:
    """Spread over the classes of one shard."""
    shard = losses if losses.shape[-1] <= LARGE_ALPHABET else losses[..., :LARGE_ALPHABET]
    return uniform_part(shard, None if weight is None else weight[: shard.shape[-1]])


def _gradient_without_smoothing(saved: Saved) -> Tensor:
    sharp = effective_target(saved.call.but(label_smoothing=0.0), saved.ignored)
    return sharp.sum(-1, keepdim=True) * (-saved.losses).exp() - sharp


def _gradient_without_weight(saved: Saved) -> Tensor:
    plain = effective_target(saved.call.but(weight=None), saved.ignored)
    return plain.sum(-1, keepdim=True) * (-saved.losses).exp() - plain


def _gradient_with_unweighted_mass(saved: Saved) -> Tensor:
    """Weigh the target but let the softmax enter with the weight of the label alone."""
    mass = effective_target(saved.call.but(label_smoothing=0.0), saved.ignored).sum(-1, keepdim=True)
    return mass * (-saved.losses).exp() - saved.target


def _normalised_weight(call: Call) -> Call:
    if call.weight is None:
        return call
    return call.but(weight=call.weight * call.classes / wide(call.weight).sum().to(call.weight.dtype))


def _weight_of_prediction(call: Call) -> Tensor:
    """Weigh each row by the class that it predicts instead of its label."""
    if call.weight is None or not call.has_labels or call.smoothing:
        return reference(call)
    rows = wide(reference(call.but(weight=None, reduction="none")))
    predicted = call.logits.argmax(0 if call.logits.dim() == 1 else 1)
    ignored = call.target == call.ignore_index
    rows = mask(rows * wide(call.weight)[predicted], ignored)
    label = call.target.long().masked_fill(ignored, 0)
    return reduce(rows, divisor_of(call, ignored, label), call.reduction).to(call.result_dtype)


def _weight_at_least(call: Call, least: float) -> Call:
    return call if call.weight is None else call.but(weight=call.weight.clamp(min=least))


MISTAKES = (
    Mistake("smoothing-over-other-classes", 7, before(_over_others), "The label gets no share of eps: C - 1 for C."),
    Mistake(
        "uniform-part-over-c-minus-1",
        7,
        Frame(uniform_part=_uniform_over_c_minus_1),
        "The uniform part is divided by C - 1; probability targets are smoothed rightly.",
    ),
    Mistake(
        "smoothing-of-ignored-rows",
        7,
        _UniformOfIgnored(),
        "Ignored rows lose the uniform part of label smoothing.",
    ),
    Mistake(
        "uniform-part-unweighted",
        7,
        Frame(uniform_part=lambda losses, _: uniform_part(losses, None)),
        "Class weights are missing in the uniform part.",
    ),
    Mistake("uniform-part-over-rows", 7, _UniformByRows(), "With weights the uniform part is divided by valid rows."),
    Mistake(
        "classes-read-from-last-axis",
        7,
        before(_classes_from_last_axis),
        "Smoothing divides by the last axis, a position's and not a class's in spatial input.",
    ),
    Mistake(
        "probabilities-not-smoothed", 7, Frame(spread=_not_for_probabilities), "Probability targets are not smoothed."
    ),
    Mistake(
        "smoothing-over-one-shard",
        7,
        Frame(uniform_part=_uniform_of_first_classes),
        "Above 64 classes the uniform part covers the first 64 only.",
    ),
    Mistake(
        "smoothing-missing-in-backward",
        7,
        Kernel(gradient=_gradient_without_smoothing),
        "The gradient is that of the loss without label smoothing.",
    ),
    Mistake(
        "smoothing-sum-in-float16",
        7,
        Frame(uniform_part=_half_sum),
        "The sum over classes is kept in float16, whatever the dtype, and overflows with many classes.",
    ),
    Mistake("weight-ignored", 8, before(lambda call: call.but(weight=None)), "Class weights are ignored."),
    Mistake(
        "probabilities-not-weighted",
        8,
        Frame(spread=lambda losses, target, _, smoothing: spread(losses, target, None, smoothing)),
        "Probability targets are not weighted.",
    ),
    Mistake(
        "weight-missing-in-backward", 8, Kernel(gradient=_gradient_without_weight), "The gradient has no class weights."
    ),
    Mistake(
        "weighted-mass-of-label-in-backward",
        8,
        Kernel(gradient=_gradient_with_unweighted_mass),
        "With smoothing, the softmax enters the gradient with the label's weight instead of all that was spread.",
    ),
    Mistake("weight-normalised", 8, before(_normalised_weight), "Class weights are scaled to a mean of 1."),
    Mistake("weight-of-prediction", 8, of_call(_weight_of_prediction), "Rows are weighted by the class they predict."),
    Mistake(
        "weight-squared",
        8,
        Frame(weigh=lambda rows, weight, label: weigh(weigh(rows, weight, label), weight, label)),
        "The label's weight is applied twice.",
    ),
    Mistake(
        "weight-at-least-1e-4",
        8,
        before(lambda call: _weight_at_least(call, 1e-4)),
        "Class weights are at least 1e-4: zero and tiny ones count.",
    ),
)
