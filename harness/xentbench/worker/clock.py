"""The clock as a value: it knows its own resolution and overhead, is injected, and is faked in tests."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from xentbench.worker.device import Device


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time, CPU time of the calling thread, and the time that the processor or device was busy.

    Attributes:
        now_ns: monotonic wall time, in nanoseconds.
        cpu_ns: CPU time of this thread, in nanoseconds.
        resolution_ns: smallest difference that the wall clock can show.
        overhead_ns: median time between two successive readings: what every timed call carries.
        busy_ns: a count that rises by what was worked between two readings of `now_ns`: CPU time, or a device's own.
        flush: overwrites a device's last-level cache; None on the CPU.
    """

    now_ns: Callable[[], int]
    cpu_ns: Callable[[], int]
    resolution_ns: float
    overhead_ns: float
    busy_ns: Callable[[], int]
    flush: Callable[[], None] | None = None

    def on(self, device: Device | None) -> Clock:
        """Return a clock that waits for a device before every reading, so that queued work counts; None: no device."""
        if device is None:
            return self
        readings = _DeviceReadings(device, self.now_ns)
        return dataclasses.replace(self, now_ns=readings.now_ns, busy_ns=readings.busy_ns, flush=device.flush)

    @classmethod
    def system(cls, readings: int = 1001) -> Clock:
        """Return this machine's clock, its overhead measured over so many readings."""
        now_ns = time.perf_counter_ns
        cpu_ns = getattr(time, "thread_time_ns", time.process_time_ns)
        gaps = sorted(-(now_ns() - now_ns()) for _ in range(readings))
        return cls(
            now_ns=now_ns,
            cpu_ns=cpu_ns,
            resolution_ns=time.get_clock_info("perf_counter").resolution * 1e9,
            overhead_ns=float(gaps[readings // 2]),
            busy_ns=cpu_ns,
        )


class _DeviceReadings:
    """Wall time around all of a device's queued work, and its own time between events inside the same window."""

    def __init__(self, device: Device, wall_ns: Callable[[], int]) -> None:
        self._device, self._wall_ns, self._total_ns = device, wall_ns, 0
        self._opened = self._closed = self._next = device.mark()
        device.synchronize()

    def now_ns(self) -> int:
        """Wait for every stream of the device, then read; the next window's first event follows the reading."""
        opened, self._closed = self._next, self._device.mark()
        self._device.synchronize()
        now = self._wall_ns()
        self._opened, self._next = opened, self._device.mark()
        return now

    def busy_ns(self) -> int:
        """Return a count that rises by the time between the events of the last window."""
        self._total_ns += self._device.between_ns(self._opened, self._closed)
        return self._total_ns
