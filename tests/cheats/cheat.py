"""The two kinds of entries: an implementation that cheats in one known way, and an honest one that looks odd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from xentbench.spec import Phase, Problem, Status, WorkContract

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Loss = Callable[..., Tensor]
    Build = Callable[[], Loss]
    Verb = Literal["parity", "bench", "either"]

TINY, SMALL = Problem(batch_size=8, num_classes=10), Problem(batch_size=64, num_classes=100)
PLAIN = WorkContract()
PHASES = (Phase.FORWARD, Phase.FORWARD_BACKWARD)

WRONG = frozenset({Status.WRONG_VALUE, Status.IMPRECISE})
STALE = frozenset({Status.STALE, Status.WRONG_VALUE})
GRADIENT = frozenset({Status.WRONG_GRADIENT, Status.STALE, Status.WRONG_VALUE})
DEFERRED = frozenset({Status.DEFERRED, Status.WRONG_TYPE, Status.ALIASED, Status.TAMPERED}) | {
    Status.WRONG_VALUE,
    Status.WRONG_GRADIENT,
}
TAMPERED = frozenset({Status.TAMPERED})
ALIASED = frozenset({Status.ALIASED, Status.STALE, Status.WRONG_VALUE, Status.WRONG_GRADIENT, Status.MUTATES_INPUT})
MUTATES = frozenset({Status.MUTATES_INPUT, Status.WRONG_VALUE, Status.WRONG_GRADIENT, Status.TAMPERED})
FORGED = frozenset({Status.FORGED, Status.TAMPERED, Status.EXITED, Status.TIMED_OUT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheat:
    """A dishonest implementation: it answers right where it believes that it is watched, and cheats where it pays.

    Attributes:
        name: unique, in kebab case.
        row: key of the package's `ROWS`.
        build: run once, in the worker, when the implementation is loaded; returns the loss.
        note: one sentence: what it does, and when.
        verb: that must catch it; `bench` where it is right for as long as it is only asked for answers.
        ends: statuses, one of which each of its cells must have.
        labels: each enough for a cell that is passed; none: no cell may pass.
        problems: at which it is tried.
        phases: that are timed.
        work: what it declares.
        patience: calls that it lets pass before it cheats: it is timed until they have been made.
        in_company: whether it is timed beside an honest implementation, as nearly everybody is.
        is_promised: whether it is promised that this is caught; what is not stands in docs/trust.md.
    """

    name: str
    row: int
    build: Build
    note: str
    verb: Verb = "bench"
    ends: frozenset[Status] = TAMPERED
    labels: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = (TINY, SMALL)
    phases: tuple[Phase, ...] = PHASES
    work: WorkContract = PLAIN
    patience: int = 60
    in_company: bool = False
    is_promised: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Honest:
    """An honest implementation that does something which cheats do too: each of its cells must pass, unflagged.

    Attributes:
        name: unique, in kebab case.
        build: as `Cheat.build`.
        note: one sentence: what is odd about it.
        work: what it declares.
        problems: at which it is tried.
        phases: that are timed.
    """

    name: str
    build: Build
    note: str
    work: WorkContract = PLAIN
    problems: tuple[Problem, ...] = (TINY, SMALL)
    phases: tuple[Phase, ...] = PHASES
