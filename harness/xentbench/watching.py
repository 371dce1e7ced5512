"""Who looks on while long work is done: a progress bar, plain lines, or nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Watch(Protocol):
    """Who looks on."""

    def stage(self, title: str, steps: int) -> None:
        """A stage of so many steps begins."""

    def step(self, text: str) -> None:
        """One step is done; the text says which."""

    def cell(self, fields: Mapping[str, Any]) -> None:
        """A cell is finished."""

    def left(self, seconds: float) -> None:
        """The run will take about so much longer."""
