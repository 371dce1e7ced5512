"""The parent's side of a worker: start it, ask with a deadline, and end it with everything that it started."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from xentbench import environment, pace, processes, templates
from xentbench.pace import Deadline
from xentbench.printed import Printed
from xentbench.spec import Description, Problem, Source, Status, UsageError, inert
from xentbench.templates import Execed
from xentbench.worker import interpreting, wire
from xentbench.worker.loading import without_folders
from xentbench.worker.template import Start

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xentbench.templates import Template
    from xentbench.worker.wire import Record, Tensors

DEADLINES_S: Final[Mapping[str, float]] = {
    "hello": 120.0,  # interpreter and `import torch`, on a busy machine
    "describe": 120.0,
    "load": 120.0,
    "set-up": 60.0,
    "answer": 60.0,
    "repeat": 60.0,
    "train": 90.0,  # three times what the slow may spend
    "memory": 60.0,
    "prepare": 60.0,
    "call": 60.0,
    "begin": 60.0,
    "burst": 60.0,
    "gradient": 60.0,
    "free": 30.0,
    "stop": 5.0,
}
"""For each request, in seconds on the parent's clock, on an idle machine (see `pace`).

Budgets steer how long things take; these only end what hangs.
"""
COMPILING_S: Final = 600.0
"""Added to set-up and training of an entrant that compiles: a cold compiler on a busy machine."""
INTERPRETING_S: Final = 240.0
"""Added to all deadlines of an entrant that Triton's interpreter runs: some ten calls of thousands of programs."""
PATIENCE_S: Final = 2e-6
"""Added to the deadlines of a problem for each of its logits: the slowest honest entrant takes a tenth of it."""
LOOPING_S: Final = 2e-3
"""Added for each row or class, whichever are more: an honest entrant may loop over them in Python, call by call."""
PASSED_ON: Final = (
    "PATH",
    "HOME",
    "XDG_CACHE_HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "TMPDIR",
    "CC",
    "CXX",
    "VIRTUAL_ENV",
    "PYTHONPATH",
)
"""Environment variables that a worker inherits, with those whose name begins with CUDA; nothing else passes."""
WARM_HEAP: Final = {
    # glibc keeps and reuses freed memory: no page faults after the first calls, the steady state of training.
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
    "MALLOC_TOP_PAD_": str(256 * 2**20),
}
COPIES: Final = 64
"""So many times the logits may a worker take while it has a problem: the most honest ones hold some ten copies."""
LEAST_CAP_BYTES: Final = 4 * 2**30
"""A worker may take as much in any case: a kept heap alone has 256 MiB to spare, and compilers are not small."""
LOADING_CAP_BYTES: Final = 16 * 2**30
"""So much may it take while it loads its implementation."""
AVAILABLE_SHARE: Final = 0.75
"""Of the memory that is available, the most that any worker may take."""
TAIL: Final = 2000
"""Characters of what it printed that are shown."""
REFUSALS: Final = ("std::bad_alloc", "can't allocate memory", "Cannot allocate memory")
"""What is printed by a process that ends itself because memory was refused."""
LEAVING_S: Final = 1.0
"""For a worker to be gone after its last record."""
_ANSWER_BYTES: Final = 64 * 2**20
_LIVE: Final[weakref.WeakSet[Worker]] = weakref.WeakSet()
_ended: Final = threading.Event()


class WorkerError(Exception):
    """A request that did not end in an answer: `status` and `reason` say how."""

    def __init__(self, status: Status, reason: str, *, lost: bool = False) -> None:
        super().__init__(f"{status}: {reason}")
        self.status, self.reason, self.lost = status, reason, lost


class Worker:
    """One child process in a session of its own, with its scratch folder and its captured output.

    Args:
        environment: added to the scrubbed environment (threads, allocator regime, build caches).
        core: CPU core that it is pinned to, or None.
        template: of this environment, to fork from; without one, or where it has died, the worker is exec'd.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        core: int | None = None,
        template: Template | None = None,
    ) -> None:
        _refuse_when_ended()
        with contextlib.ExitStack() as undo:  # waiting for a template may be interrupted
            self._scratch = tempfile.mkdtemp(prefix="xentbench-worker-")
            undo.callback(shutil.rmtree, self._scratch, ignore_errors=True)
            theirs, self._channel, self._printed = _pipes()
            undo.callback(self._printed.close)
            undo.callback(self._channel.close)
            start = Start(_environment(self._scratch, environment or {}), self._scratch, core)
            try:
                self._process = (template.fork(start, theirs) if template else None) or Execed(start, theirs)
            finally:
                for fd in theirs:
                    os.close(fd)
            undo.pop_all()
        self._patience_s = self.compiling_s = self.interpreting_s = 0.0
        self._cap_bytes = 0
        self.ending: tuple[Status, str] | None = None
        self.alive = True
        _LIVE.add(self)
        if _ended.is_set():  # since it was begun
            self._end()
            _refuse_when_ended()

    def ask(
        self, verb: str, record: Mapping[str, Any] | None = None, tensors: Tensors | None = None
    ) -> tuple[Record, Tensors]:
        """Send a request and return the reply.

        Raises:
            WorkerError: the implementation failed (the worker lives on), or the worker crashed, left, hung or spoke
                nonsense (`lost`; it and its whole process group are gone).
        """
        if self.ending is not None:
            raise WorkerError(*self.ending, lost=True)
        if record and "problem" in record:
            self._expect(Problem.parse(record["problem"]))
        self.check_silence(verb)
        token = secrets.token_hex(8)
        deadline = self._deadline(verb)
        try:
            self._channel.send({"ask": verb, "token": token, **(record or {})}, tensors, deadline.left_s)
            reply, answers = self._channel.receive(deadline.left_s)
        except wire.DeadlineError:
            raise self._lose(Status.TIMED_OUT, self._overdue(verb, deadline)) from None
        except wire.ChannelClosedError:
            raise self._lose(*self._ending(verb)) from None
        except wire.MalformedError as error:
            raise self._lose(Status.FORGED, f"{verb}: {inert(str(error))}") from None
        if reply.pop("token", None) != token:
            raise self._lose(Status.FORGED, f"{verb}: a record came that answers no request")
        if reply.get("ok") is not True:
            if str(reply.get("status")) not in set(Status) - {Status.PASSED}:
                raise self._lose(Status.FORGED, f"{verb}: its reply is not of this protocol")
            raise self._failure(Status(reply["status"]), inert(str(reply.get("reason", "no reason given"))))
        return reply, answers

    def check_silence(self, verb: str) -> None:
        """Lose the worker where there is something to read that nobody has asked for; raises WorkerError then."""
        if self.alive and not self._channel.is_silent():
            raise self._lose(Status.FORGED, f"{verb}: bytes came that answer no request")

    def _deadline(self, verb: str) -> Deadline:
        limit_s = DEADLINES_S[verb] + self._patience_s + self.interpreting_s
        limit_s += self.compiling_s if verb in ("set-up", "train") else 0.0
        return Deadline(limit_s, lambda: pace.waited_s(self.pid), lambda: pace.slowness() * pace.crowding())

    def _overdue(self, verb: str, deadline: Deadline) -> str:
        longer = f" (made {deadline.factor:.1f} times as long: the machine is busy)" if deadline.factor > 1 else ""
        return f"{verb} did not end within {deadline.limit_s:.0f} s{longer}{self._tail()}"

    def _failure(self, status: Status, reason: str) -> WorkerError:
        capped = status is Status.OUT_OF_MEMORY and self._cap_bytes
        told = f"; it may take {self._cap_bytes / 2**30:.1f} GiB for this request" if capped else ""
        return WorkerError(status, f"{reason}{told}{self._tail() if status is Status.RAISED else ''}")

    @property
    def pid(self) -> int:
        """Number of its process, as its starter knows it."""
        return self._process.pid

    def cpu_s(self) -> float:
        """Return the CPU time of its main thread by the system's count, in seconds; 0 where there is none (Linux)."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text(encoding="ascii").split()[0]) * 1e-9
        except (OSError, ValueError, IndexError):
            return 0.0

    def _expect(self, problem: Problem) -> None:
        """Fit patience, memory, and how many bytes an answer may have, to a problem."""
        longest = max(problem.rows, problem.num_classes)
        self._patience_s = PATIENCE_S * problem.elements + LOOPING_S * longest
        self._channel.tensors_limit_bytes = _ANSWER_BYTES + 16 * 8 * problem.elements
        # A driver reserves whatever it likes: on a device there is no cap.
        self.cap(LEAST_CAP_BYTES + COPIES * problem.logits_bytes if problem.device == "cpu" else None)

    def cap(self, budget_bytes: int | None) -> None:
        """Let it take so much memory beyond what it holds now, never more than most of what is available; None: all."""
        if budget_bytes is not None:
            budget_bytes = min(budget_bytes, int(AVAILABLE_SHARE * environment.available_bytes()))
        self._cap_bytes = processes.limit_memory(self.pid, budget_bytes)

    def close(self) -> None:
        """Ask it to stop, then end whatever is left of it; harmless when it has gone already.

        What came after its final record is a forgery, which `ending` then tells.
        """
        if self.alive:
            with contextlib.suppress(WorkerError):
                self.ask("stop")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(LEAVING_S)
                self.check_silence("stop")
        self._end()

    def kill(self) -> None:
        """End its process group now; whoever waits for an answer of it is told that the pipe was closed."""
        # No courtesy of SIGTERM: it may be ignored, or never be seen by a loop that holds the interpreter's lock.
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close it; on an error (Ctrl-C is one) end it at once, since it may be in the middle of a request."""
        if kind is None:
            self.close()
        else:
            self.abandon()

    def abandon(self) -> None:
        """End it while another thread may be waiting for it: its descriptors stay until this process ends."""
        self.kill()
        self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _ending(self, verb: str) -> tuple[Status, str]:
        """Say how a worker ended that closed its pipe in the middle of a request."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return Status.EXITED, f"{verb}: closed its pipe and lived on{self._tail()}"
        printed = self._tail()
        if code >= 0:
            return Status.EXITED, f"{verb}: left with code {code} and no answer{printed}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        refused = -code == signal.SIGABRT and any(text in printed for text in REFUSALS)
        return (Status.OUT_OF_MEMORY if refused else Status.CRASHED), f"{verb}: {name}{printed}"

    def _lose(self, status: Status, reason: str) -> WorkerError:
        self.ending = (status, reason)
        self._end()
        return WorkerError(status, reason, lost=True)

    def _end(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self.kill()
        self._process.wait()
        self._channel.close()
        self._printed.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _tail(self) -> str:
        """Return the last of what it printed, for the reason of a failure."""
        text = self._printed.tail()[-TAIL:]
        return f"; it printed: {without_folders(text)}" if text else ""


def template(added: Mapping[str, str], *, compiles: bool = False) -> Template | None:
    """Return the template that workers of this added environment fork from, or None where they are exec'd.

    It is started now where there is none, and not waited for. An entrant that compiles has an interpreter of its own.
    """
    return None if compiles else templates.of(_environment("", added))


def _refuse_when_ended() -> None:
    if _ended.is_set():
        raise WorkerError(Status.SKIPPED, "the run was stopped")


def _pipes() -> tuple[tuple[int, int, int], wire.Channel, Printed]:
    """Return a worker's ends of three pipes, to read from, write to and print to, and what is at the other ends."""
    down_read, down_write = os.pipe()
    up_read, up_write = os.pipe()
    out_read, out_write = os.pipe()
    printed = Printed(out_read)
    return (down_read, up_write, out_write), wire.Channel(up_read, down_write, _ANSWER_BYTES, printed), printed


def _environment(scratch: str, added: Mapping[str, str]) -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith("CUDA")}
    if "PYTHONPATH" in passed:  # a worker runs in a folder of its own
        passed["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, passed["PYTHONPATH"].split(os.pathsep)))
    return {
        "TMPDIR": scratch,
        **{name: value for name, value in passed.items() if name != "TMPDIR"},
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        **build_caches(Path(scratch)),
        **dict([templates.MARK]),
        **added,
    }


def build_caches(folder: Path) -> dict[str, str]:
    """Return the settings that keep what compilers build in this folder: another implementation could poison it."""
    places = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton", "TORCH_EXTENSIONS_DIR": "extensions"}
    return {variable: str(folder / place) for variable, place in places.items()}


@contextlib.contextmanager
def stoppable(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads that ask workers; an error in this thread (Ctrl-C is one) ends all workers and jobs."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    except BaseException:
        _ended.set()
        for worker in list(_LIVE):
            if worker.alive:
                worker.abandon()
        pool.shutdown(wait=True, cancel_futures=True)
        _ended.clear()
        raise
    pool.shutdown()


def describe(source: Source, problems: Sequence[str]) -> list[Description]:
    """Return what a throw-away worker tells of a source: its implementations, and the modules that failed to load."""
    record = {"source": dataclasses.asdict(source), "problems": list(problems)}
    try:
        settings = interpreting.settings()
        with Worker(settings, template=template(settings)) as worker:
            worker.ask("hello")
            worker.cap(LOADING_CAP_BYTES)
            reply, _ = worker.ask("describe", record)
        found = [Description.read(source, entry) for entry in reply["implementations"]]
        broken = [
            _stand_in(source, Status.IMPORT_FAILED, str(part["message"]), str(part["name"]), str(part["origin"]))
            for part in reply["broken"]
        ]
    except WorkerError as error:
        return [_stand_in(source, error.status, error.reason)]
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        UsageError,
    ) as error:  # of a process that ran a stranger's module
        reason = f"its description is not understood: {inert(str(error))}"
        return [_stand_in(source, Status.FORGED, reason)]
    return found + broken


def _stand_in(source: Source, status: Status, reason: str, name: str = "", origin: str = "") -> Description:
    """Return the entry of what cannot be asked; its name may be a file's, and so anything."""
    place = Path(source.where)
    return Description(inert(name or place.stem, 100), source, inert(origin or place.name), status, inert(reason))


def load(
    worker: Worker,
    entry: Description,
    threads: int,
    baseline: Description | None = None,
    *,
    flush_denormal: bool = False,
    weighed: bool = False,
) -> None:
    """Greet a new worker and have it load its one implementation (and, for a direct comparison, another as baseline).

    One that is to be weighed holds its heap such that its resident size can be compared with its allocator's bytes.

    Raises:
        WorkerError: it speaks another protocol, or the implementation does not load.
    """
    reply, _ = worker.ask("hello")
    if reply.get("protocol") != wire.PROTOCOL:
        reason = f"speaks protocol {reply.get('protocol')}, expected {wire.PROTOCOL}"
        raise WorkerError(Status.FORGED, reason)
    worker.compiling_s = COMPILING_S if entry.compiles else 0.0
    worker.interpreting_s = INTERPRETING_S if entry.interpreted else 0.0
    worker.cap(LOADING_CAP_BYTES)
    record: dict[str, Any] = {
        **_address(entry),
        "threads": threads,
        "compile": entry.wrapped,
        "flush_denormal": flush_denormal,
        "weighed": weighed,
    }
    worker.ask("load", record if baseline is None else {**record, "baseline": _address(baseline)})


def _address(entry: Description) -> dict[str, Any]:
    return {"source": dataclasses.asdict(entry.source), "name": entry.name}
