"""What the clock needs of a device other than the CPU: wait for it, mark moments on it, empty its cache.

`Accelerator` speaks `torch.accelerator`, which CUDA, ROCm, XPU and MPS builds provide alike.
"""

from __future__ import annotations

from typing import Final, Protocol

import torch

UNKNOWN_CACHE_BYTES: Final = 128 * 2**20
"""Taken for a last-level cache of which torch tells no size: more than any device had in 2025."""


class Device(Protocol):
    """A device whose work is queued: the host runs ahead of it."""

    def synchronize(self) -> None:
        """Wait for all queued work of all streams."""

    def mark(self) -> torch.Event:
        """Queue an event behind the work of the current stream."""

    def between_ns(self, first: torch.Event, second: torch.Event) -> int:
        """Return the device's own time between two events that have happened, in nanoseconds."""

    def flush(self) -> None:
        """Overwrite twice the size of the last-level cache, and wait."""


class Accelerator:
    """A device that torch knows as `torch.device(name)`."""

    def __init__(self, name: str) -> None:
        self._device = torch.device(name)
        self._waste: torch.Tensor | None = None

    def synchronize(self) -> None:
        """Wait for all queued work of all streams."""
        torch.accelerator.synchronize(self._device)

    def mark(self) -> torch.Event:
        """Queue an event behind the work of the current stream."""
        event = torch.Event(self._device, enable_timing=True)
        event.record(torch.accelerator.current_stream(self._device))
        return event

    def between_ns(self, first: torch.Event, second: torch.Event) -> int:
        """Return the device's own time between two events that have happened, in nanoseconds."""
        return round(first.elapsed_time(second) * 1e6)  # torch tells milliseconds

    def flush(self) -> None:
        """Overwrite twice the size of the last-level cache, and wait."""
        if self._waste is None:
            self._waste = torch.empty(2 * cache_bytes(self._device), dtype=torch.uint8, device=self._device)
        self._waste.zero_()
        self.synchronize()


def cache_bytes(device: torch.device) -> int:
    """Return the size of a device's last-level cache as torch tells it, or `UNKNOWN_CACHE_BYTES`."""
    if device.type != "cuda":
        return UNKNOWN_CACHE_BYTES
    return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)) or UNKNOWN_CACHE_BYTES
