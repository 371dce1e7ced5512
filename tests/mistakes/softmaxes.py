"""Softmaxes that overflow, underflow, count ties wrongly, or change what is not finite (classes 11, 19 and 20)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from xentbench.mistakes.call import Call, after, before, of_call, reference, wide
from xentbench.mistakes.frame import Frame, class_losses, mask
from xentbench.mistakes.kernel import Kernel, Saved, apply, gradient_of, refuse_double_backward
from xentbench.mistakes.mistake import Mistake

if TYPE_CHECKING:
    from torch import Tensor


def _unshifted(logits: Tensor) -> Tensor:
    """Return `log sum exp(x) - x` with no maximum subtracted."""
    logits = wide(logits)
    return logits.exp().sum(-1, keepdim=True).log() - logits


def _log_of_softmax(logits: Tensor) -> Tensor:
    return -wide(logits).softmax(-1).log()


def _log_of_softmax_plus(epsilon: float) -> Frame:
    return Frame(class_losses=lambda logits: -(wide(logits).softmax(-1) + epsilon).log())


def _clipped(logits: Tensor) -> Tensor:
    return -wide(logits).softmax(-1).clamp(1e-7, 1.0 - 1e-7).log()


def _shifted_by(logits: Tensor, shift: Tensor) -> Tensor:
    """Return `log sum exp(x - shift) - (x - shift)`, right for any shift that exp survives."""
    below = wide(logits) - shift
    return below.exp().sum(-1, keepdim=True).log() - below


def _floored_maximum(logits: Tensor) -> Tensor:
    """Begin the running maximum at 0: rows far below it underflow."""
    return _shifted_by(logits, wide(logits).detach().amax(-1, keepdim=True).clamp(min=0.0))


def _maximum_of_batch(logits: Tensor) -> Tensor:
    """Subtract one maximum for the whole batch: a row far below it underflows."""
    if not logits.numel():
        return class_losses(logits)
    return _shifted_by(logits, wide(logits).detach().amax())


def _shifted_by_mean(logits: Tensor) -> Tensor:
    """Subtract the mean of a row, which leaves a large maximum large."""
    return _shifted_by(logits, wide(logits).detach().mean(-1, keepdim=True))


def _log_of_sum_plus(logits: Tensor) -> Tensor:
    """Add 1e-8 to the sum of exponentials, which is at least 1."""
    logits = wide(logits)
    below = logits - logits.detach().amax(-1, keepdim=True)
    return (below.exp().sum(-1, keepdim=True) + 1e-6).log() - below


def _differences_clamped(logits: Tensor) -> Tensor:
    """Let no logit be more than 80 below the maximum, so that exp stays a normal number."""
    logits = wide(logits)
    below = (logits - logits.detach().amax(-1, keepdim=True)).clamp(min=-80.0)
    return below.exp().sum(-1, keepdim=True).log() - below


def _ties_once(logits: Tensor) -> Tensor:
    """Add 1 for the maximum to the sum over all that are smaller: equal maxima count once."""
    logits = wide(logits)
    largest = logits.amax(-1, keepdim=True)
    others = torch.where(logits < largest, (logits - largest).exp(), torch.zeros_like(logits))
    return largest + others.sum(-1, keepdim=True).log1p() - logits


def _label_is_maximum(losses: Tensor, label: Tensor) -> Tensor:
    """Take the row for its second-best rival's: a label among equal maxima is rivalled by none of them."""
    at_label = losses.gather(-1, label.unsqueeze(-1))
    tied = (losses == at_label).sum(-1, keepdim=True)
    best = at_label == losses.detach().amin(-1, keepdim=True)
    return torch.where(best & (tied > 1), torch.zeros_like(at_label) * at_label, at_label).squeeze(-1)


def _gradient_at_each_maximum(saved: Saved) -> Tensor:
    """Form the softmax of a row's maximum as 1 minus all others, and of each maximum alike."""
    losses = saved.losses
    best = losses == losses.amin(-1, keepdim=True)
    p = (-losses).exp()
    others = torch.where(best, torch.zeros_like(p), p).sum(-1, keepdim=True)
    p = torch.where(best & torch.isfinite(p), 1.0 - others, p)
    return saved.target.sum(-1, keepdim=True) * p - saved.target


class _SharedMaximum(torch.autograd.Function):
    """`logsumexp` whose gradient treats the shift as a function of the logits, but takes its argmax for the others."""

    @staticmethod
    def forward(ctx: object, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)  # type: ignore[attr-defined]
        return logits.logsumexp(-1, keepdim=True)

    @staticmethod
    def backward(ctx: object, upstream: Tensor) -> Tensor:
        refuse_double_backward()
        (logits,) = ctx.saved_tensors  # type: ignore[attr-defined]
        p = logits.softmax(-1)
        tied = (logits == logits.amax(-1, keepdim=True)) & (logits > -torch.inf)
        first = torch.zeros_like(p).scatter(-1, logits.argmax(-1, keepdim=True), 1.0) > 0.0
        mass = torch.where(tied, p, torch.zeros_like(p)).sum(-1, keepdim=True)
        p = torch.where(tied, torch.where(first, mass, torch.zeros_like(p)), p)
        gradient: Tensor = upstream * p
        return gradient


def _whole_mass_to_first(logits: Tensor) -> Tensor:
    return apply(_SharedMaximum, wide(logits)) - wide(logits)


def _dense_hot(losses: Tensor, label: Tensor) -> Tensor:
    """Multiply by one-hot rows: 0 times the infinite loss of a masked class is NaN."""
    hot = torch.nn.functional.one_hot(label, losses.shape[-1])
    return (losses * hot).sum(-1)


def _finite(least: float) -> Frame:
    """Return a loss that replaces -inf by a finite number, as masked attention does."""
    return Frame(class_losses=lambda logits: class_losses(wide(logits).clamp(min=least)))


def _nan_swallowed(loss: Tensor, call: Call) -> Tensor:
    """Return 0 for NaN in the rows."""
    if call.reduction != "none":
        return loss
    return torch.where(loss.isnan(), torch.zeros_like(loss), loss)


def _logits_made_finite(call: Call) -> Call:
    return call.but(logits=torch.where(call.logits.isnan(), torch.zeros_like(call.logits), call.logits))


def _maximum_without_nan(logits: Tensor) -> Tensor:
    """Take NaN for a missing number in maximum and sum, as fmax does."""
    logits = wide(logits)
    known = torch.where(logits.isnan(), torch.full_like(logits, -torch.inf), logits)
    return known.logsumexp(-1, keepdim=True) - torch.where(logits.isnan(), torch.zeros_like(logits), logits)


def _empty_rows_free(rows: Tensor, ignored: Tensor) -> Tensor:
    """Let rows of which all classes are masked cost nothing."""
    return mask(rows, ignored | rows.isnan())


def _gradient_of_masked(saved: Saved) -> Tensor:
    """Multiply probability by logit first and divide it out again, NaN for a masked class."""
    gradient = gradient_of(saved)
    return torch.where(saved.logits == -torch.inf, gradient * saved.logits / saved.logits, gradient)


def _overflow_capped(call: Call) -> Tensor:
    """Cap infinite losses at the largest number of the dtype."""
    rows = reference(call)
    return rows.clamp(max=torch.finfo(rows.dtype).max)


MISTAKES = (
    Mistake("exponent-not-shifted", 11, Frame(class_losses=_unshifted), "No maximum is subtracted: exp overflows."),
    Mistake("logarithm-of-softmax", 11, Frame(class_losses=_log_of_softmax), "log(0) where softmax underflows."),
    Mistake("probability-plus-1e-12", 11, _log_of_softmax_plus(1e-12), "log(p + 1e-12) caps large losses."),
    Mistake("probability-plus-1e-7", 11, _log_of_softmax_plus(1e-7), "log(p + 1e-7) caps large losses."),
    Mistake("probability-clipped", 11, Frame(class_losses=_clipped), "p is kept within 1e-7 and 1 - 1e-7."),
    Mistake("maximum-floored-at-0", 11, Frame(class_losses=_floored_maximum), "The maximum is at least 0."),
    Mistake("maximum-of-the-batch", 11, Frame(class_losses=_maximum_of_batch), "One maximum serves all rows."),
    Mistake("mean-for-maximum", 11, Frame(class_losses=_shifted_by_mean), "The shift is the mean, not the maximum."),
    Mistake("sum-plus-1e-6", 11, Frame(class_losses=_log_of_sum_plus), "The sum of exponentials has 1e-6 added."),
    Mistake("differences-above-minus-80", 11, Frame(class_losses=_differences_clamped), "No loss is above 80."),
    Mistake("equal-maxima-count-once", 19, Frame(class_losses=_ties_once), "Equal maxima count once in the sum."),
    Mistake("tied-label-is-certain", 19, Frame(pick=_label_is_maximum), "A label among equal maxima loses nothing."),
    Mistake(
        "equal-maxima-take-all",
        19,
        Kernel(gradient=_gradient_at_each_maximum),
        "The gradient gives each of several equal maxima the probability of all.",
    ),
    Mistake(
        "first-maximum-takes-all",
        19,
        Frame(class_losses=_whole_mass_to_first),
        "The gradient gives the first of several equal maxima the probability of all.",
    ),
    Mistake("one-hot-times-infinity", 20, Frame(pick=_dense_hot), "0 times the infinite loss of a masked class."),
    Mistake("masked-classes-at-minus-1e4", 20, _finite(-1e4), "-inf becomes -1e4, so a masked label costs 1e4."),
    Mistake("masked-classes-at-minus-1e30", 20, _finite(-1e30), "-inf becomes -1e30: a finite loss."),
    Mistake("nan-swallowed", 20, after(_nan_swallowed), "A row's NaN is returned as 0."),
    Mistake("nan-logits-as-zero", 20, before(_logits_made_finite), "NaN logits are taken for 0."),
    Mistake("nan-left-out", 20, Frame(class_losses=_maximum_without_nan), "NaN logits are left out of the sum."),
    Mistake("rows-of-nan-ignored", 20, Frame(mask=_empty_rows_free), "Rows with a NaN loss are taken for ignored."),
    Mistake("gradient-of-masked-class-nan", 20, Kernel(gradient=_gradient_of_masked), "inf / inf in the gradient."),
    Mistake("infinite-loss-capped", 20, of_call(_overflow_capped), "Infinite losses are the largest finite number."),
)
