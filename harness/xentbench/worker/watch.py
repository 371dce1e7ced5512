"""What an implementation must leave alone: the clock, torch and its settings, this harness, the process.

All of it is looked at once a burst, and held against what was there before any implementation was loaded. Of one that
compiles, settings count from the moment its duel is ready: compilers set variables and start threads of their own.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn import functional

from xentbench import drawing
from xentbench.worker import calls, clock, compiled, duel, storage, visits, wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

MORE_DESCRIPTORS: Final = 16
"""From so many more open descriptors on than when the duel began, they leak: a library may open a few."""
SET_LAZILY: Final = ("TORCH", "TRITON", "KMP_", "PYTORCH_")
"""Environment variables that libraries set when they are first used begin so."""
_THEIRS: Final = (
    *(time, os, gc, json, random, random.Random, sys, threading, np, np.random),
    *(torch, torch.Tensor, torch._C.TensorBase, torch.autograd, functional, torch.nn._reduction, torch._C._nn),  # noqa: SLF001
)
"""Modules and classes of which no name may come to stand for something else."""
_LAZY: Final = frozenset({"torch.manual_seed"})
"""Names that torch itself replaces, when its compiler is first imported; nothing here uses them."""
_PATIENCE_S: Final = 0.02
"""For a thread that was joined to be gone for the system too."""
_OURS: Final[tuple[ModuleType, ...]] = (calls, clock, compiled, drawing, duel, storage, visits, wire)


@dataclass(frozen=True, slots=True)
class Names:
    """What the names of modules and classes stood for, and the code of functions."""

    spaces: tuple[tuple[str, Mapping[str, Any], dict[str, Any], bool], ...]
    codes: tuple[tuple[str, Any, Any], ...]

    def changes(self) -> Iterator[str]:
        """Return the names that stand for something else now, and the functions of which the code was replaced."""
        for prefix, space, was, is_closed in self.spaces:
            other = (f"{prefix}.{name}" for name, value in was.items() if space.get(name) is not value)
            yield from (name for name in other if name not in _LAZY)
            if is_closed and len(space) > len(was):  # a new name hides that of a base class
                yield from (f"{prefix}.{name}" for name in space if name not in was)
        yield from (f"{name}.__code__" for name, function, code in self.codes if function.__code__ is not code)


def names() -> Names:
    """Return what names stand for now."""
    serving = sys.modules.get("xentbench.worker.serving")
    ours = (*_OURS, *([serving] if serving else []))
    owners = (*_THEIRS, *ours)
    spaces: list[tuple[str, Mapping[str, Any], bool]]
    spaces = [(getattr(owner, "__name__", str(owner)), vars(owner), isinstance(owner, type)) for owner in owners]
    functions = {"torch.nn.functional.cross_entropy": functional.cross_entropy}
    for module in ours:
        for name, value in vars(module).items():
            if isinstance(value, type) and value.__module__ == module.__name__:
                spaces.append((f"{module.__name__}.{name}", vars(value), True))
                functions |= {f"{module.__name__}.{name}.{part}": inner for part, inner in vars(value).items()}
            else:
                functions[f"{module.__name__}.{name}"] = value
    kept = {name: function for name, function in functions.items() if isinstance(function, FunctionType)}
    return Names(
        tuple((prefix, space, dict(space), closed) for prefix, space, closed in spaces),
        tuple((name, function, function.__code__) for name, function in kept.items()),
    )


def settings() -> dict[str, Any]:
    """Return settings of the process by name, as values that can be compared."""
    return {
        "torch's number of threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": str(torch.get_default_device()),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's inference mode": torch.is_inference_mode_enabled(),
        "torch's autocast": torch.is_autocast_enabled("cpu"),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch's precision of matrix products": torch.get_float32_matmul_precision(),
        "torch's denormal numbers": float(_LEAST * 1.0),
        "torch's function modes": torch._C._len_torch_function_stack(),  # noqa: SLF001 - there is no other way to ask
        "torch's dispatch modes": torch._C._len_torch_dispatch_stack(),  # noqa: SLF001
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "NumPy's generator": np.random.get_state(legacy=False)["state"]["key"].tobytes(),  # noqa: NPY002 - the global one is what is watched
        "Python's generator": random.getstate(),
        "environment variables": {k: v for k, v in os.environ.items() if not k.startswith(SET_LAZILY)},
        "working folder": _folder(),
        "signal handlers": tuple(map(signal.getsignal, signal.valid_signals())),
        "trace or profile function": (sys.gettrace(), sys.getprofile()),
        "garbage collector": (gc.get_threshold(), len(gc.callbacks)),
        "switch interval": sys.getswitchinterval(),
        "cores of the process": os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
        "priority": os.nice(0),
        "threads": max(threading.active_count(), _count("/proc/self/task")),
        "recursion limit": sys.getrecursionlimit(),
    }


_now_s: Final = time.monotonic
_LEAST: Final = torch.tensor(2.0**-149)


class Watch:
    """Compares the process with what it was before.

    Args:
        before: what `names` gave before any implementation was loaded.
        had: what `settings` gave.
        pipes: descriptors that must stay the pipes they are, as `identities` gave them then.
        kept: objects whose fields must stay as they are, each with these fields, by name.

    Attributes:
        planted: a change that the parent had made up: a watch that does not tell of it sees nothing.
    """

    def __init__(
        self,
        before: Names,
        had: dict[str, Any],
        pipes: dict[int, tuple[int, int] | None] | None = None,
        kept: dict[str, tuple[Any, dict[str, Any]]] | None = None,
    ) -> None:
        self._names, self._settings, self._pipes, self._kept = before, had, pipes or {}, kept or {}
        self.planted = ""
        self._descriptors = _count("/proc/self/fd")

    def changes(self) -> list[str]:
        """Return what is no longer as it was, by name."""
        return list(self._changes())

    def leaks(self) -> str:
        """Return what keeps growing, in words, or nothing."""
        more = _count("/proc/self/fd") - self._descriptors
        return f"{more} more open descriptors than before it was timed" if more >= MORE_DESCRIPTORS else ""

    def _changes(self) -> Iterator[str]:
        yield from self._names.changes()
        seen, until_s = settings(), _now_s() + _PATIENCE_S
        while seen["threads"] > self._settings["threads"] and _now_s() < until_s:
            seen = settings()
        # Fewer than before are no harm: those of a library that has let its own go.
        yield from (name for name, was in self._settings.items() if name != "threads" and seen[name] != was)
        yield from ["threads"] * (seen["threads"] > self._settings["threads"])
        yield from (f"descriptor {fd}" for fd, was in self._pipes.items() if identities(fd)[fd] != was)
        for name, (thing, was) in self._kept.items():
            if any(value is not was.get(field) for field, value in fields(thing).items()):
                yield name
        if self.planted:
            yield self.planted


def identities(*descriptors: int) -> dict[int, tuple[int, int] | None]:
    """Return device and inode of open descriptors, None of closed ones."""
    found: dict[int, tuple[int, int] | None] = {}
    for fd in descriptors:
        try:
            seen = os.fstat(fd)
        except OSError:
            found[fd] = None
        else:
            found[fd] = (seen.st_dev, seen.st_ino)
    return found


def fields(thing: Any) -> dict[str, Any]:  # noqa: ANN401 - any record
    """Return what the fields of a record are."""
    names = getattr(type(thing), "__slots__", None) or vars(thing)
    return {name: getattr(thing, name, None) for name in names}


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a string is all that is compared
    except OSError:
        return ""


def _count(folder: str) -> int:
    """Return how many names a folder of the system has, 0 where there is none."""
    try:
        return len(os.listdir(folder))  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return 0
