"""What a phase costs in memory: the worker's word on torch's allocator, beside what the system says of the worker.

A worker could lie, and torch's allocator does not see what a kernel takes elsewhere (mmap, its own pools, NumPy). So of
large problems the worker makes one more call, and this process reads the highest resident size that it reached. Small
problems drown in the pages of everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xentbench.spec import Phase, Problem
    from xentbench.workers import Worker

PROC: Final = Path("/proc")
LEAST_LOGITS_BYTES: Final = 16 * 2**20
"""Of a problem whose resident size is read."""
OUTSIDE_SHARE: Final = 0.1
OUTSIDE_BYTES: Final = 4 * 2**20
"""Resident size beyond the allocator's peak by more than this share of it and these bytes is labelled."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """What one phase costs in memory.

    Attributes:
        peak_bytes: most bytes of torch's allocator at any moment beyond what was held before.
        saved_bytes: what a forward with grad keeps for its backward, less the loss; None without grad.
        is_steady: whether two successive readings agreed.
        delegates: whether the reference operator ran.
        kept_bytes: of tensors that the implementation holds between calls.
        peak_resident_bytes: growth of the worker's resident size at its highest in one more call, as the system tells;
            None for small problems, on accelerators, and where the system does not tell.
    """

    peak_bytes: int
    saved_bytes: int | None = None
    is_steady: bool = True
    delegates: bool = False
    kept_bytes: int = 0
    peak_resident_bytes: int | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What must be known of it, which is no fault.

        `unsteady-memory`: no two readings agreed. `outside-allocator`: memory that torch's allocator did not see.
        `delegate`: the reference operator does the work. `workspace`: tensors are kept from call to call.
        """
        limit_bytes = (1 + OUTSIDE_SHARE) * self.peak_bytes + OUTSIDE_BYTES
        outside = self.peak_resident_bytes is not None and self.peak_resident_bytes > limit_bytes
        told = {
            "unsteady-memory": not self.is_steady,
            "outside-allocator": outside,
            "delegate": self.delegates,
            "workspace": self.kept_bytes > 0,
        }
        return tuple(label for label, is_so in told.items() if is_so)

    def fields(self) -> dict[str, Any]:
        """Return the columns of `columns.CELL_COLUMNS` that it fills."""
        return {name: getattr(self, name) for name in ("peak_bytes", "saved_bytes", "peak_resident_bytes")}


def weigh(worker: Worker, problem: Problem, phases: Sequence[Phase]) -> dict[Phase, Weighed]:
    """Weigh each phase of the problem that the worker has been set up for; raises WorkerError as `Worker.ask`."""
    return {phase: _weigh(worker, problem, phase) for phase in phases}


def _weigh(worker: Worker, problem: Problem, phase: Phase) -> Weighed:
    reply, _ = worker.ask("memory", {"phase": phase})
    saved = reply["saved_bytes"]
    return Weighed(
        int(reply["peak_bytes"]),
        None if saved is None else int(saved),
        bool(reply["is_steady"]),
        bool(reply["delegates"]),
        int(reply["kept_bytes"]),
        peak_resident_bytes(worker, phase) if _is_large(problem) else None,
    )


def _is_large(problem: Problem) -> bool:
    return problem.device == "cpu" and problem.logits_bytes >= LEAST_LOGITS_BYTES


def peak_resident_bytes(worker: Worker, phase: Phase, proc: Path = PROC) -> int | None:
    """Return by how much the worker's resident size grew at its highest in one call, or None where nobody can tell.

    Args:
        worker: set up for a problem.
        phase: what it calls.
        proc: folder of the process file system (Linux).
    """
    worker.ask("prepare", {"phase": phase})
    before = _reset(worker.pid, proc)
    worker.ask("call")
    peak = _status_bytes(worker.pid, "VmHWM", proc)
    return None if before is None or peak is None else max(0, peak - before)


def _reset(pid: int, proc: Path) -> int | None:
    """Let the high-water mark of a process fall to its resident size; return that, or None where it is refused."""
    try:
        (proc / str(pid) / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return _status_bytes(pid, "VmRSS", proc)


def _status_bytes(pid: int, name: str, proc: Path) -> int | None:
    """Return one size of `/proc/PID/status`, e.g. of the line `VmRSS:    1234 kB`."""
    try:
        lines = (proc / str(pid) / "status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return None
