"""`serve(fd_in, fd_out)`: the loop of a worker, however it was started. One request, one reply, until `stop`.

Requests (`ask`): `hello`, `describe`, `load`, `set-up`, `answer`, `repeat`, `memory`, `train`, `prepare`, `call`,
`begin`, `burst`, `gradient`, `free`, `stop`. `call` makes the one plain call that `prepare` made ready, while the
parent reads the resident size; `gradient` asks for one of those that the last burst remembered: none can know which. A
reply has `ok: true`, or `ok: false` with a `status` of `spec.Status` and a `reason`, and the request's `token`. The
worker holds no oracle and no answers.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import dataclasses
import errno
import gc
import os
import platform
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from xentbench import inputs as tensors
from xentbench.models import Lesson
from xentbench.spec import CROSS_ENTROPY, Implementation, Phase, Problem, Source, Status
from xentbench.worker import calls, compiled, interpreting, loading, memory, training, versions, watch, wire
from xentbench.worker.clock import Clock
from xentbench.worker.device import Accelerator
from xentbench.worker.duel import Duel

if TYPE_CHECKING:
    from collections.abc import Callable

    from xentbench.worker.wire import Record, Tensors

# Bound before any implementation is loaded, so that a patched torch changes neither side of the duel by itself.
BASELINE = Implementation(CROSS_ENTROPY.baseline, functional.cross_entropy)


class Session:
    """What one worker holds: an implementation, a problem with its tensors, a duel."""

    def __init__(self, pipes: tuple[int, ...] = ()) -> None:
        self.pipes = watch.identities(*pipes)
        self.before: watch.Names | None = None
        self.had: dict[str, Any] = {}
        self.clock = Clock.system()
        self.clock_was = watch.fields(self.clock)
        self.loss: Implementation | None = None
        self.wraps = False
        self.baseline = BASELINE
        self.problem: Problem | None = None
        self.inputs: tensors.Inputs | None = None
        self.bound: calls.Loss | None = None
        self.beside: tuple[calls.Loss, calls.Loss] | None = None
        self.duel: Duel | None = None
        self.watch: watch.Watch | None = None
        self.prepared: Callable[[], object] | None = None

    def hello(self, _record: Record, _tensors: Tensors) -> tuple[Record, Tensors]:
        """Say which protocol and which versions speak here."""
        versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
        clock = {"resolution_ns": self.clock.resolution_ns, "overhead_ns": self.clock.overhead_ns}
        return {"protocol": wire.PROTOCOL, "versions": versions, "clock": clock, "pid": os.getpid()}, {}

    def describe(self, record: Record, _tensors: Tensors) -> tuple[Record, Tensors]:
        """Load a source; tell what it holds, and which of the planned problems each entry refuses."""
        loaded = loading.load(Source(**record["source"]))
        problems = [Problem.parse(key) for key in record["problems"]]
        entries = [describe(origin, entry, problems) for origin, entry in loaded.found]
        return {"implementations": entries, "broken": [dataclasses.asdict(part) for part in loaded.broken]}, {}

    def load(self, record: Record, _tensors: Tensors) -> tuple[Record, Tensors]:
        """Load the one implementation that this worker is for (`baseline`: another in place of `F.cross_entropy`)."""
        if record["weighed"]:
            memory.map_large_blocks()
        torch.set_num_threads(record["threads"])
        torch.set_flush_denormal(record["flush_denormal"])
        pay_for_imports()
        start_threads()
        self.before, self.had = watch.names(), watch.settings()
        self.wraps = record["compile"]
        if "baseline" in record:
            self._load_both(record)
        else:
            self.loss = _pick(record["source"], record["name"])
        gc.collect()
        gc.freeze()
        return {"threads": torch.get_num_threads()}, {}

    def _load_both(self, record: Record) -> None:
        """Load two implementations that may be two versions of one: unless they share folders, each has its modules."""
        address = record["baseline"]
        sides = versions.Sides() if address["source"]["paths"] != record["source"]["paths"] else None
        self.loss = _pick(record["source"], record["name"])
        if sides:
            sides.turn()
        self.baseline = _pick(address["source"], address["name"])
        if sides is None:
            return
        if not (self.wraps or self.loss.compiles or self.baseline.compiles):
            sides.follow_imports()
        elif clashes := sides.clashes():
            msg = (
                f"both sides have a module {min(clashes)!r}, and torch.compile finds modules by name: compare two runs"
            )
            raise ImportError(msg)

    def set_up(self, record: Record, given: Tensors) -> tuple[Record, Tensors]:
        """Take a problem and pay, once and timed apart, for what its first calls build: every phase is called once."""
        self.free({}, {})
        problem = Problem.parse(record["problem"])
        self.problem, self.inputs = problem, _inputs(problem, record, given)
        loss = self._loaded()
        compiled.reset()
        if reason := refusal(loss, problem):
            raise calls.UnsupportedError(reason)
        start = time.perf_counter()
        self.bound = calls.bind(loss, problem, self.inputs.weight)
        if self.wraps:
            self.bound = compiled.wrap(self.bound)
        for phase in map(Phase, record["phases"]):
            self._duel(phase, [calls.checked(self.bound)]).warm_up(calls=1, budget_s=0.0)
        setup_s = time.perf_counter() - start
        self.beside = self._baselines(record["phases"])
        compiled.check_set_up(must_compile=loss.compiles or self.wraps)
        return {"setup_s": setup_s, **compiled.counters()}, {}

    def answer(self, _record: Record, _tensors: Tensors) -> tuple[Record, Tensors]:
        """Answer the problem in every way that is judged."""
        bound, problem, inputs = self._ready()
        answers = calls.answer(bound, problem, inputs)
        named = {field.name: getattr(answers, field.name) for field in dataclasses.fields(answers)}
        told = {name: list(named.pop(name)) for name in ("changed", "notes", "shared")}
        return told, {name: tensor for name, tensor in named.items() if tensor is not None}

    def repeat(self, record: Record, _tensors: Tensors) -> tuple[Record, Tensors]:
        """Call forward and backward so many times, or until the time is up, while the parent looks for what grows."""
        bound, problem, inputs = self._ready()
        end_s, made = time.perf_counter() + record["budget_s"], 0
        while made < record["calls"] and time.perf_counter() < end_s:
            calls.once(bound, problem, inputs)
            made += 1
        gc.collect()
        return {"calls": made}, {}

    def memory(self, record: Record, _tensors: Tensors) -> tuple[Record, Tensors]:
        """Measure what a phase takes of torch's allocator, until two successive readings agree."""
        bound, problem, inputs = self._ready()
        phase = Phase(record["phase"])
        seen, is_steady = memory.settled(lambda: memory.reading(bound, problem, inputs, phase))
        known = [
            tensor
            for tensor in (getattr(inputs, field.name) for field in dataclasses.fields(inputs))
            if tensor is not None
        ]
        return {**dataclasses.asdict(seen), "is_steady": is_steady, "kept_bytes": memory.kept_bytes(known)}, {}

    def train(self, record: Record, given: Tensors) -> tuple[Record, Tensors]:
        """Train a small model with the loss; what its first call builds, it builds before."""
        self.free({}, {})
        loss, problem, lesson = self._loaded(), Problem.parse(record["problem"]), _lesson(record["lesson"], given)
        compiled.reset()
        if reason := refusal(loss, problem):
            raise calls.UnsupportedError(reason)
        bound = calls.bind(loss, problem, None)
        bound = calls.checked(compiled.wrap(bound) if self.wraps else bound)
        training.call_once(lesson, bound)
        compiled.check_set_up(must_compile=loss.compiles or self.wraps)
        progress = training.train(lesson, bound, record["budget_s"])
        weights = {f"weight{number}": weight for number, weight in enumerate(progress.weights)}
        curves = {"losses": progress.losses, "reported": progress.reported}
        return {"changed": list(progress.changed)}, {**weights, **curves}

    def prepare(self, record: Record, _tensors: Tensors) -> tuple[Record, Tensors]:
        """Make one call of a phase ready, and give back what the heap keeps: whatever the call touches is new."""
        self.prepared = memory.prepared(*self._ready(), Phase(record["phase"]))
        _trim()
        return {}, {}

    def call(self, _record: Record, _tensors: Tensors) -> tuple[Record, Tensors]:
        """Make the call that was prepared, once and with no profiler."""
        if self.prepared is None:
            msg = "call asked for before prepare"
            raise RuntimeError(msg)
        call, self.prepared = self.prepared, None
        call()
        return {}, {}

    def begin(self, record: Record, _tensors: Tensors) -> tuple[Record, Tensors]:
        """Prepare the duel of one phase: baseline, candidate, the baseline's twin; warm every arm."""
        bound, _, _ = self._ready()
        if self.beside is None:
            msg = "asked before set-up"
            raise RuntimeError(msg)
        baseline, twin = self.beside
        self.duel = None  # its memory first: else the next one's lies elsewhere, and leaves holes behind
        self.duel = self._duel(Phase(record["phase"]), [baseline, bound, twin], record.get("pool_bytes", 0))
        self.duel.warm_up(calls=record["warm_calls"], budget_s=record["warm_s"])
        faults = [] if self.duel.metered else self.duel.faults_a_call()
        compiles = self.wraps or self._loaded().compiles or self.baseline.compiles
        had = watch.settings() if compiles else self.had
        assert self.before is not None
        self.watch = watch.Watch(self.before, had, self.pipes, {"the worker's clock": (self.clock, self.clock_was)})
        return {"empty_call_ns": self.duel.empty_call_ns(), "faults": faults}, {}

    def burst(self, record: Record, _tensors: Tensors) -> tuple[Record, Tensors]:
        """Run one burst of rounds; return its raw times, what the candidate answered, and what else has changed."""
        if self.duel is None or self.watch is None:
            msg = "burst asked for before begin"
            raise RuntimeError(msg)
        self.watch.planted = str(record.get("planted", ""))
        graphs, began_ns = compiled.counters(), self.clock.now_ns()
        gc.disable()
        try:
            ran = self.duel.burst(record["seed"], record["budget_s"], record["least_rounds"], record["most_rounds"])
        finally:
            gc.enable()
        if compiled.counters() != graphs:
            msg = "compiled again while it was timed"
            raise compiled.CompilationError(msg)
        tables = {
            name: torch.from_numpy(getattr(ran, name))
            for name in ("wall_ns", "busy_ns", "faults", "losses", "prime_ns")
        }
        watched: Record = {"changed": self.watch.changes(), "leaks": self.watch.leaks()}
        watched["shared"], watched["delegates"] = self.duel.repeat() if record.get("repeat") else ("", False)
        watched["began_ns"], watched["whole_ns"] = began_ns, self.clock.now_ns() - began_ns
        return {name: getattr(ran, name) for name in ("elapsed_ns", "cpu_ns")} | watched, tables

    def gradient(self, record: Record, _tensors: Tensors) -> tuple[Record, Tensors]:
        """Return the rows that one slot remembers of a gradient of the last burst; nothing where there was none."""
        kept = self.duel.remembered[record["slot"]] if self.duel is not None else None
        return {}, {} if kept is None else {"gradient": torch.from_numpy(np.ascontiguousarray(kept))}

    def free(self, _record: Record, _tensors: Tensors) -> tuple[Record, Tensors]:
        """Let go of the problem's tensors and give the pages back, so that idle workers cost nothing."""
        self.duel = self.watch = self.prepared = self.bound = self.beside = self.inputs = self.problem = None
        _trim()
        return {}, {}

    def _baselines(self, phases: list[str]) -> tuple[calls.Loss, calls.Loss]:
        """Return the baseline and its twin; one that compiles does so now, before compiling becomes an error."""
        problem, inputs = self.problem, self.inputs
        if problem is None or inputs is None:
            msg = "asked before set-up"
            raise RuntimeError(msg)
        if self.baseline is BASELINE:
            baseline, twin = (calls.bind(self.baseline, problem, inputs.weight) for _ in range(2))
            return baseline, twin
        only = calls.bind(self.baseline, problem, inputs.weight)
        for phase in map(Phase, phases):
            self._duel(phase, [only]).warm_up(calls=1, budget_s=0.0)
        return only, only

    def _duel(self, phase: Phase, arms: list[calls.Loss], pool_bytes: int = 0) -> Duel:
        problem, inputs = self.problem, self.inputs
        if problem is None or inputs is None:
            msg = "asked before set-up"
            raise RuntimeError(msg)
        clock = self.clock.on(None if problem.device == "cpu" else Accelerator(problem.device))
        restore = self._loaded().work.overwrites_input
        return Duel(problem, phase, arms, inputs, clock, restore=restore, pool_bytes=pool_bytes)

    def _loaded(self) -> Implementation:
        if self.loss is None:
            msg = "asked before load"
            raise RuntimeError(msg)
        return self.loss

    def _ready(self) -> tuple[calls.Loss, Problem, tensors.Inputs]:
        if self.bound is None or self.problem is None or self.inputs is None:
            msg = "asked before set-up"
            raise RuntimeError(msg)
        return self.bound, self.problem, self.inputs


def serve(fd_in: int, fd_out: int) -> None:
    """Answer requests until `stop` or the end of the pipe; an error is a reply, never the end of the loop."""
    channel, session = wire.Channel(fd_in, fd_out), Session((fd_in, fd_out))
    verbs: dict[str, Callable[[Record, Tensors], tuple[Record, Tensors]]] = {
        "hello": session.hello,
        "describe": session.describe,
        "load": session.load,
        "set-up": session.set_up,
        "answer": session.answer,
        "repeat": session.repeat,
        "memory": session.memory,
        "train": session.train,
        "prepare": session.prepare,
        "call": session.call,
        "begin": session.begin,
        "burst": session.burst,
        "gradient": session.gradient,
        "free": session.free,
    }
    while True:
        try:
            record, given = channel.receive()
        except wire.ChannelClosedError:
            return
        token = record.pop("token", "")
        if record["ask"] == "stop":
            channel.send({"ok": True, "last": True, "token": token})
            return
        try:
            reply, answers = verbs[record["ask"]](record, given)
        except BaseException as error:  # noqa: BLE001 - an implementation may raise anything
            reply, answers = {"ok": False, **failure(error, record["ask"])}, {}
        else:
            reply = {"ok": True, **reply}
        channel.send({**reply, "token": token}, answers)
        given, answers = {}, {}  # else their tensors would live on, and count as somebody's workspace


def _trim() -> None:
    """Give the pages of what is no longer used back to the system (glibc; elsewhere what Python lets go of)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def pay_for_imports() -> None:
    """Call backward once with a gradient: it imports hundreds of torch's modules, and no implementation pays for it."""
    torch.ones(1, requires_grad=True).sum().backward(torch.tensor(1.0))  # type: ignore[no-untyped-call]


def start_threads() -> None:
    """Start torch's threads: they come with the first operation that they share, and would count as somebody's own."""
    if torch.get_num_threads() > 1:
        torch.zeros(torch.get_num_threads() << 20).exp_()


def failure(error: BaseException, ask: str) -> Record:
    """Return status and reason of an exception that an implementation raised while it served a request."""
    message = loading.one_line(error)
    if isinstance(error, NotImplementedError | calls.UnsupportedError):
        said = message.partition(": ")[2]
        return {"status": Status.UNSUPPORTED, "reason": said or "NotImplementedError without a message"}
    if isinstance(error, calls.WrongTypeError | calls.DeferredError):
        kind = Status.DEFERRED if isinstance(error, calls.DeferredError) else Status.WRONG_TYPE
        return {"status": kind, "reason": message.partition(": ")[2]}
    if _is_out_of_memory(error, message):
        return {"status": Status.OUT_OF_MEMORY, "reason": message}
    compiling = ask in ("set-up", "train") and "torch._dynamo" in str(type(error).__module__)
    if compiling or isinstance(error, compiled.CompilationError):
        return {"status": Status.SET_UP_FAILED, "reason": message}
    if ask == "load":
        return {"status": Status.IMPORT_FAILED, "reason": message}
    return {"status": Status.RAISED, "reason": message + interpreting.hint(message)}


def _is_out_of_memory(error: BaseException, message: str) -> bool:
    """Whether memory was refused, by Python, torch, the C++ library or the system."""
    refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    told = any(text in message for text in ("can't allocate memory", "std::bad_alloc"))
    return refused or told or isinstance(error, MemoryError | torch.OutOfMemoryError)


def describe(origin: str, entry: Implementation, problems: list[Problem]) -> Record:
    """Return what the parent needs to know of an implementation, as JSON can hold it."""
    missing = loading.missing_package(entry)
    refusals = {} if missing else {p.key: reason for p in problems if (reason := refusal(entry, p))}
    return {
        "name": entry.name,
        "origin": origin,
        "status": Status.UNSUPPORTED if missing else Status.PASSED,
        "reason": loading.remedy(missing) if missing else "",
        "summary": entry.summary,
        "reference": entry.source,
        "compiles": entry.compiles,
        "speaks": entry.supports is not None,
        "deviations": [dataclasses.asdict(deviation) for deviation in entry.deviations],
        "min_grade": entry.min_grade,
        "work": dataclasses.asdict(entry.work),
        "refusals": refusals,
        "offered": [] if missing or entry.factory else sorted(calls.offered_options(entry.function)),
        "other_defaults": {} if missing or entry.factory else calls.other_defaults(entry.function),
        "on_request": entry.on_request,
        "interpreted": not missing and interpreting.is_interpreted(entry),
    }


def refusal(entry: Implementation, problem: Problem) -> str | None:
    """Return why the implementation is not asked this problem: its own reason before that of Triton's interpreter."""
    return calls.refusal(entry, problem) or interpreting.refusal(entry, problem)


def _pick(source: Record, name: str) -> Implementation:
    loaded = loading.load(Source(**source))
    for _, entry in loaded.found:
        if entry.name == name:
            return entry
    told = "; ".join(part.message for part in loaded.broken)
    msg = f"{name!r} is not in its source any more{': ' + told if told else ''}"
    raise ImportError(msg)


def _lesson(told: Record, given: Tensors) -> Lesson:
    """Return the lesson that came with the request: its weights are numbered."""
    numbers = range(sum(name.startswith("weight") for name in given))
    weights = tuple(given[f"weight{number}"] for number in numbers)
    return Lesson(told["name"], weights, given["inputs"], given["target"], told["rate"], told["momentum"])


def _inputs(problem: Problem, record: Record, given: Tensors) -> tensors.Inputs:
    """Return the tensors that came with the request, or derive them from the seed."""
    if "logits" not in given:
        return tensors.make(problem, record["seed"])
    if "upstream" in given:
        whole = tensors.Inputs(given["logits"], given["target"], given.get("weight"), given["upstream"])
        return tensors.place(problem, whole)
    recorded = tensors.Recorded(given["logits"], given["target"], given.get("weight"), sha256="")
    return tensors.make(problem, record["seed"], recorded)
