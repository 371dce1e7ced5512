"""A template: a process that has paid for `import torch` and forks workers. `python -m xentbench.worker.template FD`.

FD is a Unix socket of whole messages. A message is the JSON of a `Start` with four descriptors: the worker's two pipe
ends, the one that takes what it prints, and its lifeline (see `keeper`), which is told no pid where there is no worker.
When the run's end of FD is shut, all workers are killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

import torch

from xentbench.worker.keeper import Keeper, adopt_orphans, die_with_parent, hold_back, leave, tell
from xentbench.worker.serving import pay_for_imports, serve

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MESSAGE_BYTES: Final = 2**18
"""More than a Unix socket takes as one message."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a worker is forked with.

    Attributes:
        environment: all of its environment variables.
        scratch: its working folder.
        core: CPU core that it is pinned to, or None.
    """

    environment: Mapping[str, str]
    scratch: str
    core: int | None

    def text(self) -> bytes:
        """Return the message that asks for it."""
        return json.dumps(dataclasses.asdict(self)).encode()


def pay() -> None:
    """Pay for what every worker would pay for, without starting a thread."""
    torch.set_num_threads(1)
    pay_for_imports()
    gc.collect()
    gc.freeze()  # a collection in a worker would copy every page that holds an object of the template


def threads() -> int:
    """Return how many threads this process has, 0 where the system does not tell.

    A fork carries over one of them, and the locks of all.
    """
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return 0


@dataclass(slots=True)
class Template(Keeper):
    """The keeper that forks workers as it is asked.

    Attributes:
        asking: socket on which forks are asked for.
    """

    asking: socket.socket = field(kw_only=True)

    def goes_on(self) -> bool:
        """Whether there is anything left to keep: more may always be asked."""
        return True

    def listening(self) -> tuple[int, ...]:
        """Descriptors that are heard beside the lifelines."""
        return (self.asking.fileno(),)

    def heard(self, ready: Collection[int]) -> bool:
        """Fork where that is asked; whether the run is still there to ask."""
        return self.asking.fileno() not in ready or self._serve_one()

    def _serve_one(self) -> bool:
        """Fork the worker of one message; whether there was one."""
        text, fds, _, _ = socket.recv_fds(self.asking, MESSAGE_BYTES, 4, socket.MSG_CMSG_CLOEXEC)
        if not text:
            return False
        *ends, lifeline = fds
        pid = self._fork(text, ends, lifeline)
        for fd in ends:
            os.close(fd)
        if pid is None:
            os.close(lifeline)
        else:
            self.lifelines[pid] = lifeline
            tell(lifeline, pid)
        return True

    def _fork(self, text: bytes, ends: list[int], lifeline: int) -> int | None:
        """Return the pid of a new worker, or None where forking is not safe or not possible."""
        start, template = Start(**json.loads(text)), os.getpid()
        if threads() != 1:
            return None
        try:
            pid = os.fork()
        except OSError:
            return None
        if pid == 0:
            for fd in (self.asking.detach(), *self._ended, lifeline, *self.lifelines.values()):
                os.close(fd)
            _work(start, ends, template)
        return pid


def _work(start: Start, ends: list[int], template: int) -> NoReturn:
    """Become the worker in this forked child: what an exec'd one is given, and nothing of the template's."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        die_with_parent(template)
        adopt_orphans()  # else they fall to the template, which cannot tell whose they are
        fd_in, fd_out, output = ends
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        hold_back()
        os.environ.clear()
        os.environ.update(start.environment)
        os.chdir(start.scratch)
        sys.path[0], tempfile.tempdir = start.scratch, None
        if start.core is not None:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, {start.core})
        serve(fd_in, fd_out)
        code = 0
    finally:  # the stack above is the template's
        leave(code)


def main(fd: int) -> None:
    """Pay once, then fork until the other end of the socket is closed."""
    adopt_orphans()
    pay()
    Template(asking=socket.socket(fileno=fd)).run()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
