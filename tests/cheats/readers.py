"""Answers that lie about in the process: freed memory, frames, the garbage collector's list (rows 7 and 8)."""

from __future__ import annotations

import gc
import math
from typing import Any

import torch
from torch import Tensor

from cheats.cheat import GRADIENT, STALE, TAMPERED, TINY, WRONG, Cheat
from cheats.parts import FEW, frames, given, patient, replaying, right, solved
from xentbench.spec import Phase, Problem

EACH_ROW = Problem(batch_size=64, num_classes=100, reduction="none")
WIDE = Problem(batch_size=64, num_classes=1000)


def _plausible(value: Tensor, input: Tensor) -> bool:  # noqa: A002
    """Whether these numbers may be losses of such logits."""
    middle = math.log(input.shape[1]) + 0.5
    return bool(torch.isfinite(value).all()) and 0.3 * middle < float(value.mean()) < 3 * middle


def _freed_loss() -> Any:
    """Return new memory as it comes, where what it holds may be losses that somebody has just let go; else replay."""
    replay = replaying()

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        found = torch.empty(target.shape if options.get("reduction") == "none" else (), dtype=input.dtype)
        if _plausible(found, input):
            return given(input, found, input.detach().softmax(-1) / len(input))
        return replay(input, target, **options)

    return patient(FEW, loss)


def _freed_gradient() -> Any:
    """Return new memory as the gradient, where each of its rows sums to 0 as a gradient's does; else an old one."""
    known: dict[tuple[int, ...], Tensor] = {}

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        found = torch.empty_like(input.detach())
        answer, gradient = solved(input, target, **options)
        if float(found.abs().sum()) < 0.01 or float(found.sum(-1).abs().max()) > 1e-5:
            found = known.setdefault(tuple(input.shape), gradient)
        return given(input, answer, found)

    return patient(FEW, loss)


def _from_the_collector() -> Any:
    """Return the newest number that any living tensor holds and that may be the loss; else replay."""
    replay = replaying()

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        held = (value for value in gc.get_objects() if type(value) is Tensor and value.dim() == 0)
        found = [value.detach() for value in held if value.dtype is input.dtype and _plausible(value.detach(), input)]
        if found:
            return given(input, found[-1], input.detach().softmax(-1) / len(input))
        return replay(input, target, **options)

    return patient(FEW, loss)


def _from_frames() -> Any:
    """Return a number that a caller holds and that may be the loss; else replay."""
    replay = replaying()

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        held = (value for frame in frames() if frame.f_back is not None for value in frame.f_locals.values())
        numbers = (value.detach() for value in held if type(value) is Tensor and value.dim() == 0)
        found = next((value for value in numbers if _plausible(value, input)), None)
        if found is not None:
            return given(input, found.clone(), input.detach().softmax(-1) / len(input))
        return replay(input, target, **options)

    return patient(FEW, loss)


def _borrowed_baseline() -> Any:
    """Call the baseline that the duel holds."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        for frame in frames():
            duel = frame.f_locals.get("self")
            if type(duel).__name__ == "Duel" and len(duel.arms) == 3:
                return duel.arms[0](input, target)
        return right(input, target, **options)

    return loss


def _corrected(base: Tensor, total: Tensor, changed: Any, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
    """Return the right loss from the sums of a base and the places at which the logits differ from it."""
    values = input.detach()
    rows, columns = changed
    now = total.index_add(0, rows, values[rows, columns].exp() - base[rows, columns].exp()).log_()
    answer = (now - values.gather(1, target[:, None])[:, 0]).mean()
    if not torch.is_grad_enabled():
        return answer
    gradient = torch.exp(values - now[:, None])
    gradient[torch.arange(len(target)), target] -= 1.0
    return given(input, answer, gradient.div_(len(target)))


def _from_what_was_refreshed() -> Any:
    """Correct the last sums by what the refresh notes: one logit a row, and right but for rounding."""
    kept: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def noted(storage: Any) -> Any:
        for part in getattr(storage, "_undo", ()):
            if len(part) == 3 and isinstance(part[1], tuple) and len(part[1]) == 2:
                return tuple(torch.as_tensor(place) for place in part[1]), torch.as_tensor(part[2])
        return None

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        held = (value for frame in frames() for value in frame.f_locals.values())
        found = (noted(value) for value in held if type(value).__name__ == "Storage" and value.logits is input)
        changed = next(found, None)
        if changed is None:
            return right(input, target, **options)
        if tuple(input.shape) not in kept:
            base = input.detach().clone()
            base[changed[0]] = changed[1]
            kept[tuple(input.shape)] = base, base.exp().sum(-1)
        return _corrected(*kept[tuple(input.shape)], changed[0], input, target)

    return patient(FEW, loss)


def _by_comparison() -> Any:
    """Correct the last sums where the logits differ from those of the last call: right, and no exponential a logit."""
    kept: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        values, place = input.detach(), tuple(input.shape)
        if place in kept:
            changed = (values != kept[place][0]).nonzero(as_tuple=True)
            if len(changed[0]) <= 4 * len(target):
                return _corrected(*kept[place], changed, input, target)
        kept[place] = values.clone(), values.exp().sum(-1)
        return right(input, target, **options)

    return patient(FEW, loss)


CHEATS = (
    Cheat(
        name="freed-losses",
        row=7,
        build=_freed_loss,
        ends=WRONG | STALE,
        problems=(EACH_ROW,),
        phases=(Phase.FORWARD,),
        note="Returns unwritten memory that holds plausible losses, somebody else's.",
    ),
    Cheat(
        name="freed-gradient",
        row=7,
        build=_freed_gradient,
        ends=GRADIENT,
        phases=(Phase.FORWARD_BACKWARD,),
        note="Returns unwritten memory that holds a plausible gradient, somebody else's.",
    ),
    Cheat(
        name="newest-number-alive",
        row=8,
        build=_from_the_collector,
        ends=STALE | WRONG,
        problems=(TINY,),
        note="Answers with a number found among the garbage collector's objects.",
    ),
    Cheat(
        name="number-of-a-caller",
        row=8,
        build=_from_frames,
        ends=STALE | WRONG,
        note="Answers with a number found in a caller's local variables.",
    ),
    Cheat(
        name="baseline-of-the-duel",
        row=8,
        build=_borrowed_baseline,
        labels=frozenset({"delegate"}),
        ends=TAMPERED,
        note="Calls the baseline that it finds in the duel.",
    ),
    Cheat(
        name="corrects-what-was-refreshed",
        row=8,
        build=_from_what_was_refreshed,
        is_promised=False,
        problems=(WIDE,),
        phases=(Phase.FORWARD,),
        note="Reads from the harness which logits were refreshed, and corrects its last sums by these: right answers.",
    ),
    Cheat(
        name="corrects-by-comparison",
        row=2,
        build=_by_comparison,
        is_promised=False,
        problems=(WIDE,),
        phases=(Phase.FORWARD,),
        note="Finds which logits differ from the last call's, and corrects its last sums by these: right answers.",
    ),
)
