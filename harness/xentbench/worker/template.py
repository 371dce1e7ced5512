"""A template: a process that has paid for `import torch` and forks workers. `python -m xentbench.worker.template FD`.

FD is a Unix socket of whole messages. A message is the JSON of a `Start` with four descriptors: the worker's two pipe
ends, the file that takes what it prints, and its lifeline, a socket of its own. On the lifeline the template tells the
worker's pid and, once it has ended, its exit code (negative: the signal); no pid means that there is no worker. When
the run's end of a lifeline is shut, that worker and its process group are killed; when FD is, all of them. Only the
template can do this safely: a pid stays reserved until its parent has waited for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

import torch

from xentbench.worker.serving import die_with_parent, pay_for_imports, serve

if TYPE_CHECKING:
    from collections.abc import Mapping

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
class Template:
    """The loop of a template.

    Attributes:
        asking: socket on which forks are asked for.
        lifelines: pid of each worker -> descriptor of its lifeline.
    """

    asking: socket.socket
    lifelines: dict[int, int] = field(default_factory=dict)
    _ended: tuple[int, int] = field(default_factory=lambda: os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
    _shut: set[int] = field(default_factory=set)

    def run(self) -> None:
        """Fork, kill and bury workers until the run has gone; then end those that are left."""
        signal.set_wakeup_fd(self._ended[1])
        signal.signal(signal.SIGCHLD, lambda *_: None)  # never SIG_IGN: compilers run by a worker would seem to fail
        while True:
            ready = self._wait()
            if self._ended[0] in ready:
                os.read(self._ended[0], MESSAGE_BYTES)
                self._bury()
            for pid in [pid for pid, lifeline in self.lifelines.items() if lifeline in ready]:
                self._shut.add(pid)
                _kill(pid)
            if self.asking.fileno() in ready and not self._serve_one():
                break
        for pid in self.lifelines:
            _kill(pid)
            os.waitpid(pid, 0)

    def _wait(self) -> set[int]:
        poll = select.poll()
        lifelines = [lifeline for pid, lifeline in self.lifelines.items() if pid not in self._shut]
        for fd in (self.asking.fileno(), self._ended[0], *lifelines):
            poll.register(fd, select.POLLIN)
        return {fd for fd, _ in poll.poll()}

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
            _tell(lifeline, pid)
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

    def _bury(self) -> None:
        """Wait for every child that has ended, orphans of workers included; tell how the workers did."""
        while (found := _ended_child()) is not None:
            if found in self.lifelines:
                _kill(found)  # what its process group still holds, while the group's name is still its own
            _, status = os.waitpid(found, 0)
            lifeline = self.lifelines.pop(found, None)
            self._shut.discard(found)
            if lifeline is not None:
                _tell(lifeline, os.waitstatus_to_exitcode(status))
                os.close(lifeline)


def _ended_child() -> int | None:
    """Return the pid of a child that has ended and was not waited for, or None."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None


def _kill(pid: int) -> None:
    """End a child that was not waited for yet, and its process group where it has made one by now."""
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _tell(lifeline: int, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(lifeline, str(number).encode())


def _work(start: Start, ends: list[int], template: int) -> NoReturn:
    """Become the worker in this forked child: what an exec'd one is given, and nothing of the template's."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        die_with_parent(template)
        fd_in, fd_out, output = ends
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.environ.clear()
        os.environ.update(start.environment)
        os.chdir(start.scratch)
        sys.path[0], tempfile.tempdir = start.scratch, None
        if start.core is not None:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, {start.core})
        serve(fd_in, fd_out)
    except BaseException:  # noqa: BLE001 - an exec'd worker ends so too, and the stack above is the template's
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(fd: int) -> None:
    """Pay once, then fork until the other end of the socket is closed."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0)
    pay()
    Template(socket.socket(fileno=fd)).run()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
