"""The summary: one picture, 16:9 or lower, fit to paste into a pull request or onto a slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from xentbench.report.picks import spread
from xentbench.report.standing import DECLARED, RIGHT, WRONG, Entry, Standing, standings
from xentbench.report.style import INK, RULE, drawn, sheet
from xentbench.report.text import SIGNS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xentbench.report.view import View

SIZE: Final = (12.8, 7.2)
"""Inches, the most; 16:9."""
ROW, AROUND = 0.62, 2.1
"""Inches of a row at most, and of all that stands around the rows: a few rows make a low picture, no huge bars."""
MAX_PROBLEMS: Final = 10
"""Columns that stay legible on a slide; of more problems, an even choice by size is shown, and said to be one."""
MAX_ROWS: Final = 32
FULL_COLOUR: Final = 2.0
"""Octaves (factors of two) of speed-up at which the colour is full: 4x and 0.25x."""
# Orange to blue through near-white: the diverging pair that every common colour-blindness keeps apart.
SCALE: Final = LinearSegmentedColormap.from_list("speedup", ["#e08a2e", "#f3c897", "#f6f6f4", "#9cc7e6", "#3f8fc9"])
DARK: Final = "#15181c"
"""Text on coloured cells: stays dark when a page recolours the ink."""
FAILED: Final = "#eceae6"
WRONG_TEXT: Final = "#b3261e"


def summary(view: View, subtitle: str) -> Figure:
    """Return speed-ups as coloured, lettered cells; a cell that has none is hatched and says why."""
    stands = standings(view)[:MAX_ROWS]
    problems = spread(view.problems, MAX_PROBLEMS)
    left_out = [
        f"{len(problems)} of {len(view.problems)} problems shown" if len(problems) < len(view.problems) else "",
        f"{len(stands)} of {len(view.implementations)} implementations shown"
        if len(view.implementations) > MAX_ROWS
        else "",
    ]
    title = f"Speed-up over F.cross_entropy, {view.headline}" if view.headline else "Parity with F.cross_entropy"
    size_in = (SIZE[0], min(SIZE[1], ROW * len(stands) + AROUND))
    figure = sheet(view, size_in, title, "  ·  ".join(filter(None, [subtitle, *left_out])))
    axes = figure.subplots()
    size = float(np.clip(150 / max(len(stands), 1), 5.0, 11.0)) * min(1.0, 8 / max(len(problems), 1)) ** 0.5
    for row, stand in enumerate(stands):
        for column, key in enumerate(problems.index):
            entry = stand.entries[str(key)]
            said = f"{entry.verdict} {entry.text} {entry.interval}" if entry.verdict else f"{entry.text} {entry.reason}"
            figure.hint(_cell(axes, (column, row), entry, size), [f"{stand.name}, {problems['name'][key]}: {said}"])
    _frame(axes, stands, problems, size)
    return figure


def _cell(axes: Axes, place: tuple[int, int], entry: Entry, size: float) -> Rectangle:
    column, row = place
    timed = bool(entry.verdict)
    # What is uncertain has no colour: 1.3x, where the interval begins at 0.4x, is no sign of speed.
    colour = SCALE(0.5 + np.log2(entry.shown) / (2 * FULL_COLOUR)) if timed else FAILED
    hatch = None if timed or entry.kind == RIGHT else "////"
    box = Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=colour, edgecolor="#cfccc6", hatch=hatch)
    box.set_linewidth(0.0)
    axes.add_patch(box)
    if timed:
        weight = "bold" if entry.verdict == "faster" else "normal"
        text = f"{SIGNS.get(entry.verdict, '?')} {entry.text}"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=DARK, fontweight=weight)
        return box
    word = drawn(entry.text, 20) + (" (declared)" if entry.kind == DECLARED else "")
    ink = WRONG_TEXT if entry.kind == WRONG else DARK
    back = {"facecolor": FAILED, "edgecolor": "none", "boxstyle": "square,pad=0.15"}
    axes.text(column, row, word, ha="center", va="center", fontsize=size * 0.82, color=ink, style="italic", bbox=back)
    return box


def _frame(axes: Axes, stands: tuple[Standing, ...], problems: pd.DataFrame, size: float) -> None:
    axes.set_xlim(-0.5, len(problems) - 0.5)
    axes.set_ylim(len(stands) - 0.5, -0.5)
    names = [drawn(name, 28).replace(" (", "\n(", 1).replace(") ", ")\n", 1) for name in problems["name"]]
    axes.set_xticks(range(len(problems)), names, fontsize=size * min(1.0, 8 / max(len(problems), 1)))
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(stands)), [drawn(stand.name, 30) for stand in stands], fontsize=size)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(stands)), [stand.grade or "·" for stand in stands], fontsize=size)
    axes.text(1.005, 1.012, "grade", transform=axes.transAxes, fontsize=size, va="bottom", ha="left", color=INK)
    beyond = axes.secondary_yaxis(1.055)
    beyond.set_yticks(range(len(stands)), [stand.memory or "·" for stand in stands], fontsize=size)
    axes.text(
        1.06, 1.012, "peak /\nminimum", transform=axes.transAxes, fontsize=size, va="bottom", ha="left", color=INK
    )
    axes.grid(visible=False)
    for side in (axes, right, beyond):
        side.tick_params(length=0)
        for spine in side.spines.values():
            spine.set_visible(False)
    key = "▲ faster   ▼ slower   = same   ? inconclusive      blue faster, orange slower, by the interval's nearer end"
    axes.set_xlabel(key, fontsize=8, loc="left")
    axes.axhline(-0.5, color=RULE, linewidth=0.8)
