"""Tables for a terminal: what a person sees when a run ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.table import Table
from rich.text import Text

from xentbench.report.standing import DECLARED, RIGHT, UNTESTED, WRONG, Entry, Standing, standings
from xentbench.report.text import ASCII_SIGNS, plain, seconds
from xentbench.report.view import View

if TYPE_CHECKING:
    from xentbench.report.view import RunLike

STYLES: Final = {
    "faster": "green",
    "slower": "yellow",
    "same": "",
    "inconclusive": "dim",
    RIGHT: "",
    DECLARED: "magenta",
    WRONG: "bold red",
    UNTESTED: "dim",
}
NAME_WIDTHS: Final = {False: 24, True: 20}
"""Widest name, without and with two lines a row to fold it over."""
FIXED_WIDTH: Final = 22
"""Columns for grade, set-up and memory with the space between them."""


def terminal(run: RunLike | View, width: int = 100) -> list[Table]:
    """Return tables for a terminal of `width` columns: rows are implementations, columns are problems.

    One table where everything fits on single lines or on two; otherwise as many as it takes, side columns in the first.
    """
    view = View.of(run)
    stands = standings(view)
    names = list(view.problems["name"])
    longest = max(map(len, view.implementations), default=0)
    if sum(_widths(stands, names, two_lines=False)) + FIXED_WIDTH + min(NAME_WIDTHS[False], longest) <= width:
        return [_table(view, stands, list(view.problems.index), two_lines=False, first=True)]
    room = width - FIXED_WIDTH - min(NAME_WIDTHS[True], longest)
    return [
        _table(view, stands, chunk, two_lines=True, first=place == 0)
        for place, chunk in enumerate(_chunks(view, stands, room))
    ]


def _chunks(view: View, stands: tuple[Standing, ...], room: int) -> list[list[str]]:
    """Share the problems out over tables, greedily; every table gets at least one."""
    chunks: list[list[str]] = [[]]
    used = 0
    widths = _widths(stands, list(view.problems["name"]), two_lines=True)
    for key, wide in zip(view.problems.index, widths, strict=True):
        limit = room if len(chunks) == 1 else room + FIXED_WIDTH
        if chunks[-1] and used + wide > limit:
            chunks.append([])
            used = 0
        chunks[-1].append(str(key))
        used += wide
    return chunks


def _widths(stands: tuple[Standing, ...], names: list[str], *, two_lines: bool) -> list[int]:
    """Return the width of each problem's column with the space beside it."""
    widths = []
    for place, name in enumerate(names):
        entries = [list(stand.entries.values())[place] for stand in stands]
        texts = [_entry_text(entry, two_lines=two_lines) for entry in entries]
        lines = [line for text in [*texts, _heading(name)] for line in text.split("\n")]
        widths.append(max(map(len, lines), default=0) + 1)
    return widths


def _heading(name: str) -> str:
    """Break a problem's name around its shape: `digits (512, 10)` takes two lines."""
    head, bracket, rest = name.partition("(")
    shape, close, extras = rest.partition(")")
    lines = [head.strip(), f"{bracket}{shape}{close}", extras.strip()]
    return "\n".join(filter(None, lines))


def _folded(name: str, width: int) -> str:
    """Break a name after its last hyphen or dot that fits, so that it never breaks within a word."""
    short = plain(name, 2 * width)
    if len(short) <= width:
        return short
    place = max(short.rfind(mark, 0, width) for mark in "-._+") + 1 or width
    return f"{short[:place]}\n{short[place:]}"


def _entry_text(entry: Entry, *, two_lines: bool) -> str:
    if not entry.verdict:
        words = entry.text + (" (declared)" if entry.kind == DECLARED else "")
        return words.replace(" (", "\n(") if two_lines else words
    gap = "\n" if two_lines else " "
    return gap.join(filter(None, [f"{ASCII_SIGNS.get(entry.verdict, '?')} {entry.text}", entry.interval]))


def _table(view: View, stands: tuple[Standing, ...], problems: list[str], *, two_lines: bool, first: bool) -> Table:
    title = f"Speed-up over F.cross_entropy, {view.headline}" if view.headline else "Parity"
    table = Table(
        title=Text(title if first else f"{title} (continued)"),
        caption=Text("+ faster  - slower  = same  ? inconclusive, with confidence interval") if first else None,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column(Text("implementation"), max_width=NAME_WIDTHS[two_lines], overflow="fold")
    if first:
        for heading in ("grade", "set-up", "peak/min"):
            table.add_column(Text(heading), justify="right", no_wrap=True)
    for key in problems:
        table.add_column(Text(_heading(str(view.problems["name"][key]))), justify="right", overflow="fold")
    for stand in stands:
        facts = [stand.grade, seconds(stand.setup_s), stand.memory] if first else []
        entries = [stand.entries[key] for key in problems]
        shown = [Text(_entry_text(entry, two_lines=two_lines), style=STYLES.get(entry.kind, "")) for entry in entries]
        table.add_row(Text(_folded(stand.name, NAME_WIDTHS[two_lines])), *map(Text, facts), *shown)
    return table
