"""Two processes that load the machine beside a measurement, so that it is tried where people measure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPETITORS: Final = {
    "computing": "x = 1.0\nwhile os.getppid() == parent:\n    for _ in range(10**5):\n        x = x * 1.000001 % 7.0",
    "streaming": "import numpy\nx = numpy.ones(2**23)\ny = x.copy()\nwhile os.getppid() == parent:\n    y[:] = x",
}


class Load:
    """Two competitors: one computes on the measuring core, one streams memory on another. Stopped at first.

    Args:
        core: that is measured on.
        names: of those that are wanted.
    """

    def __init__(self, core: int, names: Sequence[str] = tuple(COMPETITORS)) -> None:
        self._processes = []
        other = min(os.sched_getaffinity(0) - {core}, default=core)
        places = dict(zip(COMPETITORS, (core, other), strict=True))
        for text, where in ((COMPETITORS[name], places[name]) for name in names):
            process = subprocess.Popen([sys.executable, "-c", f"import os\nparent = {os.getpid()}\n{text}"])  # noqa: S603 - above
            os.sched_setaffinity(process.pid, {where})
            self._processes.append(process)
        time.sleep(2.0)  # for their imports
        self.press(on=False)

    def press(self, *, on: bool) -> None:
        """Let the competitors go on, or stop them where they are."""
        for process in self._processes:
            process.send_signal(signal.SIGCONT if on else signal.SIGSTOP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
