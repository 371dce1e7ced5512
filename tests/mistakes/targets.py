"""Targets misread: ignored rows, probabilities, widths of labels, first and last class (classes 5, 9, 17, 18)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from xentbench.mistakes.call import Call, before, check, of_call, reference, wide
from xentbench.mistakes.frame import Frame, ignored_rows, labels_of, mask, pick, spread
from xentbench.mistakes.kernel import Kernel, Saved, effective_target, gradient_of, scaled
from xentbench.mistakes.mistake import Mistake

if TYPE_CHECKING:
    from torch import Tensor

GRID_LIMIT = 65535
"""Blocks that CUDA allows on the second axis of a grid."""


def _falsy_zero(call: Call) -> Call:
    return call.but(ignore_index=call.ignore_index or -100) if call.has_labels else call


def _clamped_first(call: Call) -> Tensor:
    """Compare with ignore_index after the labels were clamped into the classes."""
    return call.target.clamp(max=call.classes - 1) == call.ignore_index


def _clamped(call: Call, ignored: Tensor) -> Tensor:
    return labels_of(call, ignored).clamp(max=call.classes - 1)


def _any_negative(call: Call) -> Call:
    """Take every negative label for ignored, and no other: a rule that fits -100 and -1."""
    if not call.has_labels or call.ignore_index < 0:
        return call
    inside = call.target.clamp(max=call.classes - 1)
    return call.but(ignore_index=-100, target=inside)


def _without_ignored_class(call: Call) -> Tensor:
    """Leave the ignored class out of the normaliser."""
    if not call.has_labels or not 0 <= call.ignore_index < call.classes:
        return reference(call)
    axis = 0 if call.logits.dim() == 1 else 1
    place = torch.tensor([call.ignore_index], device=call.logits.device)
    return reference(call.but(logits=call.logits.index_fill(axis, place, torch.finfo(call.logits.dtype).min)))


def _product_mask(rows: Tensor, ignored: Tensor) -> Tensor:
    return rows * (~ignored)


def _stand_in_gradient(saved: Saved) -> Tensor:
    """Treat an ignored row as labelled 0."""
    if not saved.call.has_labels:
        return gradient_of(saved)
    label = saved.call.target.masked_fill(saved.call.target == saved.call.ignore_index, 0)
    target = effective_target(saved.call.but(target=label, ignore_index=-100), torch.zeros_like(saved.ignored))
    return target.sum(-1, keepdim=True) * (-saved.losses).exp() - target


def _unmasked_share(upstream: Tensor, saved: Saved) -> Tensor:
    share = upstream / saved.divisor if saved.call.reduction == "mean" else upstream
    return share.reshape(-1, 1).expand(len(saved.ignored), 1)


def _argmaxed(call: Call) -> Call:
    return call if call.has_labels else call.but(target=call.target.argmax(0 if call.target.dim() == 1 else 1))


def _gradient_of_unit_mass(saved: Saved) -> Tensor:
    if saved.call.has_labels or saved.call.weight is not None:
        return gradient_of(saved)
    return (-saved.losses).exp() - saved.target


def _normalised(losses: Tensor, target: Tensor, weight: Tensor | None, smoothing: float) -> Tensor:
    return spread(losses, wide(target) / wide(target).sum(-1, keepdim=True), weight, smoothing)


def _with_entropy(losses: Tensor, target: Tensor, weight: Tensor | None, smoothing: float) -> Tensor:
    """Return a divergence: the entropy of the target is subtracted."""
    return spread(losses, target, weight, smoothing) + torch.xlogy(wide(target), wide(target)).sum(-1)


def _argmax_of_one_hot(call: Call) -> Call:
    """Take a row for one-hot where its largest probability is 0.9 or more."""
    if call.has_labels or not call.target.numel():
        return call
    axis = 0 if call.target.dim() == 1 else 1
    hard = torch.zeros_like(call.target).scatter(axis, call.target.argmax(axis, keepdim=True), 1.0)
    return call.but(target=torch.where(call.target.amax(axis, keepdim=True) >= 0.9, hard, call.target))


def _narrow(dtype: torch.dtype) -> Frame:
    """Return a loss that stores labels in a narrow dtype; what falls outside the classes stays inside by wrapping."""

    def labels(call: Call, ignored: Tensor) -> Tensor:
        return labels_of(call, ignored).to(dtype).long() % call.classes

    return Frame(labels=labels)


def _in_logits_dtype(call: Call, ignored: Tensor) -> Tensor:
    return labels_of(call, ignored).to(call.logits.dtype).long().clamp(max=call.classes - 1)


def _narrow_checked(call: Call) -> None:
    """Let labels of any whole-number dtype pass."""
    check(call if call.target.is_floating_point() else call.but(target=call.target.long()))


def _int32_as_int64(call: Call, ignored: Tensor) -> Tensor:
    """Read int32 labels eight bytes apart, where int64 ones would lie; beyond the end it begins again."""
    label = labels_of(call, ignored)
    if call.target.dtype is not torch.int32 or not label.numel():
        return label
    place = 2 * torch.arange(label.numel(), device=label.device) % label.numel()
    return label.reshape(-1)[place].reshape(label.shape)


def _ignored_as_int64(call: Call) -> Tensor:
    return call.target.long() == call.ignore_index


def _uint8_as_int8(call: Call, ignored: Tensor) -> Tensor:
    """Take the top bit of uint8 labels for a sign; what is then negative becomes class 0."""
    label = labels_of(call, ignored)
    return label.to(torch.int8).long().clamp(min=0) if call.target.dtype is torch.uint8 else label


def _rows_of_grid(rows: Tensor, ignored: Tensor) -> Tensor:
    """Write only the rows that one grid axis covers."""
    late = torch.arange(rows.numel(), device=rows.device).reshape(rows.shape) >= GRID_LIMIT
    return mask(rows, ignored | late)


def _flat_index_in_float32(losses: Tensor, label: Tensor) -> Tensor:
    """Form `row * C + label` in float32, exact up to 2^24."""
    row = torch.arange(label.numel(), dtype=torch.float32, device=label.device)
    index = (row * losses.shape[-1] + label.reshape(-1)).long().clamp(max=losses.numel() - 1)
    return losses.reshape(-1)[index].reshape(label.shape)


def _row_offset_in_int16(losses: Tensor, label: Tensor) -> Tensor:
    """Address rows by an unsigned 16-bit number, which begins again after 65536 rows."""
    flat = losses.reshape(-1, losses.shape[-1])
    row = torch.arange(len(flat), device=label.device) % (1 << 16)
    return pick(flat[row], label.reshape(-1)).reshape(label.shape)


def _last_class_is_out(call: Call) -> Tensor:
    return ignored_rows(call) | (call.target >= max(1, call.classes - 1))


def _first_class_is_padding(call: Call) -> Tensor:
    return ignored_rows(call) | (call.target == 0)


def _first_class_unnormalised(logits: Tensor) -> Tensor:
    """Begin the sum of exponentials at class 1."""
    rest = wide(logits) if logits.shape[-1] == 1 else wide(logits)[..., 1:]
    return rest.logsumexp(-1, keepdim=True) - wide(logits)


def _last_class_unnormalised(logits: Tensor) -> Tensor:
    rest = wide(logits) if logits.shape[-1] == 1 else wide(logits)[..., :-1]
    return rest.logsumexp(-1, keepdim=True) - wide(logits)


def _first_class_without_gradient(gradient: Tensor, share: Tensor, saved: Saved) -> Tensor:
    """Leave a row's gradient at the label as p where the label is 0, as `if label > 0` does."""
    if not saved.call.has_labels:
        return scaled(gradient, share, saved)
    first = (saved.call.target.reshape(-1) == 0) & ~saved.ignored
    repaired = gradient.clone()
    repaired[:, 0] += torch.where(first, saved.target[:, 0], torch.zeros_like(saved.target[:, 0]))
    return scaled(repaired, share, saved)


MISTAKES = (
    Mistake("ignores-negative-only", 5, before(_any_negative), "Only negative labels are ever ignored."),
    Mistake("ignore-index-zero-is-none", 5, before(_falsy_zero), "ignore_index 0 is taken for not given."),
    Mistake(
        "ignores-after-clamping",
        5,
        Frame(ignored=_clamped_first, labels=_clamped),
        "ignore_index of C or more never matches.",
    ),
    Mistake("ignored-class-not-normalised", 5, of_call(_without_ignored_class), "The ignored class leaves the sum."),
    Mistake("ignored-by-product", 5, Frame(mask=_product_mask), "An ignored row's infinite loss times 0 is NaN."),
    Mistake(
        "gradient-of-ignored-rows",
        5,
        Kernel(gradient=_stand_in_gradient, share=_unmasked_share, scaled=lambda gradient, share, _: gradient * share),
        "Ignored rows have no loss, but the gradient of class 0.",
    ),
    Mistake("probabilities-argmaxed", 9, before(_argmaxed), "Probabilities are taken for their largest class."),
    Mistake("probabilities-rounded", 9, before(_argmax_of_one_hot), "Rows with a probability of 0.9 become one-hot."),
    Mistake(
        "mean-over-classes-too",
        9,
        Frame(probability_divisor=lambda rows, call: rows.numel() * call.classes),
        "The mean of probability targets divides by N times C.",
    ),
    Mistake("gradient-of-unit-mass", 9, Kernel(gradient=_gradient_of_unit_mass), "The gradient is p - y for any sum."),
    Mistake("probabilities-normalised", 9, Frame(spread=_normalised), "Targets are divided by their sum."),
    Mistake("entropy-subtracted", 9, Frame(spread=_with_entropy), "A divergence is returned for the cross-entropy."),
    Mistake(
        "target-detached", 9, before(lambda call: call.but(target=call.target.detach())), "The target has no gradient."
    ),
    Mistake("labels-in-int16", 17, _narrow(torch.int16), "Labels of 32768 and more wrap."),
    Mistake("labels-in-uint8", 17, _narrow(torch.uint8), "Labels of 256 and more wrap."),
    Mistake("labels-in-int8", 17, _narrow(torch.int8), "Labels of 128 and more wrap."),
    Mistake("labels-in-logits-dtype", 17, Frame(labels=_in_logits_dtype), "Half dtypes round labels beyond 256."),
    Mistake(
        "int32-read-as-int64",
        17,
        Frame(check=_narrow_checked, labels=_int32_as_int64),
        "int32 labels are accepted, and every second one is read.",
    ),
    Mistake(
        "uint8-read-as-int8",
        17,
        Frame(check=_narrow_checked, ignored=_ignored_as_int64, labels=_uint8_as_int8),
        "uint8 labels of 128 and more become class 0.",
    ),
    Mistake("rows-of-one-grid-axis", 17, Frame(mask=_rows_of_grid), "Rows after the first 65535 are not written."),
    Mistake("row-index-in-16-bits", 17, Frame(pick=_row_offset_in_int16), "Row 65536 reads row 0."),
    Mistake("flat-index-in-float32", 17, Frame(pick=_flat_index_in_float32), "Beyond 2^24 logits labels are rounded."),
    Mistake("first-class-is-padding", 18, Frame(ignored=_first_class_is_padding), "Label 0 is always ignored."),
    Mistake("last-class-is-out", 18, Frame(ignored=_last_class_is_out), "Label C - 1 is taken for out of range."),
    Mistake("sum-begins-at-class-1", 18, Frame(class_losses=_first_class_unnormalised), "Class 0 is not in the sum."),
    Mistake("sum-ends-before-last-class", 18, Frame(class_losses=_last_class_unnormalised), "Class C - 1 is missing."),
    Mistake("label-0-without-pull", 18, Kernel(scaled=_first_class_without_gradient), "Label 0 pulls no gradient."),
)
