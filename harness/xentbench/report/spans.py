"""Intervals beside names, one panel a problem: what can be told apart from 1, and from one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xentbench.report.measures import Measure, hint
from xentbench.report.panels import bars, log_axis, loose
from xentbench.report.picks import DEFAULT, cold
from xentbench.report.style import INK, LIMIT, MIN_WIDTH, PAPER, drawn, looks, sheet
from xentbench.spec import Status

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xentbench.report.style import Look
    from xentbench.report.view import View


def intervals(view: View, measure: Measure, phase: str, subtitle: str) -> Figure:
    """Return one panel a problem: each implementation's interval beside its name, or the word for why there is none."""
    problems = loose(view.problems)
    columns = min(3, len(problems))
    rows = -(-len(problems) // columns)
    names = [drawn(name) for name in view.implementations]
    margin = 0.075 * max(map(len, names), default=0)
    size = (max(3.3 * columns + margin + 0.4, MIN_WIDTH), rows * (0.2 * len(names) + 0.75) + 1.2)
    figure = sheet(view, size, f"{measure.title}, {phase}", subtitle)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    cells, styles = view.phase(phase), looks(view)
    for axes, (key, name) in zip(grid.flat, problems["name"].items(), strict=False):
        _panel(axes, measure, cells[cells.index.get_level_values("problem") == key], styles)
        axes.set_title(drawn(name, LIMIT))
    for axes in list(grid.flat)[len(problems) :]:
        axes.set_visible(False)
    first = grid[0, 0]
    first.set_yticks(range(len(names)), names)
    first.set_ylim(len(names) - 0.4, -0.6)
    log_axis(first, measure, axis="x")
    for axes in list(grid.flat)[max(0, len(problems) - columns) : len(problems)]:
        axes.set_xlabel(measure.axis)
        axes.tick_params(labelbottom=True)
    return figure


def _panel(axes: Axes, measure: Measure, rows: pd.DataFrame, styles: dict[str, Look]) -> None:
    axes.axvline(1.0, color=INK, linewidth=1.0)
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    kept, chilled = (frame.droplevel("problem").to_dict("index") for frame in (rows, cold(rows)))
    for place, (name, look) in enumerate(styles.items()):
        if measure.beside and np.isfinite(chilled[name][measure.value]):
            row = chilled[name] | {"label": f"{chilled[name]['label']}, {DEFAULT}"}
            _interval(axes, measure, (name, row), (place + 0.22, look), hollow=True)
        if np.isfinite(kept[name][measure.value]):
            _interval(axes, measure, (name, kept[name]), (place, look))
        else:
            _word(axes, kept[name]["status"], place)


def _interval(
    axes: Axes,
    measure: Measure,
    named: tuple[str, dict[Any, Any]],
    looked: tuple[float, Look],
    *,
    hollow: bool = False,
) -> None:
    """Draw one interval with its mark; that of the default allocator is thin, and its mark is open."""
    (name, row), (place, look), at = named, looked, np.array([looked[0]])
    if measure.ends:
        low, high = (np.array([row[end]]) for end in measure.ends)
        bars(axes, at, low, high, look, upright=False, width=0.9 if hollow else 2.4)
    inside = PAPER if hollow else look.colour
    style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "markersize": 4, "markerfacecolor": inside}
    (mark,) = axes.plot([row[measure.value]], [place], linestyle="none", **style)
    hint(mark, measure, [row], name)


def _word(axes: Axes, status: str, place: int) -> None:
    """Write why there is no number, on paper of its own: a line of the grid through a word is hard to read."""
    word = "not timed" if status == Status.PASSED else drawn(status)
    back = {"facecolor": PAPER, "edgecolor": "none", "boxstyle": "square,pad=0.1"}
    across = axes.get_yaxis_transform()
    axes.text(0.03, place, word, transform=across, fontsize=7, va="center", style="italic", alpha=0.75, bbox=back)
