"""What a worker prints: taken from a pipe while an answer of it is awaited; the last of it is kept."""

from __future__ import annotations

import os
from typing import Final

from xentbench.spec import inert

KEPT_BYTES: Final = 4000
_CHUNK_BYTES: Final = 2**16
"""As much as a pipe holds where nobody made it larger."""
_MOST_CHUNKS: Final = 64
"""Taken at the end: a child that lives on could print for ever."""


class Printed:
    """This process's end of the pipe that a worker prints to.

    A worker that nobody awaits waits in its `print` once the pipe is full, which bounds what it costs anybody else.

    Args:
        fd: read end; closed with this object.
    """

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        self._tail = b""
        os.set_blocking(fd, False)

    @property
    def fd(self) -> int | None:
        """Descriptor to wait on, or None where nothing can come any more."""
        return self._fd

    def take(self) -> int:
        """Take what is there, a chunk at most; return how many bytes."""
        if self._fd is None:
            return 0
        try:
            chunk = os.read(self._fd, _CHUNK_BYTES)
        except BlockingIOError:
            return 0
        if not chunk:
            self.close()
        self._tail = (self._tail + chunk)[-KEPT_BYTES:]
        return len(chunk)

    def tail(self) -> str:
        """Return the last of what was printed, as inert text on one line."""
        for _ in range(_MOST_CHUNKS):
            if not self.take():
                break
        return inert(self._tail.decode(errors="replace"), KEPT_BYTES)

    def close(self) -> None:
        """Take no more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
