"""Arguments that must be refused and are answered instead (class 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from xentbench.mistakes.call import (
    Call,
    check_labels,
    check_options,
    check_target,
    check_weight,
    of_call,
    wide,
)
from xentbench.mistakes.frame import Frame, ignored_rows, labels_of
from xentbench.mistakes.mistake import Mistake

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def _but(*skipped: Callable[[Call], None]) -> Callable[[Call], None]:
    """Return the checks without some of them."""
    kept = [part for part in (check_options, check_weight, check_target, check_labels) if part not in skipped]

    def checked(call: Call) -> None:
        for part in kept:
            if part is not check_labels or call.has_labels:
                part(call)

    return checked


def _but_all(_call: Call) -> None:
    """Let anything pass."""


def _clamped(call: Call, ignored: Tensor) -> Tensor:
    return labels_of(call, ignored).clamp(0, call.classes - 1)


def _wrapped(call: Call, ignored: Tensor) -> Tensor:
    return labels_of(call, ignored) % call.classes


def _negative_from_end(call: Call, ignored: Tensor) -> Tensor:
    """Take a negative label for a class counted from the end, as plain indexing does; others are refused."""
    label = labels_of(call, ignored)
    label = torch.where((label < 0) & (label >= -call.classes), label + call.classes, label)
    check_labels(call.but(target=label.masked_fill(ignored, call.ignore_index)))
    return label


def _ignored_outside(call: Call) -> Tensor:
    return ignored_rows(call) | (call.target < 0) | (call.target >= call.classes)


def _negative_ignored(call: Call) -> Tensor:
    check_labels(call.but(target=call.target.masked_fill(call.target < 0, call.ignore_index)))
    return ignored_rows(call) | (call.target < 0)


def _nothing_at_label(losses: Tensor, label: Tensor) -> Tensor:
    """Pick by one-hot rows, which are all zero for a label that is no class."""
    hot = label.unsqueeze(-1) == torch.arange(losses.shape[-1], device=label.device)
    return torch.where(hot, losses, torch.zeros_like(losses)).sum(-1)


def _weight_outside(call: Call, ignored: Tensor, label: Tensor) -> Tensor | int:
    if call.weight is None:
        return torch.count_nonzero(~ignored)
    return wide(call.weight)[label.clamp(0, call.classes - 1)].masked_fill(ignored, 0.0).sum()


def _weigh_inside(rows: Tensor, weight: Tensor | None, label: Tensor) -> Tensor:
    return rows if weight is None else rows * wide(weight)[label.clamp(0, len(weight) - 1)]


def _fitted_weight(call: Call) -> Tensor:
    """Cut a long weight, and repeat a short one's last entry."""
    weight = call.weight
    if weight is not None and tuple(weight.shape) != (call.classes,):
        place = torch.arange(call.classes, device=weight.device).clamp(max=max(0, weight.numel() - 1))
        weight = weight.reshape(-1)[place]
    return _answer(Frame(), call.but(weight=weight))


def _known_reduction(call: Call) -> Tensor:
    """Take what is neither sum nor none for the mean, as an else branch does."""
    return _answer(Frame(), call.but(reduction=call.reduction if call.reduction in ("sum", "none") else "mean"))


def _known_reduction_or_none(call: Call) -> Tensor:
    """Take what is neither mean nor sum for none."""
    return _answer(Frame(), call.but(reduction=call.reduction if call.reduction in ("sum", "mean") else "none"))


def _first_rows(call: Call) -> Tensor:
    """Use as many rows as both logits and target have."""
    if not call.has_labels or call.logits.dim() == 1 or call.target.dim() == 0:
        return _answer(Frame(), call)
    rows = min(len(call.logits), len(call.target))
    return _answer(Frame(), call.but(logits=call.logits[:rows], target=call.target[:rows]))


def _answer(frame: Frame, call: Call) -> Tensor:
    return frame(call.logits, call.target, call.weight, call.ignore_index, call.reduction, call.label_smoothing)


UNCHECKED = _but(check_labels)

MISTAKES = (
    Mistake("labels-clamped", 6, Frame(check=UNCHECKED, labels=_clamped), "Labels out of range become 0 or C - 1."),
    Mistake("labels-wrapped", 6, Frame(check=UNCHECKED, labels=_wrapped), "Labels out of range wrap."),
    Mistake(
        "labels-from-the-end", 6, Frame(check=UNCHECKED, labels=_negative_from_end), "Label -1 is taken for C - 1."
    ),
    Mistake(
        "labels-outside-ignored",
        6,
        Frame(check=UNCHECKED, ignored=_ignored_outside),
        "Labels out of range are ignored.",
    ),
    Mistake(
        "negative-labels-ignored",
        6,
        Frame(check=UNCHECKED, ignored=_negative_ignored),
        "Any negative label is ignored.",
    ),
    Mistake(
        "labels-outside-cost-nothing",
        6,
        Frame(check=UNCHECKED, pick=_nothing_at_label, weigh=_weigh_inside, divisor=_weight_outside),
        "A label out of range costs nothing but counts in the mean.",
    ),
    Mistake(
        "weight-of-any-size", 6, of_call(_fitted_weight, check=_but_all), "A weight of wrong size is cut or repeated."
    ),
    Mistake(
        "unknown-reduction-is-mean",
        6,
        of_call(_known_reduction, check=_but_all),
        "An unknown reduction is taken for the mean.",
    ),
    Mistake(
        "unknown-reduction-is-none",
        6,
        of_call(_known_reduction_or_none, check=_but_all),
        "An unknown reduction is taken for none.",
    ),
    Mistake("first-rows-only", 6, of_call(_first_rows, check=_but_all), "Surplus logits or labels are left out."),
)
