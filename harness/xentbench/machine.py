"""What a device can do: bytes it reads and copies a second, by working set, and exponentials it takes a second."""

from __future__ import annotations

import functools
import math
import operator
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from xentbench.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Clock = Callable[[], float]
    Call = Callable[[], object]
    Caller = Callable[[int], Call]

SIZES_BYTES: Final = tuple(2**power for power in range(16, 28))
"""Working sets whose bandwidth is measured, 64 KiB to 128 MiB: every level of cache, and main memory."""
ALWAYS_BYTES: Final = 2**24
"""Sizes up to here take milliseconds and are measured whatever is asked."""
EXPONENTIALS: Final = 2**14
"""Exponentials a call: in cache."""
BATCHES: Final = 7
BATCH_BYTES: Final = 2**22


@dataclass(frozen=True, slots=True)
class Machine:
    """What one device was seen to do, one thread of it where it is the processor; the best of all that was measured.

    Attributes:
        read_bytes_per_s: size of the working set in bytes -> bytes read per second.
        copy_bytes_per_s: the same -> bytes read and written per second, half of the set being copied to the other.
        exp_per_s: dtype that is computed in -> exponentials per second, in cache; empty where they were not measured.
    """

    read_bytes_per_s: Mapping[int, float]
    copy_bytes_per_s: Mapping[int, float]
    exp_per_s: Mapping[str, float]

    def bytes_per_s(self, set_bytes: int) -> float:
        """Return the best bandwidth for a working set: that of the largest size measured that is no larger.

        What a larger set reached counts for a smaller one as well.
        """
        best = self._best
        fitting = max((size for size in best if size <= set_bytes), default=min(best))
        return max(rate for size, rate in best.items() if size >= fitting)

    @property
    def _best(self) -> dict[int, float]:
        return _best_of(self.read_bytes_per_s, self.copy_bytes_per_s)

    def better(self, other: Machine) -> Machine:
        """Return the best of both: load and slow clocks only ever take away."""
        return Machine(
            _best_of(self.read_bytes_per_s, other.read_bytes_per_s),
            _best_of(self.copy_bytes_per_s, other.copy_bytes_per_s),
            _best_of(self.exp_per_s, other.exp_per_s),
        )

    def record(self) -> dict[str, dict[str, float | None]]:
        """Return the record as JSON takes it; a rate too high to be timed is null."""
        return {
            name: {str(key): rate if math.isfinite(rate) else None for key, rate in rates.items()}
            for name, rates in asdict(self).items()
        }


def _best_of(one: Mapping[Any, float], other: Mapping[Any, float]) -> dict[Any, float]:
    return {key: max(one.get(key, 0.0), other.get(key, 0.0)) for key in sorted({*one, *other})}


def measure(device: str = "cpu", largest_bytes: int = SIZES_BYTES[-1], clock: Clock = time.perf_counter) -> Machine:
    """Measure what a device can do, in working sets up to `largest_bytes`, or 16 MiB; of the processor one thread.

    Exponentials are measured on the processor alone: elsewhere those of torch wait for memory, and tell nothing.
    """
    sizes = [size for size in SIZES_BYTES if size <= max(largest_bytes, ALWAYS_BYTES)]
    readers, copiers = host_streams() if device == "cpu" else device_streams(device)
    computed = ("float32", "float64") if device == "cpu" else ()
    with one_thread():  # torch's vector library shares out even a few thousand exponentials
        return Machine(
            {size: rate(size, readers, clock) for size in sizes},
            {size: rate(size, copiers, clock) for size in sizes},
            {dtype: rate(EXPONENTIALS, exp_calls(dtype), clock) for dtype in computed},
        )


def rate(amount: int, callers: Sequence[Caller], clock: Clock) -> float:
    """Return how many of `amount` a second the fastest of some calls does, its best batch counting.

    What the same call takes for two of them, its own overhead, is subtracted: a floor must not hold any.
    """
    repeats = max(1, BATCH_BYTES // amount)
    spent_s = min(_best_s(make(amount), repeats, clock) - _best_s(make(2), repeats, clock) for make in callers)
    return amount / spent_s if spent_s > 0 else math.inf


def _best_s(call: Call, repeats: int, clock: Clock) -> float:
    best = math.inf
    for _ in range(BATCHES):
        start = clock()
        for _ in range(repeats):
            call()
        best = min(best, (clock() - start) / repeats)
    return best


def host_streams() -> tuple[Sequence[Caller], Sequence[Caller]]:
    """Return what reads, and what copies, so many bytes of the processor's memory, always on one thread.

    Equal halves are compared, a byte is sought that is not there, a maximum is taken: which reads fastest differs with
    the size, and the first with where its halves happen to lie.
    """

    def compare(size: int) -> Call:
        return functools.partial(operator.eq, b"1" * (size // 2), b"1" * (size // 2))

    def seek(size: int) -> Call:
        return functools.partial((b"1" * size).find, b"0")

    def maximum(size: int) -> Call:
        return np.ones(size, dtype=np.uint8).max

    def copy(size: int) -> Call:
        return functools.partial(np.copyto, np.empty(size // 2, dtype=np.uint8), np.ones(size // 2, dtype=np.uint8))

    return (compare, seek, maximum), (copy,)


def device_streams(device: str) -> tuple[Sequence[Caller], Sequence[Caller]]:
    """Return what reads, and what copies, so many bytes of a device's memory, by torch; each call waits for its end."""

    def maximum(size: int) -> Call:
        source = torch.ones(size, dtype=torch.uint8, device=device)
        return lambda: source.amax().item()

    def copy(size: int) -> Call:
        source = torch.ones(size // 2, dtype=torch.uint8, device=device)
        sink = torch.empty_like(source)

        def copied() -> object:
            # One number fetched waits for the copy before it, on any device.
            return sink.copy_(source)[0].item()

        return copied

    return (maximum,), (copy,)


def exp_calls(dtype: str) -> Sequence[Caller]:
    """Return NumPy's and torch's exponentials of so many numbers between -8 and 0, as differences from a maximum are.

    Which is faster differs between processors.
    """

    def numbers(amount: int) -> torch.Tensor:
        return torch.linspace(-8.0, 0.0, amount, dtype=getattr(torch, dtype))

    def by_numpy(amount: int) -> Call:
        given = numbers(amount).numpy()
        return functools.partial(np.exp, given, out=np.empty_like(given))

    def by_torch(amount: int) -> Call:
        given = numbers(amount)
        return functools.partial(torch.exp, given, out=torch.empty_like(given))

    return by_numpy, by_torch
