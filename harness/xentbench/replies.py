"""What a worker told of one burst: read from its reply, and judged by what is known without its word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from xentbench.spec import Status
from xentbench.worker.duel import Burst
from xentbench.worker.visits import ARMS
from xentbench.workers import WorkerError

if TYPE_CHECKING:
    from xentbench.worker.duel import Ints
    from xentbench.worker.wire import Record, Tensors

SHOWN: Final = 3
"""Names in one message."""
MOST_CHARACTERS: Final = 300
"""Of a worker's words in one message."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One burst, and what the worker's watch saw over it.

    Attributes:
        burst: its times and answers.
        began_ns: when it began, by the worker's clock.
        whole_ns: how long the worker was at it.
        changed: names of what the implementation has changed in its process.
        leaks: what grows there, or nothing.
        shared: what lies in one place with what was answered before, or nothing.
        delegates: whether the reference operator was seen to do the work.
    """

    burst: Burst
    began_ns: int
    whole_ns: int
    changed: tuple[str, ...]
    leaks: str
    shared: str
    delegates: bool

    @classmethod
    def read(cls, record: Record, tables: Tensors) -> Self:
        """Understand a reply.

        Raises:
            WorkerError: it is none that a burst can have; `forged`.
        """
        try:
            wall, busy, faults, primes = (_table(tables, name) for name in ("wall_ns", "busy_ns", "faults", "prime_ns"))
            losses = tables["losses"].double().numpy()
            if not len(busy) == len(faults) in (0, len(wall)):
                msg = f"{len(wall)} rounds, of which {len(busy)} metered"
                raise ValueError(msg)  # noqa: TRY301 - one kind of damage among others
            if not len(losses) == len(primes) == len(wall) or losses.ndim != 2:  # noqa: PLR2004 - calls and numbers
                msg = f"losses of {len(losses)} calls and {len(primes)} primes in {len(wall)} rounds"
                raise ValueError(msg)  # noqa: TRY301 - one kind of damage among others
            return cls(
                Burst(wall, busy, faults, int(record["elapsed_ns"]), int(record["cpu_ns"]), losses, primes),
                int(record["began_ns"]),
                int(record["whole_ns"]),
                tuple(map(str, record["changed"])),
                str(record["leaks"]),
                str(record["shared"]),
                record["delegates"] is True,
            )
        except (KeyError, TypeError, ValueError) as error:
            msg = f"its times are not understood: {type(error).__name__} {error}"
            raise WorkerError(Status.FORGED, msg) from error

    def check(self, planted: str, asked_ns: int) -> None:
        """Judge what was told.

        Args:
            planted: a change that the watch had to tell of, or nothing.
            asked_ns: when the burst was asked for. All processes of a machine read one clock, so that one which leaves
                time out falls behind it however busy the machine is.

        Raises:
            WorkerError: the worker has tampered, leaks or hands out the same memory twice.
        """
        if self.began_ns < asked_ns:
            ahead_s = (asked_ns - self.began_ns) * 1e-9
            msg = f"its clock told that a burst began {ahead_s:.3f} s before it was asked for"
            raise WorkerError(Status.TAMPERED, msg)
        if planted and planted not in self.changed:
            raise WorkerError(Status.TAMPERED, "its watch does not see what was planted for it to see")
        changed = [name for name in self.changed if name != planted]
        if changed:
            named = ", ".join(changed[:SHOWN])[:MOST_CHARACTERS]
            raise WorkerError(Status.TAMPERED, f"changed {named}{' and more' * (len(changed) > SHOWN)}")
        if self.leaks:
            raise WorkerError(Status.LEAKING, self.leaks[:MOST_CHARACTERS])
        if self.shared:
            raise WorkerError(Status.ALIASED, self.shared[:MOST_CHARACTERS])


def _table(tables: Tensors, name: str) -> Ints:
    table: Ints = tables[name].numpy().astype(np.int64).reshape(-1, ARMS)
    return table
