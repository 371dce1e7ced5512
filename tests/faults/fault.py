"""A loss with one fault, and how to declare it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xentbench import Implementation, implementation
from xentbench.spec import Status

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Fault:
    """How a faulty loss has to end.

    Attributes:
        name: of the implementation.
        theme: module that it is in; empty where it has a file of its own.
        status: it ends in.
        told: part of its reason.
        text: of its own file; empty where it is in a theme.
        timed: status that it ends in where it is timed too.
    """

    name: str
    theme: str
    status: Status
    told: str = ""
    text: str = ""
    timed: Status | None = None

    @property
    def in_a_run(self) -> Status:
        """Return how its cells end."""
        return self.timed or self.status


@dataclass(slots=True)
class Faults:
    """The faults of one theme: a decorator that makes an implementation and remembers how it has to end."""

    theme: str
    listed: list[Fault] = field(default_factory=list)

    def __call__(
        self, name: str, status: Status, told: str = "", timed: Status | None = None, **declared: Any
    ) -> Callable[[Callable[..., Any]], Implementation]:
        self.listed.append(Fault(name, self.theme, status, told, timed=timed))
        return implementation(name, **declared)
