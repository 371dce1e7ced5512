"""Who looks on: a progress bar with what runs now and the time left, plain lines in CI, or nobody."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from xentbench.spec import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SHOWN_CELLS = 12
_LINE_EVERY_S = 10.0


def printable(text: str) -> str:
    """Return text of a stranger's as inert terminal text: no markup, no control characters."""
    return escape("".join(c if c.isprintable() else " " for c in text))


class Progressing:
    """A bar and the latest cells, redrawn in place, on a terminal; a line every ten seconds anywhere else.

    Args:
        console: where to.
        live: whether it is redrawn in place.
        now_s: clock that spaces the plain lines.
    """

    def __init__(self, console: Console, *, live: bool, now_s: Callable[[], float] = time.monotonic) -> None:
        self._console, self._now_s = console, now_s
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[now]}", style="dim"),
            console=console,
        )
        self._task: Any = None
        self._cells: list[Mapping[str, Any]] = []
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4) if live else None
        self._title, self._steps, self._done, self._said_s, self._left = "", 0, 0, float("-inf"), ""

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._cells = []
            self._live.stop()

    def stage(self, title: str, steps: int) -> None:
        """A stage of so many steps begins."""
        self._title, self._steps, self._done = title, steps, 0
        if self._task is not None:
            self._bar.update(self._task, completed=self._bar.tasks[-1].total)
        self._task = self._bar.add_task(title, total=steps, now="", left="")
        if not self._live:
            self._console.print(f"{title}: {counted(steps, 'step')}", highlight=False)

    def step(self, text: str) -> None:
        """One step is done."""
        self._done += 1
        self._bar.update(self._task, advance=1, now=printable(text)[:60])
        if not self._live and self._now_s() - self._said_s >= _LINE_EVERY_S:
            self._said_s = self._now_s()
            said = f"{self._title} {self._done}/{self._steps}: {printable(text)}"
            self._console.print(f"{said}; {self._left}" if self._left else said, highlight=False)

    def cell(self, fields: Mapping[str, Any]) -> None:
        """A cell is finished."""
        self._cells = [*self._cells, fields][-_SHOWN_CELLS:]

    def left(self, seconds: float) -> None:
        """The run will take about so much longer."""
        minutes, rest = divmod(round(seconds), 60)
        self._left = f"about {minutes}:{rest:02d} left"
        self._bar.update(self._task, left=self._left)

    def _render(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for title in ("implementation", "problem", "phase", "speed-up", ""):
            table.add_column(title, style="dim" if title == "" else None, no_wrap=True, overflow="ellipsis")
        for fields in self._cells:
            ratio = fields.get("ratio")
            shown = f"{1 / ratio:.2f}x" if ratio else ""
            outcome = str(fields.get("verdict") or fields["status"])
            problem = printable(str(fields["problem"]).partition(":")[2])
            table.add_row(printable(str(fields["implementation"])), problem, fields["phase"], shown, outcome)
        return Group(*([table] if self._cells else []), self._bar)


def progressing(console: Console) -> Progressing:
    """Return the watcher that fits: redrawn in place on a terminal, plain lines in CI and pipes."""
    return Progressing(console, live=console.is_terminal and not os.environ.get("CI"))


def errors() -> Console:
    """Return the console for progress and messages: standard error, so that standard output holds results alone."""
    return Console(file=sys.stderr, highlight=False)
