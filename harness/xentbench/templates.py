"""How the process of a worker comes to be: forked from a template, which has imported torch already, or exec'd.

An exec'd worker pays seconds for its imports, a fork hundredths of one. There is one template for each environment,
started when it is first wanted; it ends with this process, however that ends.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from xentbench.worker import interpreting
from xentbench.worker.keeper import NUMBER_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xentbench.worker.template import Start

LATE: Final = frozenset(
    {"TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", interpreting.VARIABLE}
)
"""Variables that are read when they are used; all others (allocator, hash seed, paths) may count at exec only."""
START_S: Final = 120.0
"""Interpreter and `import torch`, on a busy machine."""
END_S: Final = 10.0
"""For a template to tell how a killed worker ended, or to end itself; it does nothing that takes time."""
MARK: Final = ("XENTBENCH_RUN", secrets.token_hex(8))
"""An environment variable of all templates and workers, and of what they start, that tells whose they are."""
_started: Final[dict[frozenset[tuple[str, str]], Template]] = {}
_starting: Final = threading.Lock()


class Template:
    """A child process that forks workers.

    Args:
        environment: all of its environment variables; TMPDIR is its own.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._scratch = tempfile.mkdtemp(prefix="xentbench-template-")
        self._asking, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # It ends when the socket does, which needs no thread of this process to live on. The session of its own
            # keeps a Ctrl-C from it: it is what tells how the workers ended.
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "xentbench.worker.template", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=self._scratch,
                env={**environment, "TMPDIR": self._scratch},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self.pid = self._process.pid

    def fork(self, start: Start, descriptors: Sequence[int]) -> Forked | None:
        """Return a worker forked now, or None where the template has died or cannot fork.

        Args:
            start: environment, folder and core of the worker.
            descriptors: pipe ends that it reads from, writes to and prints to.
        """
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(ours)
            ours.settimeout(START_S)
            try:
                with theirs:
                    socket.send_fds(self._asking, [start.text()], [*descriptors, theirs.fileno()])
                pid = ours.recv(NUMBER_BYTES)
            except TimeoutError:
                self.kill()  # nobody else shall wait for it so long
                return None
            except OSError:
                return None
            if not pid:
                return None
            stack.pop_all()
        return Forked(int(pid), ours, self)

    def kill(self) -> None:
        """End it now, and its workers with it."""
        self._process.kill()

    def end(self) -> None:
        """End its workers and itself, and wait for that."""
        self._asking.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)


class Kept:
    """A worker that a keeper ends: as much of `subprocess.Popen` as a worker needs, told over its lifeline.

    Args:
        pid: its number.
        lifeline: this end of it.
        end_keeper: ends a keeper that does not answer.
    """

    def __init__(self, pid: int, lifeline: socket.socket, end_keeper: Callable[[], object]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lifeline, self._end_keeper, self._asking = lifeline, end_keeper, threading.Lock()

    def kill(self) -> None:
        """Have it killed, with all that it started; harmless when it has gone already."""
        with contextlib.suppress(OSError):
            self._lifeline.shutdown(socket.SHUT_WR)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended and return its exit code (negative: the signal).

        Args:
            timeout: in seconds. None is for one that was killed: a keeper that does not tell of it is ended too.

        Raises:
            subprocess.TimeoutExpired: it lives on after `timeout` seconds.
        """
        with self._asking:
            if self.returncode is None:
                self.returncode = self._told(timeout)
                self._lifeline.close()
            return self.returncode

    def _told(self, timeout: float | None) -> int:
        self._lifeline.settimeout(END_S if timeout is None else timeout)
        try:
            code = self._lifeline.recv(NUMBER_BYTES)
        except TimeoutError:
            if timeout is not None:
                raise subprocess.TimeoutExpired(str(self.pid), timeout) from None
            self._end_keeper()
            self._lifeline.settimeout(None)
            code = self._lifeline.recv(NUMBER_BYTES)
        # A keeper that died took its workers with it, and told nothing.
        return int(code) if code else -signal.SIGKILL


class Forked(Kept):
    """A worker that a template forked."""

    def __init__(self, pid: int, lifeline: socket.socket, template: Template) -> None:
        super().__init__(pid, lifeline, template.kill)
        self.keeper_pid = template.pid


class Execed(Kept):
    """A worker with an interpreter of its own, and a keeper of its own."""

    def __init__(self, start: Start, descriptors: Sequence[int]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            fds = (theirs.fileno(), *descriptors)
            core = -1 if start.core is None else start.core
            self._keeper = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "xentbench.worker.keeper", *map(str, (*fds, core))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=start.scratch,
                env=start.environment,
                pass_fds=fds,
                start_new_session=True,
            )
        self.keeper_pid = self._keeper.pid
        ours.settimeout(START_S)
        try:
            pid = ours.recv(NUMBER_BYTES)
        except BaseException:  # Ctrl-C is one
            self._keeper.kill()
            self._keeper.wait()
            ours.close()
            raise
        super().__init__(int(pid) if pid else self._keeper.pid, ours, self._keeper.kill)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and its keeper too; see `Kept.wait`."""
        code = super().wait(timeout)
        try:
            self._keeper.wait(END_S)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        return code


def of(environment: Mapping[str, str]) -> Template | None:
    """Return the template of a worker's environment, started now where there is none; None where it must be exec'd.

    That is elsewhere than on Linux, with more threads than one (a fork has the locks of all and runs only one), and
    where an accelerator is present (its driver does not outlive a fork).
    """
    if environment["OMP_NUM_THREADS"] != "1" or not _forks_here():
        return None
    key = frozenset((name, value) for name, value in environment.items() if name not in LATE)
    with _starting:
        if key not in _started:
            _started[key] = Template(dict(key))
        return _started[key]


@functools.cache
def _forks_here() -> bool:
    return sys.platform == "linux" and not torch.accelerator.is_available()


@atexit.register
def _end_all() -> None:
    for template in _started.values():
        template.end()
    end_marked()


def end_marked(proc: Path = Path("/proc")) -> None:
    """Kill what still bears the mark of this run: what a worker's keeper could not end, since the worker ended it."""
    for pid in marked(proc):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def marked(proc: Path = Path("/proc")) -> list[int]:
    """Return the pids of processes that were started with the mark of this run; none where the system does not tell."""
    mark, found = b"=".join(part.encode() for part in MARK), []
    for environ in proc.glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return found
