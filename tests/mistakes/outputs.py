"""Wrong shapes and dtypes of the result, and plain wrong results (classes 3 and 25)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from xentbench.mistakes.call import Call, after, before, of_call, reference, wide
from xentbench.mistakes.frame import Frame, class_losses, reduce
from xentbench.mistakes.kernel import Kernel, Saved, gradient_of
from xentbench.mistakes.mistake import Mistake

if TYPE_CHECKING:
    from torch import Tensor


def _float32_inside(call: Call) -> Tensor:
    weight = None if call.weight is None else call.weight.float()
    target = call.target if call.has_labels else call.target.float()
    return reference(call.but(logits=call.logits.float(), target=target, weight=weight)).to(call.result_dtype)


def _without_gradients(call: Call) -> Tensor:
    """Answer from a shortcut that knows neither smoothing nor weights where no gradient is asked for."""
    plain = call if call.logits.requires_grad or call.target.requires_grad else call.but(label_smoothing=0.0)
    return reference(plain)


def _float32_for_inference(loss: Tensor, call: Call) -> Tensor:
    return loss if torch.is_grad_enabled() else loss.float()


def _batch_of_one(rows: Tensor, divisor: Tensor | int, how: str) -> Tensor:
    return reduce(rows.squeeze() if how == "none" else rows, divisor, how)


def _flat(rows: Tensor, divisor: Tensor | int, how: str) -> Tensor:
    return reduce(rows.reshape(-1) if how == "none" else rows, divisor, how)


def _second_softmax(call: Call) -> Tensor:
    axis = 0 if call.logits.dim() == 1 else 1
    return reference(call.but(logits=wide(call.logits).softmax(axis))).to(call.result_dtype)


def _no_softmax(logits: Tensor) -> Tensor:
    """Pass logits to a negative log-likelihood as though they were log-probabilities."""
    return -wide(logits)


def _batch_mean(rows: Tensor, divisor: Tensor | int, how: str) -> Tensor:
    """Divide by the first axis only, as `batchmean` does."""
    if how == "mean" and rows.dim() > 1:
        return rows.sum() / len(rows)
    return reduce(rows, divisor, how)


def _none_reduced(rows: Tensor, divisor: Tensor | int, how: str) -> Tensor:
    """Return a mean for `none`, spread over the rows so that the shape is right."""
    if how != "none" or not rows.numel():
        return reduce(rows, divisor, how)
    return rows.mean().expand(rows.shape)


def _reverse_gradient(saved: Saved) -> Tensor:
    return -gradient_of(saved)


MISTAKES = (
    Mistake("batch-of-one-squeezed", 3, Frame(reduce=_batch_of_one), "Axes of size 1 vanish from reduction none."),
    Mistake("spatial-losses-flat", 3, Frame(reduce=_flat), "Reduction none is flat whatever the target's shape."),
    Mistake(
        "unbatched-result-has-an-axis",
        3,
        after(lambda loss, call: loss.reshape(1) if call.logits.dim() == 1 else loss),
        "One unbatched row gives a result of shape (1,).",
    ),
    Mistake("half-in-float32-out", 3, after(lambda loss, _: wide(loss)), "Half logits give a float32 loss."),
    Mistake("double-in-name-only", 3, of_call(_float32_inside), "float64 is computed in float32 and cast back."),
    Mistake(
        "float32-for-inference",
        3,
        after(_float32_for_inference),
        "Under no_grad the loss is float32 whatever the logits are.",
    ),
    Mistake("shortcut-for-inference", 3, of_call(_without_gradients), "Without gradients label smoothing is skipped."),
    Mistake("always-float16", 3, Frame(finish=lambda loss, _: loss.half()), "The loss is float16."),
    Mistake("negated", 25, after(lambda loss, _: -loss), "The log-likelihood is returned, not its negative."),
    Mistake("softmax-twice", 25, of_call(_second_softmax), "The softmax is taken of probabilities."),
    Mistake("no-softmax", 25, Frame(class_losses=_no_softmax), "Logits are taken for log-probabilities."),
    Mistake(
        "sum-for-mean",
        25,
        before(lambda call: call.but(reduction="sum") if call.reduction == "mean" else call),
        "The mean is a sum.",
    ),
    Mistake("batch-mean", 25, Frame(reduce=_batch_mean), "Spatial means divide by the batch size alone."),
    Mistake("mean-for-none", 25, Frame(reduce=_none_reduced), "Reduction none returns the mean in every row."),
    Mistake(
        "logarithm-to-base-2",
        25,
        Frame(class_losses=lambda logits: class_losses(logits) / math.log(2.0)),
        "Losses are bits, not nats.",
    ),
    Mistake("gradient-negated", 25, Kernel(gradient=_reverse_gradient), "The gradient is q - p."),
)
