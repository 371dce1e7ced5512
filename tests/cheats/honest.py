"""Honest implementations that do what cheats do too: none of them may be flagged."""

from __future__ import annotations

import gc
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.utils.checkpoint import checkpoint

from cheats.cheat import TINY, Honest
from cheats.parts import right, solved
from xentbench.spec import Phase, WorkContract

if TYPE_CHECKING:
    from cheats.cheat import Loss


class _InForward(Function):
    """Makes the gradient in forward, into new memory or over the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, over: bool) -> Tensor:
        answer, gradient = solved(logits, target)
        if over:
            gradient = logits.detach().copy_(gradient)
        ctx.save_for_backward(gradient.clone() if over else gradient)
        return answer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


def _in_forward(over: bool) -> Loss:
    return lambda input, target: _InForward.apply(input, target, over)  # noqa: A006


def _applied(function: type[Function]) -> Loss:
    """Return a loss that offers no options."""

    def loss(input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        return function.apply(input, target)

    return loss


class _WithSaved(Function):
    """Saves its probabilities, and makes the gradient of them."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        logs = torch.log_softmax(logits, -1)
        ctx.save_for_backward(logs.exp(), target)
        return -logs.gather(1, target[:, None]).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        chances, target = ctx.saved_tensors
        gradient = chances.clone()
        gradient[torch.arange(len(target)), target] -= 1.0
        return upstream * gradient / len(target), None


def _with_workspace() -> Loss:
    """Keep memory between calls, and no answers in it."""
    workspace: dict[tuple[int, ...], Tensor] = {}

    class Kept(Function):
        @staticmethod
        def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
            shape = tuple(logits.shape)
            room = workspace.setdefault(shape, torch.empty(shape, dtype=logits.dtype))
            top = logits.amax(1, keepdim=True)
            total = torch.exp(torch.sub(logits, top, out=room), out=room).sum(1).log_().add_(top[:, 0])
            ctx.save_for_backward(logits, target, total)
            return (total - logits.gather(1, target[:, None])[:, 0]).mean()

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, upstream: Tensor) -> Any:
            logits, target, total = ctx.saved_tensors
            gradient = torch.exp(logits - total[:, None])
            gradient[torch.arange(len(target)), target] -= 1.0
            return gradient.mul_(upstream / len(target)), None

    return _applied(Kept)


def _slow_first() -> Loss:
    """Build a table in the first call, which takes a third of a second."""
    built: list[Tensor] = []

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        if not built:
            time.sleep(0.3)
            built.append(torch.arange(1000))
        return right(input, target, **options)

    return loss


def _slow(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    time.sleep(0.2)
    return right(input, target, **options)


def _late_imports() -> Loss:
    """Import torch's compilers in the first call."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        if "torch._inductor.compile_fx" not in sys.modules:
            import torch._dynamo
            import torch._inductor.compile_fx  # noqa: F401 - hundreds of modules, which set what they like
        return right(input, target, **options)

    return loss


def _in_threads(input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
    """Have two threads compute half of the rows each, and wait for both."""
    halves: list[Any] = [None, None]
    wanted, parts = torch.is_grad_enabled(), (slice(None, None, 2), slice(1, None, 2))

    def compute(place: int) -> None:
        with torch.set_grad_enabled(wanted):
            halves[place] = right(input[parts[place]], target[parts[place]], reduction="sum")

    threads = [threading.Thread(target=compute, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (halves[0] + halves[1]) / len(target)


def _recomputed(input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
    if not torch.is_grad_enabled():
        return right(input, target)
    return checkpoint(right, input, target, use_reentrant=False)


def _talks(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    print("a loss of", tuple(input.shape))  # noqa: T201 - what is tried
    print("was asked", file=sys.stderr)  # noqa: T201
    warnings.warn("this loss warns", UserWarning, stacklevel=2)
    return right(input, target, **options)


def _own_generator() -> Loss:
    """Draw an order of the rows from a generator of its own; the sum is that of all of them."""
    generator = torch.Generator().manual_seed(1)

    def loss(input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        order = torch.randperm(len(target), generator=generator)
        return right(input[order], target[order])

    return loss


def _collects(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    gc.collect(0)
    return right(input, target, **options)


class _OfNumpy(Function):
    """Computes with numpy."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        values, labels = logits.detach().numpy().astype(np.float64), target.numpy()
        below = values - values.max(1, keepdims=True)
        powers = np.exp(below)
        total = powers.sum(1, keepdims=True)
        ctx.gradient = powers / total
        ctx.gradient[np.arange(len(labels)), labels] -= 1.0
        losses = np.log(total[:, 0]) - below[np.arange(len(labels)), labels]
        return torch.tensor(losses.mean(), dtype=logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        gradient = torch.from_numpy((ctx.gradient / len(ctx.gradient)).astype(np.float32))
        return upstream * gradient, None


def _scripted() -> Loss:
    """Compile with torch.jit, where it is loaded."""

    def plain(input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        losses = -torch.log_softmax(input, -1)
        return losses.gather(1, target.unsqueeze(1)).mean()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(plain)

    def loss(input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        return scripted(input, target)  # which tells no signature of its own

    return loss


def _module() -> Loss:
    """Be a module with a buffer that counts its calls."""

    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

        def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
            self.calls.add_(1)
            return right(input, target)

    return Counting()


def _in_float64(input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
    return right(input.double(), target).to(input.dtype)


HONEST = (
    Honest(
        name="gradient-in-forward",
        build=lambda: _in_forward(over=False),
        work=WorkContract(gradient_in_forward=True),
        note="Makes its gradient in forward, and says so.",
    ),
    Honest(
        name="overwrites-its-logits",
        build=lambda: _in_forward(over=True),
        work=WorkContract(gradient_in_forward=True, overwrites_input=True),
        note="Overwrites its logits, and says so.",
    ),
    Honest(name="workspace-kept", build=_with_workspace, note="Keeps memory between calls, no answers."),
    Honest(name="slow-first-call", build=_slow_first, note="Takes 0.3 s for its first call."),
    Honest(
        name="slow",
        build=lambda: _slow,
        problems=(TINY,),
        phases=(Phase.FORWARD,),
        note="Takes 0.2 s a call.",
    ),
    Honest(
        name="imports-late",
        build=_late_imports,
        problems=(TINY,),
        note="Imports torch's compilers in its first call, and uses none.",
    ),
    Honest(name="threads-joined", build=lambda: _in_threads, note="Uses threads in a call, and waits for them."),
    Honest(
        name="probabilities-saved",
        build=lambda: _applied(_WithSaved),
        note="A function of autograd that saves what it made.",
    ),
    Honest(name="recomputed", build=lambda: _recomputed, note="Recomputes its forward in backward."),
    Honest(name="talks", build=lambda: _talks, note="Prints and warns in every call."),
    Honest(name="generator-of-its-own", build=_own_generator, note="Draws random numbers of its own."),
    Honest(name="collects", build=lambda: _collects, note="Collects garbage in every call."),
    Honest(
        name="of-numpy",
        build=lambda: _applied(_OfNumpy),
        note="Computes with numpy.",
    ),
    Honest(name="scripted", build=_scripted, note="Compiled by torch.jit.script."),
    Honest(name="module-that-counts", build=_module, note="A module with a buffer."),
    Honest(name="in-float64", build=lambda: _in_float64, note="Computes in float64."),
)
