"""What an implementation must leave alone: the clock, torch's entry points and settings, this harness, the process.

All of it is looked at once a burst. What was there before any implementation was loaded is bound here at import; what
torch itself sets up with the first calls (environment variables, threads) counts from the moment a duel is ready.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn import functional

from xentbench import drawing
from xentbench.worker import calls, clock, duel, storage, visits, wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MORE_DESCRIPTORS: Final = 16
"""From so many more open descriptors on than when the duel began, they leak: a library may open a few."""
_NAMES: Final[Mapping[Any, tuple[str, ...]]] = {
    time: ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time_ns", "thread_time_ns", "time"),
    os: ("read", "readv", "write", "fork", "_exit"),
    gc: ("disable", "enable", "collect"),
    random.Random: ("sample", "randrange", "seed", "getrandbits"),
    np: ("array", "stack", "where", "isfinite", "empty", "unravel_index"),
    np.random: ("Philox",),
    torch: ("empty", "empty_like", "zeros", "zeros_like", "no_grad", "from_numpy", "set_num_threads", "nn", "Tensor"),
    torch.Tensor: (
        *("backward", "detach", "item", "clone", "numpy", "copy_", "data_ptr", "reshape", "double", "cpu"),
        *("requires_grad_", "set_", "untyped_storage", "__class__", "__getattribute__"),
    ),
    torch.autograd: ("backward", "grad"),
    torch._C._nn: ("cross_entropy_loss", "nll_loss_nd"),  # noqa: SLF001 - where F.cross_entropy ends
    functional: ("cross_entropy", "nll_loss", "log_softmax"),
    sys: ("modules", "_getframe"),
}
_OURS: Final = (calls, clock, drawing, duel, storage, visits, wire)


def _functions() -> dict[str, Any]:
    """Return what must stay the same object, by the name that it is told by."""
    found = {}
    for owner, names in _NAMES.items():
        for name in names:
            found[f"{getattr(owner, '__name__', owner)}.{name}"] = getattr(owner, name, None)
    for module in _OURS:
        for name, value in vars(module).items():
            if name.startswith("__"):
                continue
            found[f"{module.__name__}.{name}"] = value
            if isinstance(value, type) and value.__module__ == module.__name__:
                for part, inner in vars(value).items():
                    found[f"{module.__name__}.{name}.{part}"] = inner
                    if code := getattr(inner, "__code__", None):
                        found[f"{module.__name__}.{name}.{part}.__code__"] = code
            elif code := getattr(value, "__code__", None):
                found[f"{module.__name__}.{name}.__code__"] = code
    code = getattr(functional.cross_entropy, "__code__", None)
    return {**found, "torch.nn.functional.cross_entropy.__code__": code}


def _settings() -> dict[str, Any]:
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
        "torch's function modes": torch._C._len_torch_function_stack(),  # noqa: SLF001 - there is no other way to ask
        "torch's dispatch modes": torch._C._len_torch_dispatch_stack(),  # noqa: SLF001
        "environment variables": dict(os.environ),
        "working folder": _folder(),
        "signal handlers": tuple(map(signal.getsignal, signal.valid_signals())),
        "trace or profile function": (sys.gettrace(), sys.getprofile()),
        "garbage collector": (gc.get_threshold(), tuple(map(id, gc.callbacks))),
        "cores of the process": os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
        "priority": os.nice(0),
        "interpreter's threads": frozenset(threading._active),  # type: ignore[attr-defined]  # noqa: SLF001 - a copy costs more
        "recursion limit": sys.getrecursionlimit(),
    }


_FUNCTIONS: Final = _functions()


class Watch:
    """Compares the process with what it was when this was made.

    Args:
        pipes: descriptors that must stay the pipes they are.
    """

    def __init__(self, pipes: tuple[int, ...] = ()) -> None:
        self._settings = _settings()
        self._pipes = {fd: _identity(fd) for fd in pipes}
        self._descriptors = _descriptors()

    def changes(self) -> list[str]:
        """Return what is no longer as it was, by name."""
        return list(self._changes())

    def leaks(self) -> str:
        """Return what keeps growing, in words, or nothing."""
        more = _descriptors() - self._descriptors
        return f"{more} more open descriptors than before it was timed" if more >= MORE_DESCRIPTORS else ""

    def _changes(self) -> Iterator[str]:
        now = _functions()
        yield from (name for name, value in _FUNCTIONS.items() if now.get(name) is not value)
        settings = _settings()
        yield from (name for name, value in self._settings.items() if settings[name] != value)
        yield from (f"descriptor {fd}" for fd, was in self._pipes.items() if _identity(fd) != was)


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a string is all that is compared
    except OSError:
        return ""


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        seen = os.fstat(fd)
    except OSError:
        return None
    return seen.st_dev, seen.st_ino


def _descriptors() -> int:
    """Return how many descriptors are open, 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return 0
