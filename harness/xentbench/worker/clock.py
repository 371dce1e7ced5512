"""The clock as a value: it knows its own resolution and overhead, is injected, and is faked in tests."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall and CPU time of the calling thread.

    Attributes:
        now_ns: monotonic wall time, in nanoseconds.
        cpu_ns: CPU time of this thread, in nanoseconds.
        resolution_ns: smallest difference that the wall clock can show.
        overhead_ns: median time between two successive readings: what every timed call carries.
    """

    now_ns: Callable[[], int]
    cpu_ns: Callable[[], int]
    resolution_ns: float
    overhead_ns: float

    def on(self, synchronize: Callable[[], None] | None) -> Clock:
        """Return a clock that waits for a device before every reading, so that queued work counts; None: no device."""
        if synchronize is None:
            return self
        wall_ns = self.now_ns

        def now_ns() -> int:
            synchronize()
            return wall_ns()

        return dataclasses.replace(self, now_ns=now_ns)

    @classmethod
    def system(cls, readings: int = 1001) -> Clock:
        """Return this machine's clock, its overhead measured over so many readings."""
        now_ns = time.perf_counter_ns
        gaps = sorted(-(now_ns() - now_ns()) for _ in range(readings))
        return cls(
            now_ns=now_ns,
            cpu_ns=getattr(time, "thread_time_ns", time.process_time_ns),
            resolution_ns=time.get_clock_info("perf_counter").resolution * 1e9,
            overhead_ns=float(gaps[readings // 2]),
        )
