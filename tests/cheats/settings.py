"""What all arms share, changed to one's own advantage (row 21), and caches emptied for the others (row 23)."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
import threading
import time
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cheats.cheat import TAMPERED, TINY, Cheat
from cheats.clocks import blinded
from cheats.parts import FEW, SOME, nearest, right, spin
from xentbench.spec import Phase, Problem, Status

WAIT_S = 20e-6
"""What a slowed baseline waits a call."""


def _after_a_while(change: Any, calls: Any) -> Any:
    """Change something in some late calls; answer right."""
    made = [0]

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        made[0] += 1
        if made[0] in calls:
            change()
        return right(input, target, **options)

    return loss


def _slow_operator() -> Any:
    """Put a slow function in the place of the one that `F.cross_entropy` calls."""
    quick = torch._C._nn.cross_entropy_loss

    def slow(*arguments: Any, **options: Any) -> Any:
        spin(WAIT_S)
        return quick(*arguments, **options)

    torch._C._nn.cross_entropy_loss = slow
    return right


def _slow_part() -> Any:
    """Slow down a helper that `F.cross_entropy` calls."""
    quick = torch.nn._reduction.get_enum

    def slow(*arguments: Any) -> Any:
        spin(WAIT_S)
        return quick(*arguments)

    torch.nn._reduction.get_enum = slow
    return right


def _slow_code() -> Any:
    """Give `F.cross_entropy` other code, so that who bound it early is slowed too."""
    text = (
        "def cross_entropy(input, target, weight=None, size_average=None, ignore_index=-100, reduce=None,"
        " reduction='mean', label_smoothing=0.0):\n"
        "    sum(range(2000))\n"
        "    how = {'none': 0, 'mean': 1, 'sum': 2}[reduction]\n"
        "    return torch._C._nn.cross_entropy_loss(input, target, weight, how, ignore_index, label_smoothing)\n"
    )
    made: dict[str, Any] = {"torch": torch}
    exec(text, made)  # noqa: S102 - what is tried
    functional.cross_entropy.__code__ = made["cross_entropy"].__code__
    return right


def _slow_arms() -> Any:
    """Put slow functions in the place of the arms that the session holds beside."""
    found = nearest("Session")
    if found is None:
        return right
    baselines = type(found)._baselines

    def slowed(self: Any, *arguments: Any) -> Any:
        def wait(arm: Any) -> Any:
            def slow(input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
                spin(WAIT_S)
                return arm(input, target)

            return slow

        return tuple(map(wait, baselines(self, *arguments)))

    type(found)._baselines = slowed
    return right


def _spinning_thread() -> Any:
    """Leave a thread that computes whenever somebody else's call runs."""
    mine = threading.Event()

    def work() -> None:
        while True:
            if mine.is_set():
                time.sleep(1e-5)
            else:
                sum(range(500))

    started = [0]

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        started[0] += 1
        if started[0] == FEW:
            threading.Thread(target=work, daemon=True).start()
        mine.set()
        try:
            return right(input, target, **options)
        finally:
            mine.clear()

    return loss


def _profiled() -> Any:
    """Have every Python call but one's own be profiled."""

    def slow(*_: Any) -> None:
        sum(range(50))

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        sys.setprofile(None)
        try:
            return right(input, target, **options)
        finally:
            sys.setprofile(slow)

    return loss


def _mode_for_all() -> Any:
    """Push a mode that every torch function but one's own goes through."""

    class Slow(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            sum(range(200))
            return function(*args, **(kwargs or {}))

    pushed: list[Any] = []

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        if not pushed:
            pushed.append(Slow())
            pushed[0].__enter__()
        with torch._C.DisableTorchFunction():
            return right(input, target, **options)

    return loss


def _emptied_caches() -> Any:
    """Write 32 MiB when an answer is let go of, so that the next arm finds nothing in the caches."""
    trash = torch.empty(2**23)

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        answer = right(input, target, **options)
        weakref.finalize(answer, trash.fill_, 1.0)
        return answer

    return loss


def _emptied_by_thread() -> Any:
    """Leave a thread that writes 32 MiB whenever nobody waits for it."""
    trash, mine = torch.empty(2**23), threading.Event()

    def work() -> None:
        while True:
            mine.wait(1e-3)
            trash.fill_(1.0)

    started = [0]

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        started[0] += 1
        if started[0] == FEW:
            threading.Thread(target=work, daemon=True).start()
        return right(input, target, **options)

    return loss


def _environment() -> None:
    os.environ["OMP_NUM_THREADS"] = "8"


def _switch() -> None:
    sys.setswitchinterval(1e-6)


def _collector() -> None:
    gc.disable()
    gc.disable = gc.enable = lambda: None  # type: ignore[assignment]


def _pin() -> None:
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) - {min(os.sched_getaffinity(0))} or {0})


def _piling_up() -> Any:
    """Open a descriptor in every call, once there were so many calls."""
    return _after_a_while(lambda: os.dup(1), range(FEW, 2**62))


def _changing(name: str, change: Any, note: str, patience: int = FEW, **more: Any) -> Cheat:
    build = functools.partial(_after_a_while, change, (patience,))
    return Cheat(name=name, row=21, build=build, problems=(TINY,), patience=patience, note=note, **more)


CHEATS = (
    Cheat(name="baseline-operator-slowed", row=21, build=_slow_operator, verb="either", note="Patches its operator."),
    Cheat(name="baseline-helper-slowed", row=21, build=_slow_part, verb="either", note="Patches a helper of it."),
    Cheat(
        name="baseline-code-replaced", row=21, build=_slow_code, verb="either", note="Gives the baseline other code."
    ),
    Cheat(name="baseline-arms-slowed", row=21, build=_slow_arms, in_company=True, note="Patches what binds it."),
    Cheat(
        name="baseline-operator-slowed-unseen",
        row=21,
        build=blinded(_slow_operator),
        in_company=True,
        note="Patches the baseline's operator, and what would see it.",
    ),
    Cheat(name="thread-that-spins", row=21, build=_spinning_thread, note="Leaves a thread that slows other arms."),
    Cheat(name="profiles-the-others", row=21, build=_profiled, verb="either", note="Has other arms profiled."),
    Cheat(name="mode-for-the-others", row=21, build=_mode_for_all, verb="either", note="Pushes a mode for other arms."),
    _changing("threads-of-torch", lambda: torch.set_num_threads(2), "Sets two threads, at call 60."),
    _changing("default-dtype", lambda: torch.set_default_dtype(torch.bfloat16), "Sets the default dtype, at call 60."),
    _changing("denormal-numbers", lambda: torch.set_flush_denormal(True), "Sets how denormals count, at call 60."),
    _changing(
        "grad-mode",
        lambda: torch.set_grad_enabled(False),
        "Turns gradients off, at call 60.",
        phases=(Phase.FORWARD_BACKWARD,),
        ends=TAMPERED | {Status.RAISED},
    ),
    _changing("environment", _environment, "Changes the environment, at call 60."),
    _changing("signal-handlers", lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), "Ignores SIGTERM, at call 60."),
    Cheat(
        name="descriptors-pile-up",
        row=21,
        build=_piling_up,
        ends=TAMPERED | {Status.LEAKING, Status.RAISED},
        note="Opens a descriptor in every call, and closes none.",
    ),
    _changing("threads-of-torch-later", lambda: torch.set_num_threads(2), "The same at call 300.", patience=SOME),
    _changing("environment-later", _environment, "The same at call 300.", patience=SOME),
    _changing("switch-interval", _switch, "Changes the interpreter's switch interval, at call 60."),
    _changing("collector-for-ever", _collector, "Takes the garbage collector's switches away, at call 60."),
    _changing("another-core", _pin, "Moves to another core, at call 60."),
    Cheat(
        name="caches-emptied-on-release",
        row=23,
        build=_emptied_caches,
        is_promised=False,
        problems=(Problem(batch_size=64, num_classes=1000),),
        phases=(Phase.FORWARD,),
        note="Empties the caches for the next arm when its answer is let go of.",
    ),
    Cheat(
        name="caches-emptied-by-a-thread",
        row=23,
        build=_emptied_by_thread,
        problems=(Problem(batch_size=64, num_classes=1000),),
        phases=(Phase.FORWARD,),
        note="Empties the caches from a thread.",
    ),
)
