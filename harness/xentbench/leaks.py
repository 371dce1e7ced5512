"""Does an implementation hold more after every call: memory, descriptors, threads? The system tells, not the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xentbench import processes

if TYPE_CHECKING:
    from xentbench.processes import Held
    from xentbench.spec import Problem
    from xentbench.workers import Worker

WINDOWS: Final = 3
"""What grows in every one of them goes on growing: a workspace or a cache of one answer is full after the first."""
CALLS: Final = 16
WINDOW_S: Final = 0.1
LEAST_CALLS: Final = 4
"""In a window; who takes longer is not asked."""
MOST_ELEMENTS: Final = 2**18
"""Larger problems would take long; who leaks there meets the cap on its memory."""
CALL_BYTES: Final = 128 * 2**10
"""Resident size may grow by less a call: heaps settle slowly."""


def look(worker: Worker, problem: Problem) -> str:
    """Call again and again, forward and backward; return what grows by every call, '' where nothing does.

    Raises:
        WorkerError: as `Worker.ask`.
    """
    if problem.device != "cpu" or not 0 < problem.elements <= MOST_ELEMENTS:
        return ""
    growing: set[str] | None = None
    told = ""
    _repeat(worker)
    for _ in range(WINDOWS):
        before, calls, after = processes.held(worker.pid), _repeat(worker), processes.held(worker.pid)
        if before is None or after is None or calls < LEAST_CALLS:
            return ""
        seen = grown(before, after, calls)
        growing = set(seen) if growing is None else growing & set(seen)
        if not growing:
            return ""
        told = ", ".join(f"{seen[name]:.0f} {name}" for name in sorted(growing))
    return f"every call leaves more behind: about {told} a call; expected nothing beyond the first calls"


def grown(before: Held, after: Held, calls: int) -> dict[str, float]:
    """Return what grew, in units a call: resident bytes, and descriptors or threads by every other call at least."""
    least = {"resident bytes": CALL_BYTES, "descriptors": 0.5, "threads": 0.5}
    seen = {
        "resident bytes": after.resident_bytes - before.resident_bytes,
        "descriptors": after.descriptors - before.descriptors,
        "threads": after.threads - before.threads,
    }
    return {name: count / calls for name, count in seen.items() if count / calls >= least[name]}


def _repeat(worker: Worker) -> int:
    reply, _ = worker.ask("repeat", {"calls": CALLS, "budget_s": WINDOW_S})
    return int(reply["calls"])
