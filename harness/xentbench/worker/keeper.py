"""A keeper: the parent process of workers, which ends them with all that they started, however the run ends.

`python -m xentbench.worker.keeper LIFELINE FD_IN FD_OUT OUTPUT CORE` keeps one worker that it execs; a template
(`worker/template.py`) is a keeper of workers that it forks. Only a worker's parent can end it safely, since a pid stays
reserved until its parent has waited for it, and only a child subreaper finds what left the worker's process group.

On a worker's lifeline, a socket of its own, its keeper tells its pid and, once it has ended, its exit code (negative:
the signal). When the run's end of a lifeline is shut, that worker is killed. This module must not pay for torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Collection

NUMBER_BYTES: Final = 12
"""Width of every number that is told on a lifeline."""
BURYING_S: Final = 1.0
"""For killed processes to end: longer only where the kernel itself holds them."""
FILES: Final = 4096
"""Descriptors that a worker may hold."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


@dataclass(slots=True)
class Keeper:
    """The loop of a keeper.

    Attributes:
        lifelines: pid of each worker -> descriptor of its lifeline.
    """

    lifelines: dict[int, int] = field(default_factory=dict)
    _ended: tuple[int, int] = field(default_factory=os.pipe)
    _shut: set[int] = field(default_factory=set)

    def run(self) -> None:
        """Kill and bury workers, and do what else is asked, until there is no more to do; then end what is left."""
        for fd in self._ended:
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._ended[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # never SIG_IGN: compilers run by a worker would seem to fail
        self.bury()
        while self.goes_on():
            ready = self._wait()
            if self._ended[0] in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._ended[0], 2**16)
                self.bury()
            for pid in [pid for pid, lifeline in self.lifelines.items() if lifeline in ready]:
                self._shut.add(pid)
                kill(pid)
            if not self.heard(ready):
                break
        for pid in self.lifelines:
            kill(pid)
        end_children_but(())

    def goes_on(self) -> bool:
        """Whether there is anything left to keep."""
        return bool(self.lifelines)

    def listening(self) -> tuple[int, ...]:
        """Descriptors that are heard beside the lifelines."""
        return ()

    def heard(self, _ready: Collection[int]) -> bool:
        """Do what is asked on those descriptors; whether to go on."""
        return True

    def _wait(self) -> set[int]:
        poll = select.poll()
        lifelines = [lifeline for pid, lifeline in self.lifelines.items() if pid not in self._shut]
        for fd in (*self.listening(), self._ended[0], *lifelines):
            poll.register(fd, select.POLLIN)
        return {fd for fd, _ in poll.poll()}

    def bury(self) -> None:
        """Wait for every child that has ended; end what a worker leaves behind, and tell how it ended."""
        while (found := _ended_child()) is not None:
            pid, status = found
            lifeline = self.lifelines.pop(pid, None)
            self._shut.discard(pid)
            if lifeline is not None:
                # Whatever it started, in whatever session, is a child of this process by now.
                end_children_but(self.lifelines)
                tell(lifeline, os.waitstatus_to_exitcode(status))
                os.close(lifeline)


def _ended_child() -> tuple[int, int] | None:
    """Wait for one child that has ended; return its pid and status, or None. The rest of its group ends with it."""
    try:
        if hasattr(os, "waitid"):
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return None
            kill(found.si_pid)  # while the group's name is still its own
            return os.waitpid(found.si_pid, 0)
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def kill(pid: int) -> None:
    """End a child that was not waited for yet, and its process group where it has made one by now."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def end_children_but(kept: Collection[int]) -> None:
    """Kill and bury all other children, and theirs as they fall to this process, until none is left."""
    until_s = time.monotonic() + BURYING_S
    while strangers := [pid for pid in children() if pid not in kept]:
        for pid in strangers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > until_s:
            return
        time.sleep(0.001)


def children(proc: Path = Path("/proc")) -> list[int]:
    """Return the pids of this process's children; none where the system does not tell."""
    me = os.getpid()
    try:
        return [int(pid) for pid in (proc / f"{me}/task/{me}/children").read_text(encoding="ascii").split()]
    except OSError:
        return [int(stat.parent.name) for stat in proc.glob("[0-9]*/stat") if _parent(stat) == me]


def _parent(stat: Path) -> int | None:
    try:  # the name, in brackets, may hold anything
        return int(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None


def tell(lifeline: int, number: int) -> None:
    """Tell a number on a lifeline."""
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(lifeline, f"{number:{NUMBER_BYTES}d}".encode())


def adopt_orphans() -> None:
    """Let orphans among this process's descendants become its children (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process when its parent's thread ends (Linux); leave at once if that has happened."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def hold_back() -> None:
    """Set what every worker begins with: no core files, a bounded number of descriptors, whole lines of output."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    # Whole lines, else a crash swallows what was printed before it; anew, since a fork's streams know another file.
    sys.stdout, sys.stderr = (open(fd, "w", buffering=1, errors="backslashreplace", closefd=False) for fd in (1, 2))  # noqa: SIM115 - descriptors


def leave(code: int) -> NoReturn:
    """End this worker, with the traceback of what it failed by, if it did.

    Leaving without the interpreter's farewell saves seconds of torch's, and runs nothing that a plugin registered.
    """
    try:
        if code:
            traceback.print_exc()
    finally:  # it may have closed what it prints to
        os._exit(code)


def main(lifeline: int, fd_in: int, fd_out: int, output: int, core: int) -> None:
    """Exec one worker and keep it until it has ended or its lifeline is shut."""
    adopt_orphans()
    if core >= 0:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {core})
    worker = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "xentbench.worker", str(fd_in), str(fd_out), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=(fd_in, fd_out),
        start_new_session=True,
    )
    for fd in (fd_in, fd_out, output):
        os.close(fd)
    tell(lifeline, worker.pid)
    Keeper({worker.pid: lifeline}).run()
    os._exit(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:6]))
