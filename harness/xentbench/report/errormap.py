"""The picture of errors by dtype and family of logits: one panel a dtype, coloured and lettered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from xentbench.report.families import NOT_ASKED, REFUSED, Loss, Losses
from xentbench.report.heatmap import DARK, FAILED, WRONG_TEXT
from xentbench.report.standing import DECLARED, WRONG
from xentbench.report.style import MIN_WIDTH, drawn, sheet
from xentbench.report.text import digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from xentbench.report.hints import Sheet
    from xentbench.report.view import View

SCALE: Final = LinearSegmentedColormap.from_list("ulp", ["#f6f6f4", "#9cc7e6", "#3f8fc9"])
FULL_DECADES: Final = 3.0
"""Powers of ten of error, from 1 ulp on, at which the colour is full."""
MAX_ROWS: Final = 40
KEY: Final = (
    "darker: larger, full at 1000 ulp      ✗ red: wrong      (in brackets): declared      hatched: refused      "
    "blank: not asked"
)
WRONG_BACK: Final = "#f6cfc9"


def errormap(view: View, found: Losses) -> Sheet:
    """Return errors of the loss in ulp: hatched where refused, red where wrong, blank where nothing was asked."""
    asked = f"of logits {', '.join(found.shapes)}, asked alone" if found.shapes else "the worst of this run's problems"
    names = view.implementations[:MAX_ROWS]
    columns = min(2, len(found.dtypes))
    rows = -(-len(found.dtypes) // columns)
    wide = 0.62 * max(len(found.asked(dtype)) for dtype in found.dtypes)
    size = (max(columns * wide + 3.0, MIN_WIDTH), rows * (0.23 * len(names) + 1.2) + 1.2)
    left = f"{len(names)} of {len(view.implementations)} implementations shown"
    told = [asked, left if len(names) < len(view.implementations) else ""]
    figure = sheet(
        view, size, "Error of the loss in ulp, by dtype and family of logits", "  ·  ".join(filter(None, told))
    )
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, dtype in zip(grid.flat, found.dtypes, strict=False):
        _panel(figure, axes, found, (dtype, found.asked(dtype)), names)
    for axes in list(grid.flat)[len(found.dtypes) :]:
        axes.set_visible(False)
    grid[-1, 0].set_xlabel(KEY, fontsize=8, loc="left")
    return figure


def _panel(
    figure: Sheet, axes: Axes, found: Losses, asked: tuple[str, tuple[str, ...]], names: tuple[str, ...]
) -> None:
    dtype, families = asked
    for row, name in enumerate(names):
        for column, family in enumerate(families):
            entry = found.at(name, dtype, family)
            box = _cell(axes, (column, row), entry)
            figure.hint(box, [f"{name}, {dtype}, {family}: {_told(entry)}"])
    axes.set_title(drawn(dtype))
    axes.set_xlim(-0.5, len(families) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks(
        range(len(families)), [drawn(family, 16) for family in families], fontsize=7.5, rotation=20, ha="right"
    )
    axes.set_yticks(range(len(names)), [drawn(name, 30) for name in names], fontsize=8)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _cell(axes: Axes, place: tuple[int, int], entry: Loss) -> Rectangle:
    column, row = place
    number = np.isfinite(entry.error_ulp) and entry.verdict != WRONG
    colour = SCALE(np.clip(np.log10(max(entry.error_ulp, 1.0)) / FULL_DECADES, 0, 1)) if number else FAILED
    hatch = "////" if entry.verdict == REFUSED else None
    if entry.verdict == WRONG:
        colour = WRONG_BACK
    box = Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=colour, edgecolor="#b9b5ae", hatch=hatch)
    box.set_linewidth(0.0)
    box.set_visible(entry.verdict != NOT_ASKED)
    axes.add_patch(box)
    ink = WRONG_TEXT if entry.verdict == WRONG else DARK
    axes.text(column, row, letters(entry), ha="center", va="center", fontsize=7, color=ink)
    return box


def letters(entry: Loss) -> str:
    """Return what stands in a cell: the error, with a mark where it is wrong, in brackets where it was declared."""
    shown = digits(entry.error_ulp)
    if entry.verdict == WRONG:
        return f"✗ {shown}".rstrip()
    return f"({shown or 'declared'})" if entry.verdict == DECLARED else shown


def _told(entry: Loss) -> str:
    error = f"{digits(entry.error_ulp)} ulp, {digits(entry.bound_ratio)} of the bound" if entry.error_ulp >= 0 else ""
    return ", ".join(filter(None, [entry.verdict, f"grade {entry.grade}" if entry.grade else "", error, entry.reason]))
