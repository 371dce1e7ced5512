"""Clocks that leave out the cheat's own work, and times that are altered later (rows 9 and 24)."""

from __future__ import annotations

import ctypes
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cheats.cheat import SMALL, TAMPERED, Cheat
from cheats.parts import nearest, right
from xentbench.spec import Phase, Status

SHARE = 0.9
"""Of its own time that a cheat hides."""


class _Hidden:
    """A clock that runs on, but for a share of what its owner's calls take."""

    def __init__(self, read: Any = time.perf_counter_ns, share: float = SHARE) -> None:
        self.read, self.share, self.hidden_ns = read, share, 0

    def __call__(self, *_: Any) -> int:
        return self.read() - self.hidden_ns

    def loss(self, input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        start = self.read()
        answer = right(input, target, **options)
        self.hidden_ns += int(self.share * (self.read() - start))
        return answer


def _in_time_module(*names: str) -> Any:
    def build() -> Any:
        hidden = _Hidden()
        for name in names:
            setattr(time, name, hidden if name.endswith("_ns") else lambda: hidden() * 1e-9)
        return hidden.loss

    return build


def _in_the_clock() -> Any:
    """Replace the readings of the clock that the session holds; frozen records can be written to all the same."""
    hidden, session = _Hidden(), nearest("Session")
    if session is not None:
        for name in ("now_ns", "cpu_ns", "busy_ns"):
            object.__setattr__(session.clock, name, hidden)
    return hidden.loss


def blinded(build: Any) -> Any:
    """Have nothing in the worker see a change, and go on from there."""

    def loss() -> Any:
        for name, module in list(sys.modules.items()):
            for value in list(vars(module).values()) if name.startswith("xentbench.worker") else ():
                if isinstance(value, type) and "changes" in vars(value):
                    value.changes = lambda self: []  # type: ignore[attr-defined]
        return build()

    return loss


def _clock_class() -> Any:
    """Have every clock that is made for a duel be another."""
    hidden, clock = _Hidden(), sys.modules["xentbench.worker.clock"].Clock

    def on(self: Any, device: Any) -> Any:
        object.__setattr__(self, "now_ns", hidden)
        return self

    clock.on = on
    return hidden.loss


def _in_place(share: float = SHARE) -> Any:
    """Let the very function object `time.perf_counter_ns` run other code: who bound it early has it too."""
    hidden = _Hidden(lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC), share)
    kind = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p)
    hidden.kept = kind(lambda *_: hidden())  # type: ignore[attr-defined]
    for function in (time.perf_counter_ns, time.monotonic_ns, time.thread_time_ns):
        definition = ctypes.c_void_p.from_address(id(function) + 2 * ctypes.sizeof(ctypes.c_void_p)).value or 0
        method = ctypes.c_void_p.from_address(definition + ctypes.sizeof(ctypes.c_void_p))
        method.value = ctypes.cast(hidden.kept, ctypes.c_void_p).value  # type: ignore[attr-defined]
    return hidden.loss


def _always_the_same() -> Any:
    """Have a call take ten nanoseconds: less than the machine can do."""
    session, ticks = nearest("Session"), iter(range(0, 2**62, 10))
    if session is not None:
        object.__setattr__(session.clock, "now_ns", lambda: next(ticks) + time.monotonic_ns() // 10**6 * 10**6)
    return right


def _visits() -> Any:
    """Have a visit say a tenth of what it took for this arm alone."""
    duel = sys.modules["xentbench.worker.duel"].Duel
    one = duel._one

    def shortened(self: Any, arm: Any, *arguments: Any) -> Any:
        took = one(self, arm, *arguments)
        if arm is self.arms[1]:
            first, *rest = took if isinstance(took, tuple) else (took,)
            return (first // 10, *rest)
        return took

    duel._one = shortened
    return right


def _tenth(table: Any) -> Any:
    """Return a table of times in which this arm's are a tenth."""
    changed = table.copy() if isinstance(table, np.ndarray) else table.clone()
    if changed.ndim == 2 and changed.shape[1] == 3 and len(changed):
        changed[:, 1] = changed[:, 1] // 10
    return changed


def _sent_tensors() -> Any:
    """Shorten times where they are made tensors, to be sent."""
    make = torch.from_numpy
    torch.from_numpy = lambda table: make(_tenth(table) if table.dtype == np.int64 and table.ndim == 2 else table)
    return right


def _channel() -> Any:
    """Shorten times where they are sent."""
    channel = sys.modules["xentbench.worker.wire"].Channel
    send = channel.send

    def altered(self: Any, record: Any, tensors: Any = None, within_s: Any = None) -> None:
        tensors = {name: _tenth(value) if name == "wall_ns" else value for name, value in (tensors or {}).items()}
        send(self, record, tensors, within_s)

    channel.send = altered
    return right


def _array() -> Any:
    """Shorten times where numpy gathers them."""
    make = np.array

    def gathered(values: Any, *arguments: Any, **options: Any) -> Any:
        table = make(values, *arguments, **options)
        if table.ndim == 3 and table.shape[1] == 3 and isinstance(values, list):
            table[:, 1, 0] //= 10
        return table

    np.array = gathered
    return right


def _json() -> Any:
    """Alter totals where they are written as JSON."""
    dumps = json.dumps

    def altered(value: Any, *arguments: Any, **options: Any) -> str:
        if isinstance(value, dict) and "elapsed_ns" in value:
            value = {**value, "elapsed_ns": int(value["elapsed_ns"]) // 2, "cpu_ns": int(value["cpu_ns"]) // 2}
        return dumps(value, *arguments, **options)

    json.dumps = altered
    return right


def _statistics() -> Any:
    """Have every process that computes a median find half of it; the parent is another process."""
    median = np.median
    np.median = lambda *arguments, **options: 0.5 * median(*arguments, **options)
    return right


CHEATS = (
    Cheat(
        name="clock-of-the-time-module",
        row=9,
        build=_in_time_module("perf_counter_ns", "perf_counter"),
        verb="either",
        note="Replaces `time.perf_counter_ns` by a clock that leaves out its own work.",
    ),
    Cheat(
        name="monotonic-and-thread-clocks",
        row=9,
        build=_in_time_module("monotonic", "monotonic_ns", "thread_time_ns", "process_time_ns"),
        verb="either",
        note="Replaces the other clocks of the time module.",
    ),
    Cheat(name="clock-of-the-session", row=9, build=_in_the_clock, note="Writes into the frozen clock of the session."),
    Cheat(name="clock-of-every-duel", row=9, build=_clock_class, note="Patches the class of the clock."),
    Cheat(
        name="clock-rewritten-in-place",
        row=9,
        build=_in_place,
        ends=TAMPERED | {Status.CRASHED},
        note="Rewrites the code behind `time.perf_counter_ns`, so that whoever bound it early is cheated too.",
    ),
    Cheat(
        name="clock-rewritten-modestly",
        row=9,
        build=lambda: _in_place(0.5),
        is_promised=False,
        ends=TAMPERED | {Status.CRASHED},
        note="The same, hiding half of what its calls take.",
    ),
    Cheat(
        name="clock-of-the-session-unseen",
        row=9,
        build=blinded(_in_the_clock),
        note="Writes into the clock of the session, having patched what would see it.",
    ),
    Cheat(
        name="visits-shortened-unseen",
        row=9,
        build=blinded(_visits),
        note="Has visits tell a tenth, having patched what would see it.",
    ),
    Cheat(name="visits-shortened", row=9, build=_visits, note="Patches the duel's visit to tell a tenth."),
    Cheat(name="times-shortened-as-tensors", row=9, build=_sent_tensors, note="Patches `torch.from_numpy`."),
    Cheat(name="times-shortened-as-arrays", row=9, build=_array, note="Patches `numpy.array`."),
    Cheat(name="times-shortened-on-the-pipe", row=9, build=_channel, note="Patches the channel to tell a tenth."),
    Cheat(name="totals-altered-as-json", row=9, build=_json, note="Patches `json.dumps` to halve a burst's totals."),
    Cheat(
        name="medians-halved",
        row=9,
        build=_statistics,
        verb="either",
        note="Patches `numpy.median`, where statistics might be computed.",
    ),
    Cheat(
        name="ten-nanoseconds",
        row=24,
        build=_always_the_same,
        problems=(SMALL,),
        labels=frozenset({"below-floor"}),
        note="Has the clock show less than the machine can do.",
    ),
    Cheat(
        name="below-the-floor-at-size",
        row=24,
        build=_visits,
        phases=(Phase.FORWARD,),
        labels=frozenset({"below-floor"}),
        note="Tells a tenth of its time.",
    ),
)
