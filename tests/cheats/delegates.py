"""The reference's operator under another name (row 19): honest in its answers, and to be known of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from cheats.cheat import SMALL, TAMPERED, Cheat
from cheats.parts import FEW, patient, right

if TYPE_CHECKING:
    from cheats.cheat import Loss

LABEL = frozenset({"delegate"})


def _by_name() -> Loss:
    return getattr(functional, "yportne_ssorc"[::-1])


def _module() -> Loss:
    return lambda input, target, **options: torch.nn.CrossEntropyLoss(**options)(input, target)  # noqa: A006


def _fallback() -> Loss:
    """Try a kernel that is not there, and fall back."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        try:
            return torch.ops.mine.fused_cross_entropy(input, target)
        except (AttributeError, RuntimeError):
            return functional.cross_entropy(input, target, **options)

    return loss


def _operator() -> Loss:
    """Call the operator below `F.cross_entropy`."""

    def loss(
        input: Tensor,  # noqa: A002
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Tensor:
        how = {"none": 0, "mean": 1, "sum": 2}[reduction]
        return torch.ops.aten.cross_entropy_loss(input, target, weight, how, ignore_index, label_smoothing)

    return loss


def _composed() -> Loss:
    """Call the two operators that `F.cross_entropy` calls."""

    def loss(
        input: Tensor,  # noqa: A002
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> Tensor:
        losses = torch.log_softmax(input, -1)
        return functional.nll_loss(losses, target, weight, ignore_index=ignore_index, reduction=reduction)

    return loss


def _large_only() -> Loss:
    """Delegate where a problem is large enough to be timed."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        compute = functional.cross_entropy if input.numel() > 1000 else right
        return compute(input, target, **options)

    return loss


def _delegate(name: str, build: Any, note: str, **more: Any) -> Cheat:
    return Cheat(name=name, row=19, build=build, labels=LABEL, ends=TAMPERED, note=note, **more)


CHEATS = (
    _delegate("delegate", lambda: functional.cross_entropy, "Is `F.cross_entropy`."),
    _delegate("delegate-by-name", _by_name, "Finds `F.cross_entropy` by a name that it puts together."),
    _delegate("delegate-to-module", _module, "Calls `nn.CrossEntropyLoss`."),
    _delegate("delegate-as-fallback", _fallback, "Tries a kernel that is not there, and falls back."),
    _delegate("delegate-to-operator", _operator, "Calls the operator below `F.cross_entropy`."),
    _delegate("delegate-to-its-parts", _composed, "Calls the two operators that `F.cross_entropy` is made of."),
    _delegate("delegate-large", _large_only, "Delegates above a thousand logits.", problems=(SMALL,)),
    _delegate(
        "delegate-later",
        lambda: patient(FEW, functional.cross_entropy),
        "Delegates from call 60 on.",
    ),
)
