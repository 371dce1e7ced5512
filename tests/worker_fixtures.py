"""Stand-ins that several tests share: a clock that advances as told, plugin files, a machine that is busy."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xentbench.worker.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

NEIGHBOURS: Final = 2
"""Processes that keep a loaded core busy."""


def ticking_clock(step_ns: int = 10) -> Clock:
    """Return a clock that advances by the same step at every reading."""
    wall, cpu = itertools.count(step=step_ns), itertools.count(step=step_ns)
    return Clock(lambda: next(wall), lambda: next(cpu), 1.0, float(step_ns), lambda: next(cpu))


def plugin(folder: Path, text: str, name: str = "losses.py") -> Path:
    """Write a plugin file and return its path."""
    file = folder / name
    file.write_text("import torch\nfrom torch.nn import functional as F\nfrom xentbench import implementation\n" + text)
    return file


def eventually_gone(pid: int) -> bool:
    """Wait up to five seconds for a process to end; one that nobody waits for any more counts as ended."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


ONE_GOOD = """
@implementation("good")
def good(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    '''A right one.'''
    return F.cross_entropy(input, target, weight, ignore_index=ignore_index, reduction=reduction,
                           label_smoothing=label_smoothing)
"""


def heed_interrupts() -> None:
    """Let a child process be interrupted though these tests run in the background of a shell, which ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def loaded_core() -> Iterator[None]:
    """Pin this process, and all that it starts from now on, to one core that others keep busy."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(NEIGHBOURS)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
