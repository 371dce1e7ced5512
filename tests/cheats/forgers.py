"""Records that the harness did not write, and pipes that lead elsewhere (row 22)."""

from __future__ import annotations

import atexit
import json
import os
import stat
import struct
import sys
import threading
from typing import Any

import numpy as np
from torch import Tensor

from cheats.cheat import FORGED, STALE, TINY, Cheat
from cheats.parts import FEW, SOME, nearest, right
from xentbench.spec import Status


def _burst_record() -> bytes:
    """Return a record that a worker might send after a burst: a tenth of the time, and typical losses."""
    rounds = 50
    tables = {
        "wall_ns": np.tile(np.array([[50_000, 5_000, 50_000]], dtype=np.int64), (rounds, 1)),
        "busy_ns": np.zeros((0, 3), dtype=np.int64),
        "faults": np.zeros((0, 3), dtype=np.int64),
        "losses": np.full((rounds, 1), np.log(10) + 0.5),
    }
    listing = [[name, str(table.dtype), list(table.shape)] for name, table in tables.items()]
    totals = {"elapsed_ns": 25_000_000, "cpu_ns": 25_000_000, "changed": [], "leaks": ""}
    text = json.dumps({"ok": True, **totals, "tensors": listing}).encode()
    return struct.pack(">I", len(text)) + text + b"".join(table.tobytes() for table in tables.values())


def _pipes() -> list[int]:
    """Return the descriptors of pipes that can be written to."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers
        try:
            if stat.S_ISFIFO(os.fstat(int(name)).st_mode) and int(name) > 2:
                os.write(int(name), b"")
                found.append(int(name))
        except OSError:
            continue
    return found


def _write_all(data: bytes) -> None:
    for fd in _pipes():
        try:
            os.write(fd, data)
        except OSError:
            continue


def _writes(data: Any, calls: int, *, leaves: bool = False) -> Any:
    """Write into every pipe in one late call, and leave or go on."""
    made = [0]

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        made[0] += 1
        if made[0] == calls:
            _write_all(data())
            if leaves:
                os._exit(0)
        return right(input, target, **options)

    return loss


def _exits(calls: int) -> Any:
    made = [0]

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        made[0] += 1
        if made[0] > calls:
            os._exit(0)
        return right(input, target, **options)

    return loss


def _prints() -> Any:
    """Print a record on standard output and leave."""
    made = [0]

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        made[0] += 1
        if made[0] > FEW:
            os.write(1, _burst_record())
            os._exit(0)
        return right(input, target, **options)

    return loss


def _at_exit() -> Any:
    """Write a record when the interpreter ends, and end it."""
    atexit.register(lambda: _write_all(_burst_record()))
    made = [0]

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        made[0] += 1
        if made[0] > FEW:
            sys.exit(0)
        return right(input, target, **options)

    return loss


def _from_a_thread() -> Any:
    """Write records from a thread, while the main one computes."""

    def write() -> None:
        _write_all(_burst_record())

    made = [0]

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        made[0] += 1
        if made[0] == SOME:
            threading.Thread(target=write, daemon=True).start()
        return right(input, target, **options)

    return loss


def _closes() -> Any:
    """Close every descriptor but the standard ones in a late call."""
    made = [0]

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        made[0] += 1
        if made[0] == SOME:
            os.closerange(3, 256)
        return right(input, target, **options)

    return loss


def _relays() -> Any:
    """Put a process between the worker and its pipe that shortens this arm's times on their way."""
    channel = nearest("Channel")
    if channel is None:
        return right
    read, write = os.pipe()
    outside = os.dup(channel.fd_out)
    child = os.fork()
    if child:
        os.dup2(write, channel.fd_out)
        os.set_blocking(channel.fd_out, False)
        for fd in (read, write, outside):
            os.close(fd)
        return right
    try:
        os.closerange(3, min(read, outside))
        os.close(write)
        os.close(channel.fd_out) if channel.fd_out not in (read, outside) else None
        _relay(read, outside)
    except BaseException:  # noqa: BLE001 - no word from a process that nobody knows of
        os._exit(1)
    os._exit(0)


def _relay(read: int, outside: int) -> None:
    os.set_blocking(outside, True)
    with os.fdopen(read, "rb", buffering=0) as source:

        def take(count: int) -> bytes:
            data = b""
            while len(data) < count:
                part = source.read(count - len(data))
                if not part:
                    os._exit(0)
                data += part
            return data

        while True:
            size = take(4)
            text = take(struct.unpack(">I", size)[0])
            parts = [size, text]
            for name, dtype, shape in json.loads(text).get("tensors", []):
                width = {"int64": 8, "float64": 8, "float32": 4, "int32": 4, "bfloat16": 2, "float16": 2}.get(dtype, 1)
                raw = take(width * int(np.prod(shape, dtype=np.int64)))
                if name == "wall_ns" and len(shape) == 2:
                    table = np.frombuffer(raw, dtype=np.int64).reshape(shape).copy()
                    table[:, 1] //= 10
                    raw = table.tobytes()
                parts.append(raw)
            data = memoryview(b"".join(parts))
            while data:
                data = data[os.write(outside, data) :]


CHEATS = (
    Cheat(
        name="writes-its-own-burst",
        row=22,
        build=lambda: _writes(_burst_record, SOME),
        patience=SOME,
        ends=FORGED | STALE,
        problems=(TINY,),
        note="Writes a burst of its own into the pipe, and goes on.",
    ),
    Cheat(
        name="writes-its-own-burst-and-leaves",
        row=22,
        build=lambda: _writes(_burst_record, SOME, leaves=True),
        patience=SOME,
        ends=FORGED | STALE,
        problems=(TINY,),
        note="Writes a burst of its own into the pipe, and leaves with code 0.",
    ),
    Cheat(
        name="writes-noise",
        row=22,
        build=lambda: _writes(lambda: b"\xff" * 64, SOME),
        patience=SOME,
        ends=FORGED,
        problems=(TINY,),
        note="Writes what is no record into the pipe.",
    ),
    Cheat(
        name="writes-from-a-thread",
        row=22,
        build=_from_a_thread,
        patience=SOME,
        ends=FORGED | STALE,
        problems=(TINY,),
        note="Writes a burst from a thread.",
    ),
    Cheat(
        name="leaves-with-code-0",
        row=22,
        build=lambda: _exits(FEW),
        ends=FORGED,
        note="Leaves with code 0 and no answer, at call 60.",
    ),
    Cheat(
        name="prints-its-burst",
        row=22,
        build=_prints,
        ends=FORGED,
        note="Prints a burst on standard output and leaves with code 0.",
    ),
    Cheat(
        name="writes-at-exit",
        row=22,
        build=_at_exit,
        ends=FORGED | {Status.RAISED},
        note="Registers a forged record for the end of the interpreter, and ends it.",
    ),
    Cheat(
        name="closes-all-descriptors",
        row=22,
        build=_closes,
        patience=SOME,
        ends=FORGED | {Status.CRASHED},
        problems=(TINY,),
        note="Closes the harness's pipe.",
    ),
    Cheat(
        name="relays-the-pipe",
        row=22,
        build=_relays,
        verb="either",
        ends=FORGED,
        note="Puts a process between worker and pipe that shortens times.",
    ),
)
