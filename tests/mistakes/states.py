"""Arguments that are changed, results of an earlier call, and results that vary (classes 21, 22 and 23)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from xentbench.mistakes.call import Call, after, of_call, reference, wide
from xentbench.mistakes.frame import Frame, divisor_of, labels_of, reduce
from xentbench.mistakes.gradients import on_backward
from xentbench.mistakes.kernel import apply
from xentbench.mistakes.mistake import Mistake

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def _own(call: Call) -> Call:
    """Return the call with logits of its own, which later changes of the caller's cannot reach."""
    return call.but(logits=call.logits.clone())


def _shifted_in_place(call: Call) -> Tensor:
    """Subtract the maximum in place where no cast to float32 made a copy."""
    result = reference(_own(call))
    if call.logits.dtype is torch.float32 and call.logits.numel():
        axis = 0 if call.logits.dim() == 1 else 1
        with torch.no_grad():
            call.logits.data.sub_(call.logits.amax(axis, keepdim=True))
    return result


def _overwritten_in_backward(call: Call) -> Tensor:
    """Write the gradient over the logits when it arrives."""

    def tamper(gradient: Tensor) -> Tensor:
        call.logits.data.copy_(gradient)
        return gradient

    return reference(call.but(logits=on_backward(call.logits.clone(), tamper)))


def _labels_replaced(call: Call) -> Tensor:
    """Put class 0 into the target where it is ignored."""
    result = reference(call.but(target=call.target.clone()))
    if call.has_labels:
        call.target.masked_fill_(call.target == call.ignore_index, 0)
    return result


def _weight_normalised(call: Call) -> Tensor:
    """Normalise the weight in place, after use."""
    if call.weight is None:
        return reference(call)
    result = reference(call.but(weight=call.weight.clone()))
    call.weight.div_(call.weight.sum())
    return result


def _probabilities_smoothed(call: Call) -> Tensor:
    """Smooth the probabilities where they are."""
    result = reference(call.but(target=call.target.clone()))
    if not call.has_labels and call.smoothing:
        call.target.data.mul_(1.0 - call.smoothing).add_(call.smoothing / call.classes)
    return result


def _count_of_first_call() -> Callable[[Call, Tensor, Tensor], Tensor | int]:
    """Keep the divisor of each shape's first call."""
    known: dict[tuple[object, ...], Tensor | int] = {}

    def divisor(call: Call, ignored: Tensor, label: Tensor) -> Tensor | int:
        key = (tuple(call.logits.shape), call.logits.dtype, call.weight is None)
        return known.setdefault(key, divisor_of(call, ignored, label))

    return divisor


def _labels_of_first_call() -> Callable[[Call, Tensor], Tensor]:
    """Keep the labels of each shape's first call, as a buffer of one-hot rows does."""
    known: dict[tuple[object, ...], Tensor] = {}

    def labels(call: Call, ignored: Tensor) -> Tensor:
        key = (tuple(call.logits.shape), call.logits.dtype)
        return known.setdefault(key, labels_of(call, ignored))

    return labels


def _clamped(call: Call, ignored: Tensor) -> Tensor:
    return labels_of(call, ignored).clamp(0, call.classes - 1)


def _mask_of_first_call() -> Callable[[Call], Tensor]:
    """Keep the mask of each shape's first call."""
    known: dict[tuple[object, ...], Tensor] = {}

    def ignored(call: Call) -> Tensor:
        key = (tuple(call.logits.shape), call.logits.dtype, call.ignore_index)
        return known.setdefault(key, call.target == call.ignore_index)

    return ignored


def _every_second_call() -> Callable[[Tensor, Call], Tensor]:
    """Add the last total to a mean where a buffer was not cleared: each second call is a thousandth too large."""
    calls_made = itertools.count()
    return lambda loss, _: loss * (1.0 + 1e-3 * (next(calls_made) % 2))


def _largest_ever() -> Callable[[Tensor], Tensor]:
    """Subtract the largest logit that was ever seen, instead of each row's."""
    seen = [-torch.inf]

    def losses(logits: Tensor) -> Tensor:
        logits = wide(logits)
        finite = logits.detach()[torch.isfinite(logits.detach())]
        own = logits.detach().amax(-1, keepdim=True)
        seen[0] = max(seen[0], float(finite.max()) if finite.numel() else -torch.inf)
        below = logits - torch.maximum(own, torch.full_like(own, seen[0]))
        return below.exp().sum(-1, keepdim=True).log() - below

    return losses


class _Reused(torch.autograd.Function):
    """Copy into a buffer, and return a view of it."""

    @staticmethod
    def forward(ctx: object, loss: Tensor, buffer: Tensor) -> Tensor:
        return buffer.copy_(loss).detach()

    @staticmethod
    def backward(ctx: object, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream, None


def _shared_result() -> Callable[[Tensor, Call], Tensor]:
    """Return each shape's result in the same buffer."""
    buffers: dict[tuple[object, ...], Tensor] = {}

    def shared(loss: Tensor, _call: Call) -> Tensor:
        buffer = buffers.setdefault((tuple(loss.shape), loss.dtype), torch.empty_like(loss.detach()))
        return apply(_Reused, loss, buffer)

    return shared


def _noisy(size: float) -> Callable[[Tensor, Call], Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda loss, _: loss * (1.0 + size * torch.rand((), generator=generator).to(loss.device)).to(loss.dtype)


def _lost_updates() -> Callable[[Tensor, Tensor | int, str], Tensor]:
    """Lose one row of a sum now and then, as additions without atomics do."""
    generator = torch.Generator().manual_seed(0)

    def lossy(rows: Tensor, divisor: Tensor | int, how: str) -> Tensor:
        if how == "none" or rows.numel() < 2:
            return reduce(rows, divisor, how)
        kept = torch.ones(rows.numel(), dtype=torch.bool)
        kept[int(torch.randint(rows.numel(), (), generator=generator))] = False
        return reduce(rows.masked_fill(~kept.reshape(rows.shape).to(rows.device), 0.0), divisor, how)

    return lossy


def _racing_gradient() -> Callable[[Call], Tensor]:
    """Multiply each row's gradient by a factor that varies from call to call."""
    generator = torch.Generator().manual_seed(0)

    def tamper(gradient: Tensor) -> Tensor:
        return gradient * (1.0 + 1e-3 * torch.rand(gradient.shape, generator=generator)).to(gradient)

    return lambda call: reference(call.but(logits=on_backward(call.logits, tamper)))


MISTAKES = (
    Mistake("maximum-subtracted-in-place", 21, of_call(_shifted_in_place), "float32 logits lose their maximum."),
    Mistake("gradient-over-logits", 21, of_call(_overwritten_in_backward), "Backward overwrites the logits."),
    Mistake("ignored-labels-replaced", 21, of_call(_labels_replaced), "Ignored labels become class 0 in the target."),
    Mistake("weight-normalised-in-place", 21, of_call(_weight_normalised), "The weight is normalised in place."),
    Mistake("probabilities-smoothed-in-place", 21, of_call(_probabilities_smoothed), "The target is smoothed itself."),
    Mistake("divisor-of-first-call", 22, Frame(divisor=_count_of_first_call()), "A shape's first divisor is kept."),
    Mistake("labels-of-first-call", 22, Frame(labels=_labels_of_first_call()), "A shape's first labels are kept."),
    Mistake(
        "mask-of-first-call", 22, Frame(ignored=_mask_of_first_call(), labels=_clamped), "A shape's first mask is kept."
    ),
    Mistake("every-second-call", 22, after(_every_second_call()), "Every second call is a thousandth too large."),
    Mistake("largest-logit-ever", 22, Frame(class_losses=_largest_ever()), "The maximum is never forgotten."),
    Mistake(
        "result-buffer-shared",
        22,
        after(_shared_result()),
        "A later result of the same shape overwrites an earlier one.",
    ),
    Mistake("noise-of-1e-2", 23, after(_noisy(1e-2)), "The loss varies by up to 1e-2."),
    Mistake("noise-of-1e-4", 23, after(_noisy(1e-4)), "The loss varies by up to 1e-4."),
    Mistake("row-lost-at-random", 23, Frame(reduce=_lost_updates()), "A sum loses one row at random."),
    Mistake("gradient-varies", 23, of_call(_racing_gradient()), "The gradient varies by up to 1e-3."),
)
