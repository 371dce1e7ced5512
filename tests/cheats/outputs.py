"""Answers that are no answers yet, or are somebody else's memory (rows 11 and 15)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from cheats.cheat import ALIASED, DEFERRED, TAMPERED, Cheat
from cheats.parts import FEW, patient, right, solved
from xentbench.spec import Phase, Problem, Status

EACH_ROW = Problem(batch_size=64, num_classes=100, reduction="none")


class _Lazy(Tensor):
    """A loss that is computed when somebody looks at it."""

    @staticmethod
    def of(compute: Any) -> Tensor:
        lazy = torch.zeros(()).as_subclass(_Lazy)
        lazy._compute = compute  # type: ignore[attr-defined]
        return lazy

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def now(value: Any) -> Any:
            return value._compute() if isinstance(value, _Lazy) else value

        return function(*map(now, args), **{name: now(value) for name, value in (kwargs or {}).items()})


class _Disguised(_Lazy):
    """The same, which says that it is a plain tensor."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return Tensor

    @staticmethod
    def of(compute: Any) -> Tensor:
        lazy = torch.zeros(()).as_subclass(_Disguised)
        object.__setattr__(lazy, "_compute", compute)
        return lazy


def _lazy(kind: type[_Lazy]) -> Any:
    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        return kind.of(lambda: right(input, target, **options))  # type: ignore[attr-defined]

    return loss


def _methods_of_its_own() -> Any:
    """Return a plain tensor whose own attributes stand before the methods that read it."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        answer = torch.zeros((), requires_grad=torch.is_grad_enabled() and input.requires_grad)
        compute = lambda: right(input, target, **options)  # noqa: E731 - short
        for name in ("detach", "clone", "cpu", "contiguous"):
            setattr(answer, name, lambda: compute().detach())
        answer.item = lambda: float(compute())  # type: ignore[method-assign]
        answer.backward = lambda *upstream, **_: compute().backward(*upstream)  # type: ignore[method-assign]
        return answer

    return loss


def _no_backward() -> Any:
    """Return the right loss, whose `backward` is an attribute that does nothing."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        with torch.no_grad():
            answer = right(input, target, **options)
        answer.requires_grad_(input.requires_grad)
        answer.backward = lambda *_, **__: None  # type: ignore[method-assign]
        return answer

    return patient(FEW, loss)


def _patched_methods() -> Any:
    """Patch the methods of all tensors, so that a loss is computed when it is read."""
    waiting: dict[int, Any] = {}
    for name in ("detach", "item", "backward", "clone"):
        method = getattr(Tensor, name)

        def read(self: Tensor, *arguments: Any, _method: Any = method, **options: Any) -> Any:
            compute = waiting.pop(id(self), None)
            return _method(compute() if compute else self, *arguments, **options)

        setattr(Tensor, name, read)

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        answer = torch.zeros((), requires_grad=torch.is_grad_enabled() and input.requires_grad)
        waiting.clear()
        waiting[id(answer)] = lambda: right(input, target, **options)
        return answer

    return loss


class _InBuffer(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, answer: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return answer.view(answer.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        rows = upstream if upstream.dim() == 0 else upstream.unsqueeze(-1)
        return rows * ctx.gradient, None, None


def _one_buffer() -> Any:
    """Write every answer of a shape into one buffer, which is the answer."""
    buffers: dict[Any, Tensor] = {}

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        answer, gradient = solved(input, target, **options)
        buffer = buffers.setdefault(tuple(answer.shape), torch.empty_like(answer))
        return _InBuffer.apply(input, buffer.copy_(answer), gradient)

    return patient(FEW, loss)


def _inside_the_input() -> Any:
    """Put the answer where the first logit was."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        answer, gradient = solved(input, target, **options)
        place = input.detach().view(-1)[0]
        return _InBuffer.apply(input, place.copy_(answer), gradient)

    return patient(FEW, loss)


class _IntoInput(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, answer: Tensor, gradient: Tensor, kept: Any) -> Tensor:
        ctx.gradient, ctx.kept = gradient, kept
        return answer.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        torch.mul(ctx.gradient, upstream, out=ctx.kept)
        return ctx.kept.view(ctx.kept.shape), None, None, None


def _one_gradient_buffer() -> Any:
    """Return every gradient of a shape in one buffer."""
    buffers: dict[Any, Tensor] = {}

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        answer, gradient = solved(input, target, **options)
        kept = buffers.setdefault(tuple(input.shape), torch.empty_like(gradient))
        return _IntoInput.apply(input, answer, gradient, kept)

    return patient(FEW, loss)


def _gradient_over_the_logits() -> Any:
    """Return the gradient in the logits' own memory."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        answer, gradient = solved(input, target, **options)
        return _IntoInput.apply(input, answer, gradient, input.detach())

    return patient(FEW, loss)


FORWARD_BACKWARD = (Phase.FORWARD_BACKWARD,)

CHEATS = (
    Cheat(
        name="lazy-subclass",
        row=11,
        build=lambda: _lazy(_Lazy),
        verb="either",
        ends=DEFERRED,
        note="Returns a subclass of Tensor that computes when it is looked at.",
    ),
    Cheat(
        name="lazy-subclass-patiently",
        row=11,
        build=lambda: patient(FEW, _lazy(_Lazy)),
        ends=DEFERRED,
        note="The same from call 60 on.",
    ),
    Cheat(
        name="lazy-subclass-in-disguise",
        row=11,
        build=lambda: _lazy(_Disguised),
        verb="either",
        ends=DEFERRED,
        note="The same, with a `__class__` that says Tensor.",
    ),
    Cheat(
        name="methods-of-its-own",
        row=11,
        build=lambda: patient(FEW, _methods_of_its_own()),
        ends=DEFERRED,
        note="Returns a plain tensor with its own `detach`, `item` and `backward`.",
    ),
    Cheat(
        name="backward-of-its-own",
        row=11,
        build=_no_backward,
        ends=DEFERRED,
        phases=FORWARD_BACKWARD,
        note="Returns a plain tensor whose `backward` does nothing.",
    ),
    Cheat(
        name="methods-of-all-tensors",
        row=11,
        build=_patched_methods,
        verb="either",
        ends=DEFERRED,
        note="Patches the methods that read a tensor.",
    ),
    Cheat(
        name="one-buffer-for-all-answers",
        row=15,
        build=_one_buffer,
        ends=ALIASED | {Status.RAISED},
        note="Returns every loss in the same memory, from call 60 on.",
    ),
    Cheat(
        name="one-buffer-for-all-rows",
        row=15,
        build=_one_buffer,
        ends=ALIASED,
        problems=(EACH_ROW,),
        phases=(Phase.FORWARD,),
        note="The same, for the losses of all rows.",
    ),
    Cheat(
        name="answer-inside-the-logits",
        row=15,
        build=_inside_the_input,
        ends=ALIASED | TAMPERED,
        note="Returns the loss in the memory of the first logit.",
    ),
    Cheat(
        name="one-buffer-for-all-gradients",
        row=15,
        build=_one_gradient_buffer,
        ends=ALIASED,
        phases=FORWARD_BACKWARD,
        note="Returns every gradient in the same memory.",
    ),
    Cheat(
        name="gradient-inside-the-logits",
        row=15,
        build=_gradient_over_the_logits,
        ends=ALIASED | TAMPERED,
        phases=FORWARD_BACKWARD,
        note="Returns the gradient in the memory of the logits.",
    ),
)
