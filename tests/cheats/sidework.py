"""Work that goes on beside the call or after it (row 12)."""

from __future__ import annotations

import mmap
import os
import queue
import threading
import time
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from cheats.cheat import DEFERRED, GRADIENT, STALE, TAMPERED, Cheat
from cheats.parts import FEW, given, patient, right, solved
from xentbench.spec import Phase, Problem, Status

ENDS = DEFERRED | STALE | TAMPERED
WIDE = Problem(batch_size=512, num_classes=1000)


def _thread_a_call() -> Any:
    """Have a thread write the answer, a little after the call has returned."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        answer, gradient = torch.zeros(()), torch.zeros_like(input.detach())
        values, labels = input.detach(), target

        def compute() -> None:
            found = solved(values, labels, **options)
            answer.copy_(found[0])
            gradient.copy_(found[1])

        threading.Thread(target=compute, daemon=True).start()
        return _Later.apply(input, answer, gradient)

    return patient(FEW, loss)


class _Later(Function):
    """An answer and a gradient whose memory is filled by somebody else."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, answer: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return answer.view(answer.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        return ctx.gradient.view(ctx.gradient.shape), None, None


def _one_thread() -> Any:
    """Have one thread that lives on write the answers, in turn."""
    jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
    started = [False]

    def work() -> None:
        while True:
            answer, gradient, values, labels, options = jobs.get()
            found = solved(values, labels, **options)
            answer.copy_(found[0])
            gradient.copy_(found[1])

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        if not started[0]:
            started[0] = True
            threading.Thread(target=work, daemon=True).start()
        answer, gradient = torch.zeros(()), torch.zeros_like(input.detach())
        jobs.put((answer, gradient, input.detach(), target, options))
        return _Later.apply(input, answer, gradient)

    return patient(FEW, loss)


def _idle_thread() -> Any:
    """Leave a thread behind that does nothing yet, and answer right."""
    made = [0]

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        made[0] += 1
        if made[0] == FEW:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        return right(input, target, **options)

    return loss


def _forked_helper() -> Any:
    """Have another process compute, through shared memory, and answer with what is there."""
    shared = mmap.mmap(-1, 2**20)
    place = torch.frombuffer(shared, dtype=torch.float32)
    flags = torch.frombuffer(shared, dtype=torch.int64)[: 2**16]
    state = {"pid": 0}

    def help_out(rows: int, classes: int) -> None:
        while True:
            if int(flags[0]):
                flags[0] = 0
                logits = place[1024 : 1024 + rows * classes].reshape(rows, classes)
                labels = flags[2**15 : 2**15 + rows]
                place[8] = float(right(logits, labels))
            time.sleep(0)

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        if not state["pid"]:
            place[8] = right(input.detach(), target, **options)
            parent = os.getpid()
            state["pid"] = os.fork()
            if not state["pid"]:
                threading.Thread(target=lambda: _die_with(parent), daemon=True).start()
                try:
                    help_out(*input.shape)
                finally:
                    os._exit(0)
        place[1024 : 1024 + input.numel()] = input.detach().reshape(-1)
        flags[2**15 : 2**15 + len(target)] = target
        flags[0] = 1
        return given(input, place[8].clone(), torch.zeros_like(input.detach()))

    return patient(FEW, loss)


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(0)


def _on_release() -> Any:
    """Compute when the answer is let go of: the memory is right a little later."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        with torch.no_grad():
            answer = torch.full((), 2.5)
        values = input.detach()
        result = _Later.apply(input, answer, torch.zeros_like(values))
        weakref.finalize(result, lambda: right(values, target, **options))
        return result

    return patient(FEW, loss)


def _gradient_later() -> Any:
    """Answer right, and have a thread fill in the gradient."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        with torch.no_grad():
            answer = right(input, target, **options)
        gradient, values = torch.zeros_like(input.detach()), input.detach()
        threading.Thread(target=lambda: gradient.copy_(solved(values, target, **options)[1]), daemon=True).start()
        return _Later.apply(input, answer, gradient)

    return patient(FEW, loss)


def _two_threads_of_torch() -> Any:
    """Have torch use two threads in its own calls, and one again after them."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        torch.set_num_threads(2)
        try:
            return right(input, target, **options)
        finally:
            torch.set_num_threads(1)

    return loss


CHEATS = (
    Cheat(
        name="thread-computes-later",
        row=12,
        build=_thread_a_call,
        ends=ENDS,
        note="Returns zeros that a thread overwrites a little later.",
    ),
    Cheat(
        name="one-thread-computes-later",
        row=12,
        build=_one_thread,
        ends=ENDS,
        note="The same with one thread that lives on.",
    ),
    Cheat(
        name="thread-left-behind",
        row=12,
        build=_idle_thread,
        ends=TAMPERED | {Status.LEAKING},
        note="Answers right, and leaves a thread behind at call 60.",
    ),
    Cheat(
        name="process-computes-beside",
        row=12,
        build=_forked_helper,
        ends=ENDS | GRADIENT,
        note="Forks a helper that computes in shared memory, and answers with what is there.",
    ),
    Cheat(
        name="computed-on-release",
        row=12,
        build=_on_release,
        ends=ENDS,
        note="Computes when its answer is let go of, after the clock has stopped.",
    ),
    Cheat(
        name="gradient-filled-in-later",
        row=12,
        build=_gradient_later,
        ends=GRADIENT | ENDS,
        phases=(Phase.FORWARD_BACKWARD,),
        note="Answers right; a thread fills in the gradient.",
    ),
    Cheat(
        name="two-threads-of-torch",
        row=12,
        build=_two_threads_of_torch,
        problems=(WIDE,),
        phases=(Phase.FORWARD,),
        note="Has torch use two threads in its own calls only.",
    ),
)
