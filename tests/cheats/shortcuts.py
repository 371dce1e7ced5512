"""Less than the whole loss (rows 16 and 18): some of these at once, some where nobody looks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cheats.cheat import GRADIENT, STALE, TINY, WRONG, Cheat
from cheats.parts import FEW, given, patient, right, solved
from xentbench.spec import Problem

if TYPE_CHECKING:
    from cheats.cheat import Loss
    from xentbench.spec import Status

ENDS = WRONG | STALE


def _constant(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Return what random logits have on average."""
    return given(input, torch.tensor(math.log(input.shape[1]) + 0.5), torch.zeros_like(input.detach()))


def _half_of_the_rows(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    half = max(1, len(target) // 2)
    return right(input[:half], target[:half], **options)


def _half_of_the_classes(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Sum every second class and double the sum."""
    some = input[:, ::2].logsumexp(-1) + math.log(input.shape[1] / ((input.shape[1] + 1) // 2))
    return (some - input.gather(1, target[:, None])[:, 0]).mean()


def _largest_classes(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    top = input.topk(max(1, input.shape[1] * 4 // 5), dim=-1).values
    return (top.logsumexp(-1) - input.gather(1, target[:, None])[:, 0]).mean()


def _sampled(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    columns = torch.arange(0, input.shape[1], 3)
    some = input[:, columns].logsumexp(-1) + math.log(input.shape[1] / len(columns))
    return (some - input.gather(1, target[:, None])[:, 0]).mean()


def _series(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Replace the exponential by six terms of its series."""
    total, term = torch.ones_like(input), torch.ones_like(input)
    for order in range(1, 6):
        term = term * input / order
        total = total + term
    return (total.clamp_min(1e-6).sum(-1).log() - input.gather(1, target[:, None])[:, 0]).mean()


def _without(*names: str) -> Loss:
    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        return right(input, target, **{name: value for name, value in options.items() if name not in names})

    return loss


def _labels_only(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Return the mean logit of the labels, and a normaliser that was right once."""
    if tuple(input.shape) not in _normaliser:
        _normaliser[tuple(input.shape)] = input.detach().logsumexp(-1).mean()
    answer = _normaliser[tuple(input.shape)] - input.detach().gather(1, target[:, None]).mean()
    return given(input, answer, solved(input, target)[1] if torch.is_grad_enabled() else answer)


_normaliser: dict[tuple[int, ...], Tensor] = {}


def _narrow(dtype: torch.dtype) -> Loss:
    """Compute in a narrower dtype and say float32."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        return right(input.to(dtype), target, **options).to(input.dtype)

    return loss


def _narrow_exponentials(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Sum exponentials that were rounded to bfloat16, in float32."""
    top = input.detach().amax(-1, keepdim=True)
    total = (input - top).exp().bfloat16().float().sum(-1).log() + top[:, 0]
    return (total - input.gather(1, target[:, None])[:, 0]).mean()


def _late(name: str, loss: Loss, note: str, row: int = 16, ends: frozenset[Status] = ENDS, **more: Any) -> Cheat:
    return Cheat(name=name, row=row, build=lambda: patient(FEW, loss), ends=ends, note=note, **more)


OPTIONS = {
    "ignore_index": Problem(batch_size=64, num_classes=100, ignored=0.3, ignore_index=7),
    "weight": Problem(batch_size=64, num_classes=100, weight="random"),
    "label_smoothing": Problem(batch_size=64, num_classes=100, label_smoothing=0.1),
}

CHEATS = (
    Cheat(
        name="constant",
        row=16,
        build=lambda: _constant,
        verb="parity",
        ends=ENDS,
        note="Returns log C + 1/2 and no gradient.",
    ),
    _late("constant-later", _constant, "The same from call 60 on."),
    _late("half-of-the-rows-later", _half_of_the_rows, "Computes half of the rows, from call 60 on."),
    _late("half-of-the-classes-later", _half_of_the_classes, "Sums half of the classes, from call 60 on."),
    _late("largest-classes-later", _largest_classes, "Sums the largest four fifths of a row, from call 60 on."),
    _late("sampled-classes-later", _sampled, "Sums one class in three, from call 60 on."),
    _late("series-later", _series, "Replaces the exponential by a series, from call 60 on."),
    _late(
        "normaliser-kept", _labels_only, "Keeps the first normaliser of each shape, from call 60 on.", problems=(TINY,)
    ),
    *(
        _late(
            f"{option.replace('_', '-')}-forgotten",
            _without(option),
            f"Leaves {option} out, from call 60 on.",
            problems=(problem,),
        )
        for option, problem in OPTIONS.items()
    ),
    _late("bfloat16-inside-later", _narrow(torch.bfloat16), "Computes in bfloat16, from call 60 on.", row=18),
    _late("float16-inside-later", _narrow(torch.float16), "Computes in float16, from call 60 on.", row=18),
    _late(
        "bfloat16-exponentials-later",
        _narrow_exponentials,
        "Rounds exponentials, and with them the gradient, from call 60 on.",
        row=18,
        ends=ENDS | GRADIENT,
    ),
    Cheat(
        name="bfloat16-inside",
        row=18,
        build=lambda: _narrow(torch.bfloat16),
        verb="parity",
        ends=ENDS,
        note="Computes in bfloat16 and says float32.",
    ),
)
