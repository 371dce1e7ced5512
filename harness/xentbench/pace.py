"""Deadlines that a busy or slow machine does not bring forward.

A limit is what something may take on a machine that is as fast as the one it was set on, and idle. Time for which the
worker was ready to run and had no processor does not count (Linux tells it to the nanosecond), and the rest counts in
units of how long a fixed computation takes here. Both are looked at only once the limit itself has passed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

NOMINAL_S: Final = 0.008
"""CPU time of `computation_s` where the limits were set: AMD EPYC, CPython 3.11."""
MOST: Final = 20.0
"""A limit is never made longer than by this factor: a hang ends on any machine."""
PROC: Final = Path("/proc")
_LOOPS: Final = 250_000


def computation_s() -> float:
    """Return the CPU time that a fixed computation takes now, in seconds."""
    start_s = time.thread_time()
    total = 0
    for number in range(_LOOPS):
        total += number & 7
    return time.thread_time() - start_s


def slowness() -> float:
    """Return how many times as long as nominal this machine takes for the same work; at least 1."""
    return max(1.0, computation_s() / NOMINAL_S)


def waited_s(pid: int, proc: Path = PROC) -> float:
    """Return for how long a process was ready to run and had no processor, in seconds, in the thread that waited most.

    Where the system does not tell, 0.
    """
    try:
        threads = [(task / "schedstat").read_text(encoding="ascii") for task in (proc / str(pid) / "task").iterdir()]
        return max((int(text.split()[1]) for text in threads), default=0) * 1e-9
    except (OSError, ValueError, IndexError):
        return 0.0


def crowding(proc: Path = PROC) -> float:
    """Return by how much more work than processors there is, at least 1, where waiting is not told; else 1."""
    if (proc / "self" / "schedstat").exists():
        return 1.0
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Deadline:
    """When something has to have ended.

    Args:
        limit_s: on an idle machine as fast as the one that limits were set on.
        waited_s: for how long whoever it is for has been kept from a processor, in all.
        slowness: how slow this machine is now.
        now_s: the parent's clock.
    """

    def __init__(
        self,
        limit_s: float,
        waited_s: Callable[[], float] = lambda: 0.0,
        slowness: Callable[[], float] = lambda: 1.0,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit_s = limit_s
        self._waited_s, self._slowness, self._now_s = waited_s, slowness, now_s
        self._start_s, self._waited_before_s = now_s(), waited_s()
        self._allowed_s = limit_s

    def left_s(self) -> float:
        """Return the seconds that are left, 0 or less where there are none; that alone makes it look at the machine."""
        spent_s = self._now_s() - self._start_s
        if spent_s >= self._allowed_s:
            waited_s = max(0.0, self._waited_s() - self._waited_before_s)
            allowed_s = min(self.limit_s * self._slowness() + waited_s, self.limit_s * MOST)
            self._allowed_s = max(self._allowed_s, allowed_s)
        return self._allowed_s - spent_s

    @property
    def factor(self) -> float:
        """How many times as long as its limit it was made so far."""
        return self._allowed_s / self.limit_s
