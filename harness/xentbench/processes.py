"""What the system tells of another process, and what it holds it to: sizes, descriptors, threads, a cap on memory."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds: resident bytes, descriptors, threads."""

    resident_bytes: int
    descriptors: int
    threads: int


def held(pid: int, proc: Path = PROC) -> Held | None:
    """Return what a process holds now, or None where the system does not tell."""
    place = proc / str(pid)
    resident_bytes = size_bytes(pid, "VmRSS", proc)
    try:
        descriptors, threads = (len(os.listdir(place / name)) for name in ("fd", "task"))  # noqa: PTH208 - names alone
    except OSError:
        return None
    return None if resident_bytes is None else Held(resident_bytes, descriptors, threads)


def size_bytes(pid: int, name: str, proc: Path = PROC) -> int | None:
    """Return one size of `/proc/PID/status`, e.g. of the line `VmRSS:    1234 kB`."""
    try:
        lines = (proc / str(pid) / "status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return None


def limit_memory(pid: int, budget_bytes: int | None, proc: Path = PROC) -> int:
    """Let a process take so many bytes of memory beyond what it holds now; return how many, 0 where there is no cap.

    Counted are its private writable pages (Linux, RLIMIT_DATA): reserved addresses and shared libraries are not.
    """
    if sys.platform != "linux":
        return 0
    import resource  # noqa: PLC0415 - `prlimit` is Linux's

    data = size_bytes(pid, "VmData", proc)
    if budget_bytes is not None and data is None:
        return 0
    with contextlib.suppress(OSError):  # it has gone: who asks it will be told how
        _, most = resource.prlimit(pid, resource.RLIMIT_DATA)
        wanted = most if budget_bytes is None or data is None else data + budget_bytes
        allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.prlimit(pid, resource.RLIMIT_DATA, (allowed, most))
        return budget_bytes or 0
    return 0
