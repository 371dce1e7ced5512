"""Work that is left out where the clock is believed to run (rows 4 and 13)."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import torch

from cheats.cheat import SMALL, STALE, TAMPERED, TINY, Cheat
from cheats.parts import FEW, MANY, SOME, frames, given, once_watched_no_more, patient, replaying, right, solved
from xentbench.spec import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from cheats.cheat import Build, Loss


def _replays_unless(watching: Callable[[], Callable[[Tensor], bool]]) -> Build:
    return lambda: once_watched_no_more(watching(), replaying())


def _collector() -> Callable[[Tensor], bool]:
    return lambda _: gc.isenabled()


def _stack() -> Callable[[Tensor], bool]:
    return lambda _: not any(frame.f_code.co_name == "burst" for frame in frames())


def _pinned() -> Callable[[Tensor], bool]:
    return lambda _: len(os.sched_getaffinity(0)) > 1 or os.cpu_count() == 1


def _heap_settings() -> Callable[[Tensor], bool]:
    return lambda _: "MALLOC_TOP_PAD_" not in os.environ


def _cadence() -> Callable[[Tensor], bool]:
    """Watched until twenty calls in a row came within a fifth of a second."""
    came = deque([0.0] * 20, maxlen=20)

    def watched(_: Tensor) -> bool:
        came.append(time.monotonic())
        return came[-1] - came[0] > 0.2

    return watched


def _two_storages() -> Callable[[Tensor], bool]:
    """Watched until the same two addresses were asked in turn ten times."""
    asked: deque[int] = deque(maxlen=20)

    def watched(logits: Tensor) -> bool:
        asked.append(logits.data_ptr())
        several = list(asked)
        return len(several) < 20 or len(set(several)) != 2 or len(set(several[::2])) != 1

    return watched


def _no_graph_wanted() -> Callable[[Tensor], bool]:
    """Watched while gradients are wanted, and in the first twenty calls without."""
    made = itertools.count()
    return lambda logits: torch.is_grad_enabled() or next(made) < 20


def _leaf_without_gradient() -> Callable[[Tensor], bool]:
    made = itertools.count()
    return lambda logits: logits.requires_grad or next(made) < 20


def _slow_at_first() -> Loss:
    """Take long in the first calls, so that fewer of the later ones, which replay, are ever looked at."""
    replay, made = replaying(), itertools.count()

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        if next(made) < FEW:
            time.sleep(0.001)
            return right(input, target, **options)
        return replay(input, target, **options)

    return loss


def _computed_while_primed() -> Loss:
    """Compute the timed call's answer in the untimed one before it: that storage was refreshed already."""
    follower: dict[int, tuple[Tensor, Tensor]] = {}
    ready: dict[int, tuple[Tensor, Tensor]] = {}
    last = [0]

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        here = input.data_ptr()
        if here in ready:
            return given(input, *ready.pop(here))
        if last[0] and last[0] != here:
            follower[last[0]] = input.detach(), target
        last[0] = here
        if here in follower:
            logits, labels = follower[here]
            ready[logits.data_ptr()] = solved(logits, labels, **options)
        return right(input, target, **options)

    return patient(FEW, loss)


def _reads_what_is_timed_next() -> Loss:
    """The same, but the storage that will be timed is read from the frames of the duel."""
    ready: dict[int, tuple[Tensor, Tensor]] = {}

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        if input.data_ptr() in ready:
            return given(input, *ready.pop(input.data_ptr()))
        for frame in frames():
            duel = frame.f_locals.get("self")
            if type(duel).__name__ == "Duel" and frame.f_code.co_name == "burst":
                storage = duel.pool[duel._turn]
                ready.clear()
                ready[storage.logits.data_ptr()] = solved(storage.logits, storage.target, **options)
        return right(input, target, **options)

    return loss


def _every_other_arm() -> Callable[[Tensor], bool]:
    """Watched by whoever traces or profiles: a dispatch mode, a profiler, a trace function."""

    def watched(_: Tensor) -> bool:
        with contextlib.suppress(Exception):
            if torch._C._len_torch_dispatch_stack() or torch.autograd._profiler_enabled():
                return True
        return sys.gettrace() is not None or gc.isenabled()

    return watched


CHEATS = (
    *(
        Cheat(
            name=f"skips-after-{calls}",
            row=4,
            build=lambda calls=calls: patient(calls, replaying()),
            ends=STALE,
            problems=(TINY,) if calls > FEW else (TINY, SMALL),
            patience=calls,
            note=f"Replays the answer of its shape after {calls} calls.",
        )
        for calls in (FEW, SOME, MANY)
    ),
    Cheat(
        name="skips-while-the-collector-rests",
        row=4,
        build=_replays_unless(_collector),
        ends=STALE,
        note="Replays while the garbage collector is off, as it is in bursts.",
    ),
    Cheat(
        name="skips-under-a-burst",
        row=4,
        build=_replays_unless(_stack),
        ends=STALE,
        note="Replays where a caller's function is called `burst`.",
    ),
    Cheat(
        name="skips-when-pinned",
        row=4,
        build=_replays_unless(_pinned),
        ends=STALE,
        note="Replays in a process that is pinned to one core.",
    ),
    Cheat(
        name="skips-by-heap-settings",
        row=4,
        build=_replays_unless(_heap_settings),
        ends=STALE,
        note="Replays where the environment holds the heap settings of timing workers.",
    ),
    Cheat(
        name="skips-by-cadence",
        row=4,
        build=_replays_unless(_cadence),
        ends=STALE,
        note="Replays when calls follow each other closely.",
    ),
    Cheat(
        name="skips-on-two-storages",
        row=4,
        build=_replays_unless(_two_storages),
        ends=STALE,
        note="Replays when two storages are asked in turn.",
    ),
    Cheat(
        name="skips-unless-traced",
        row=4,
        build=_replays_unless(_every_other_arm),
        ends=STALE,
        note="Replays where nobody traces, profiles or collects garbage.",
    ),
    Cheat(
        name="slow-at-first",
        row=4,
        build=_slow_at_first,
        ends=STALE,
        problems=(TINY,),
        patience=SOME,
        note="Takes a millisecond a call for sixty calls, then replays.",
    ),
    Cheat(
        name="computed-while-primed",
        row=4,
        build=_computed_while_primed,
        ends=TAMPERED | STALE,
        labels=frozenset({"primed"}),
        note="Computes the right answer for the timed storage in the untimed call before it.",
    ),
    Cheat(
        name="reads-what-is-timed-next",
        row=4,
        build=_reads_what_is_timed_next,
        ends=TAMPERED | STALE,
        labels=frozenset({"primed"}),
        note="The same, having read from the duel's frames which storage that will be.",
    ),
    Cheat(
        name="skips-without-grad",
        row=13,
        build=_replays_unless(_no_graph_wanted),
        ends=STALE,
        phases=(Phase.FORWARD_NO_GRAD,),
        note="Replays where no gradient can be asked for, after twenty such calls.",
    ),
    Cheat(
        name="skips-leaves-without-gradient",
        row=13,
        build=_replays_unless(_leaf_without_gradient),
        ends=STALE,
        phases=(Phase.FORWARD_NO_GRAD,),
        note="Replays where the logits require no gradient, after twenty such calls.",
    ),
)
