"""Time from the start of a worker to its first reply, exec'd against forked: `python benchmarks/startup.py` (a minute).

Conditions: whatever machine this runs on, quiet or not; both kinds take turns, so that drift falls on both alike. The
template's own start, which a run pays once, is told apart.
"""

from __future__ import annotations

import platform
import statistics
import time
from typing import TYPE_CHECKING

import torch

from xentbench import environment, workers

if TYPE_CHECKING:
    from xentbench.templates import Template

EXECS, FORKS_EACH = 6, 2


def main() -> None:
    """Print the medians, their ratio and the conditions."""
    template = workers.template({})
    if template is None:
        print("templates need Linux without an accelerator: workers are exec'd here")
        return
    first_s = first_reply_s(template)
    execs_s: list[float] = []
    forks_s: list[float] = []
    for _ in range(EXECS):
        execs_s.append(first_reply_s(None))
        forks_s += [first_reply_s(template) for _ in range(FORKS_EACH)]
    tell("template and its first fork", [first_s])
    tell("exec'd worker", execs_s)
    tell("forked worker", forks_s)
    print(f"ratio of the medians, forked / exec'd: {statistics.median(forks_s) / statistics.median(execs_s):.4f}")
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{environment.cpu_model()}, {environment.usable_cores()} cores, {versions}")


def first_reply_s(template: Template | None) -> float:
    """Start a worker, greet it, end it; return the seconds from start to reply."""
    start_s = time.perf_counter()
    with workers.Worker(template=template) as worker:
        worker.ask("hello")
        return time.perf_counter() - start_s


def tell(what: str, times_s: list[float]) -> None:
    """Print the median and the range of some times in seconds."""
    middle, low, high = statistics.median(times_s), min(times_s), max(times_s)
    print(f"{what}: {middle:.3f} s (median of {len(times_s)}, {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
