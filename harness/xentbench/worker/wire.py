"""The pipe: length-prefixed JSON records, each followed by the raw bytes of its tensors.

Frame: 4 bytes, big endian, length of the JSON text; the text, an object whose `tensors` lists `[name, dtype, shape]`;
then the tensors' bytes in that order, contiguous, in the machine's byte order. Neither pickle nor standard output: what
comes from a worker is data. The same class serves both ends; only the parent sets deadlines.
"""

from __future__ import annotations

import json
import math
import os
import select
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch

from xentbench.spec import DTYPE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL: Final = 4
"""Raised whenever a record's meaning changes; both ends compare it first."""
RECORD_LIMIT_BYTES: Final = 64 * 2**20
"""Longest JSON text that is read; tensors do not count."""
MOST_DIGITS: Final = 40
"""Of an integer: 128 bits."""
MOST_TENSORS: Final = 64
"""In one record."""
_CHUNK_BYTES: Final = 2**20
REST_MS: Final = 1
"""For which a little that was printed is not followed by a look for more: who prints in every call would wake this end
in every second one, and be slower there by more than the call takes."""
LITTLE_BYTES: Final = 2**15
"""Half of what a pipe holds: who prints more is not kept waiting."""
ITEM_BYTES: Final = {**DTYPE_BYTES, "int64": 8, "int32": 4, "int16": 2, "uint8": 1, "bool": 1}

Record = dict[str, Any]
Tensors = dict[str, torch.Tensor]
Left = Callable[[], float]
Within = float | Left | None


class Beside(Protocol):
    """What is taken from another descriptor while this end waits."""

    @property
    def fd(self) -> int | None:
        """Descriptor to wait on, or None."""

    def take(self) -> int:
        """Take what is there; return how many bytes."""


class ChannelClosedError(Exception):
    """The other end has closed the pipe or died."""


class DeadlineError(Exception):
    """The other end did not finish in time."""


class MalformedError(Exception):
    """What came is no record of this protocol."""


class Channel:
    """One end of a pair of pipes.

    Args:
        fd_in: descriptor to read from.
        fd_out: descriptor to write to.
        tensors_limit_bytes: most tensor bytes accepted with one record.
        beside: what else is taken while this end waits.

    Deadlines are seconds from now, or a function that returns how many are left.
    """

    def __init__(self, fd_in: int, fd_out: int, tensors_limit_bytes: int = 2**40, beside: Beside | None = None) -> None:
        self.fd_in, self.fd_out, self.tensors_limit_bytes = fd_in, fd_out, tensors_limit_bytes
        self._beside = beside
        os.set_blocking(fd_in, False)
        os.set_blocking(fd_out, False)

    def send(
        self,
        record: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor] | None = None,
        within_s: Within = None,
    ) -> None:
        """Write one record and its tensors; raises `DeadlineError` or `ChannelClosedError`."""
        deadline = _deadline(within_s)
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in (tensors or {}).items()}
        listing = [[name, dtype_name(tensor), list(tensor.shape)] for name, tensor in held.items()]
        text = json.dumps({**record, "tensors": listing}).encode()
        self._write(struct.pack(">I", len(text)) + text, deadline)
        for tensor in held.values():
            if tensor.numel():
                self._write(_bytes_of(tensor), deadline)

    def receive(self, within_s: Within = None) -> tuple[Record, Tensors]:
        """Read one record and its tensors (copies that belong to the caller).

        Raises:
            DeadlineError: not complete in time.
            ChannelClosedError: the pipe ended first.
            MalformedError: not a record, or longer than the limits.
        """
        deadline = _deadline(within_s)
        (length,) = struct.unpack(">I", self._read(4, deadline))
        if length > RECORD_LIMIT_BYTES:
            msg = f"a record of {length} bytes is longer than {RECORD_LIMIT_BYTES}"
            raise MalformedError(msg)
        record = _parse(bytes(self._read(length, deadline)))
        tensors, left = {}, self.tensors_limit_bytes
        for name, dtype, shape in _listing(record):
            count = math.prod(shape)
            left -= count * ITEM_BYTES[dtype]
            if left < 0:
                msg = f"tensors of more than {self.tensors_limit_bytes} bytes in one record"
                raise MalformedError(msg)
            raw = self._read(count * ITEM_BYTES[dtype], deadline)
            kind = getattr(torch, dtype)
            tensors[name] = (torch.frombuffer(raw, dtype=kind) if count else torch.empty(0, dtype=kind)).reshape(shape)
        return record, tensors

    def is_silent(self) -> bool:
        """Whether nothing is there to be read: no byte of a record that nobody has asked for."""
        poll = select.poll()
        poll.register(self.fd_in, select.POLLIN)
        return not any(event & select.POLLIN for _, event in poll.poll(0))

    def close(self) -> None:
        """Close both descriptors."""
        for fd in (self.fd_in, self.fd_out):
            os.close(fd)

    def _read(self, count: int, deadline: Left) -> bytearray:
        data = bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            try:
                got = os.readv(self.fd_in, [view[done : done + _CHUNK_BYTES]])
            except BlockingIOError:
                self._wait(self.fd_in, select.POLLIN, deadline)
                continue
            if got == 0:
                msg = "the pipe was closed"
                raise ChannelClosedError(msg)
            done += got
        return data

    def _write(self, data: bytes | memoryview, deadline: Left) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.fd_out, view[:_CHUNK_BYTES]) :]
            except BlockingIOError:
                self._wait(self.fd_out, select.POLLOUT, deadline)
            except BrokenPipeError as error:
                msg = "the pipe was closed"
                raise ChannelClosedError(msg) from error

    def _wait(self, fd: int, event: int, deadline: Left) -> None:
        rests = False
        while True:
            left_s = deadline()
            if left_s <= 0:
                msg = "no answer in time"
                raise DeadlineError(msg)
            poll = select.poll()
            poll.register(fd, event)
            aside = self._beside.fd if self._beside else None
            if aside is not None and not rests:
                poll.register(aside, select.POLLIN)
            limit_ms = None if math.isinf(left_s) else math.ceil(left_s * 1000)
            ready = {found for found, _ in poll.poll(REST_MS if rests else limit_ms)}
            if self._beside is not None and (rests or aside in ready):
                rests = 0 < self._beside.take() < LITTLE_BYTES
            if fd in ready:
                return


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor; a single number may have any stride and count as contiguous."""
    flat = tensor.reshape(-1)
    flat = flat if flat.stride(0) == 1 else flat.clone(memory_format=torch.contiguous_format)
    view: memoryview = flat.view(torch.uint8).numpy().data
    return view


def dtype_name(tensor: torch.Tensor) -> str:
    """Return the dtype as this project writes it: `float32`, not `torch.float32`."""
    return str(tensor.dtype).removeprefix("torch.")


def _deadline(within: Within) -> Left:
    if callable(within):
        return within
    if within is None:
        return lambda: math.inf
    end_s = time.monotonic() + within
    return lambda: end_s - time.monotonic()


def _parse(text: bytes) -> Record:
    try:
        record = json.loads(text, parse_float=_finite, parse_int=_bounded, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        msg = f"a record is not JSON: {error}"
        raise MalformedError(msg) from None
    if not isinstance(record, dict):
        msg = f"a record must be an object, got {type(record).__name__}"
        raise MalformedError(msg)
    return record


def _finite(text: str) -> float:
    """Return a number that arithmetic can be done with; raises ValueError for another."""
    value = float(text)
    if not math.isfinite(value):
        msg = f"{text[:20]} is no number of this protocol"
        raise ValueError(msg)
    return value


def _bounded(text: str) -> int:
    if len(text) > MOST_DIGITS:
        msg = f"an integer of {len(text)} digits"
        raise ValueError(msg)
    return int(text)


def _listing(record: Record) -> list[tuple[str, str, list[int]]]:
    """Return `(name, dtype, shape)` of the tensors that follow, checked: the other end may be anybody."""
    listing = record.pop("tensors", [])
    try:
        checked = [(str(name), str(dtype), [int(size) for size in shape]) for name, dtype, shape in listing]
        good = all(dtype in ITEM_BYTES and min(shape, default=0) >= 0 for _, dtype, shape in checked)
        good = good and len(checked) <= MOST_TENSORS
    except (TypeError, ValueError):
        good = False
    if not good:
        msg = f"a record lists tensors in a form that is not understood: {str(listing)[:200]}"
        raise MalformedError(msg)
    return checked
