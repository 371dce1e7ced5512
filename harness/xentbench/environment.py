"""What machine, versions and settings a run had, and whether two may be compared. No host, user or path names."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

COMPARABLE: Final = ("torch", "device", "cpu", "cores", "threads", "allocator", "pinned")
"""Settings that must be equal before ratios of two runs are compared."""
PACKAGES: Final = ("torch", "numpy", "scipy", "xentbench")


def describe(*, threads: int, allocator: str, pinned: bool, device: str = "cpu") -> dict[str, Any]:
    """Return the flat record of the environment that a run keeps: versions, processor, limits and settings."""
    record: dict[str, Any] = {
        "os": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "machine": platform.machine(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "smt": {"1": "on", "0": "off"}.get(_read("/sys/devices/system/cpu/smt/active"), "unknown"),
        "container_cpu_limit": _read("/sys/fs/cgroup/cpu.max") or "none",
        "container_memory_limit": _read("/sys/fs/cgroup/memory.max") or "none",
        "memory_bytes": memory_bytes("MemTotal"),
        "compiler": "found" if shutil.which(os.environ.get("CXX", "g++")) else "none",
        "device": device,
        "threads": threads,
        "allocator": allocator,
        "pinned": pinned,
    }
    return record


def version(package: str) -> str:
    """Return the installed version of a distribution, or `absent`."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def measuring_core() -> int | None:
    """Return the core that workers are pinned to: the last allowed one, since the first takes most interrupts."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def warm_heap_available() -> bool:
    """Whether the allocator settings that keep the heap have an effect here: glibc only."""
    return platform.libc_ver()[0] == "glibc"


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def memory_bytes(field: str) -> int:
    """Return a field of `/proc/meminfo` such as `MemAvailable`, in bytes; 0 where the system does not tell."""
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def available_bytes() -> int:
    """Return the memory that may still be allocated: the system's, or the container's limit where that is less."""
    system = memory_bytes("MemAvailable") or sys.maxsize
    limit = _read("/sys/fs/cgroup/memory.max")
    used = _read("/sys/fs/cgroup/memory.current")
    return min(system, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else system


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that forbid a comparison: name to the two values."""
    return {key: (one.get(key), other.get(key)) for key in COMPARABLE if one.get(key) != other.get(key)}


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
