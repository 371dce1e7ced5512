"""What machine, versions and settings a run had, and whether two may be compared. No host, user or path names."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COMPARABLE: Final = (
    *("torch", "device", "device_model", "cpu", "cpu_capability", "cores"),
    *("threads", "pinned", "allocator", "cache", "flush_denormal"),
)
"""Settings that must be equal before ratios of two runs are compared."""
UNTOLD: Final = "not told"
PACKAGES: Final = ("torch", "numpy", "scipy", "xentbench")
RESUMABLE: Final = (*dict.fromkeys((*COMPARABLE, "python", *PACKAGES, "torch_build", "compiler")),)
"""Settings and versions that must be equal before a run goes on."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a run is timed under, as the person asked and as this machine allows.

    Attributes:
        threads: of torch in each worker.
        allocator: `warm` (glibc keeps the heap: no page faults, the steady state of training) or `cold` (the default).
        cache: `hot` (the input was touched a moment ago) or `pool` (inputs rotate, larger than the last-level cache).
        flush_denormal: whether numbers below the normal range count as zero.
        pinned: whether workers keep to one core.
    """

    threads: int = 1
    allocator: str = "warm"
    cache: str = "hot"
    flush_denormal: bool = False
    pinned: bool = True


def describe(conditions: Conditions, device: str = "cpu") -> dict[str, Any]:
    """Return the flat record of the environment that a run keeps: versions, processor, limits and settings."""
    import torch  # noqa: PLC0415 - the command line reads machine facts before it pays for torch

    record: dict[str, Any] = {
        "os": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "torch_build": (torch.version.git_version or "unknown")[:12],
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "last_level_cache_bytes": last_level_cache_bytes(),
        "cores": usable_cores(),
        "machine": platform.machine(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "smt": {"1": "on", "0": "off"}.get(_read("/sys/devices/system/cpu/smt/active"), "unknown"),
        "container_cores": container_cores(),
        "container_memory_limit": _read("/sys/fs/cgroup/memory.max") or "none",
        "memory_bytes": memory_bytes("MemTotal"),
        "compiler": "found" if shutil.which(os.environ.get("CXX", "g++")) else "none",
        "device": device,
        "device_model": ", ".join(map(device_model, device.split(","))),
        **dataclasses.asdict(conditions),
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


def container_cores() -> float | None:
    """Return how many cores' worth of time this container may use, or None where nothing limits it."""
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    if not quota.isdigit():  # the first version of control groups keeps the two apart; -1 is no limit
        quota, period = (_read(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def measuring_core(rank: int = 0) -> int | None:
    """Return the core that workers are pinned to: the last allowed one, since the first takes most interrupts.

    Args:
        rank: of the device among those that are timed side by side; each has a core of its own, where there are enough.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0), reverse=True)
    return cores[rank % len(cores)]


def last_level_cache_bytes() -> int:
    """Return the size of the largest cache that the first core sees, in bytes; 0 where the system does not tell."""
    sizes = [_read(str(path)) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=0)


def warm_heap_available() -> bool:
    """Whether the allocator settings that keep the heap have an effect here: glibc only."""
    return platform.libc_ver()[0] == "glibc"


def attainable(wanted: Conditions) -> tuple[Conditions, list[str]]:
    """Return the conditions that this machine allows, and what a person must know of them before the run."""
    notes = []
    allocator, pinned = wanted.allocator, wanted.threads == 1 and measuring_core() is not None
    if allocator == "warm" and not warm_heap_available():
        allocator = "cold"
        notes.append("the heap cannot be kept without glibc: times are of the default allocator, page faults included")
    if wanted.threads == 1 and not pinned:
        notes.append("workers cannot be pinned to a core on this system")
    if (cores := container_cores()) is not None and cores < 1:
        notes.append(f"this container has {cores:.2g} of a core: its share of the time decides what can be told")
    return dataclasses.replace(wanted, allocator=allocator, pinned=pinned), notes


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def device_model(device: str) -> str:
    """Return the name of a device such as `cpu` or `cuda:1`, as its driver gives it; else the device's own."""
    if not device.startswith("cuda"):
        return cpu_model() if device == "cpu" else device
    import torch  # noqa: PLC0415 - only where there is an accelerator to ask

    return str(torch.cuda.get_device_name(device))


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


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any], keys: Sequence[str] = COMPARABLE
) -> dict[str, tuple[Any, Any]]:
    """Return the settings that forbid a comparison, name to the two values: unlike ones, and what either leaves out."""
    told = {key: (one.get(key, UNTOLD), other.get(key, UNTOLD)) for key in keys}
    return {key: pair for key, pair in told.items() if UNTOLD in pair or pair[0] != pair[1]}


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
