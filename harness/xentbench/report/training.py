"""Training curves: the loss of every step, and how far it lies from what right implementations come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from xentbench.report.style import MIN_WIDTH, drawn, looks, sheet
from xentbench.report.text import digits

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    from matplotlib.axes import Axes

    from xentbench.report.hints import Sheet
    from xentbench.report.style import Look
    from xentbench.report.view import View

    Array = npt.NDArray[np.float64]

BAND: Final = "#8a8a8a"
FAR: Final = 3.0
"""Distances, in half-widths of the band, beyond which a curve is drawn at the edge."""


def curve(values: object) -> Array:
    """Return a list of a journal as numbers, NaN for what is none; empty where it is no list."""
    listed = values if isinstance(values, (list, tuple)) else ()
    return np.array([v if isinstance(v, (int, float)) else np.nan for v in listed], dtype=float)


def off(losses: Array, low: Array, high: Array) -> Array:
    """Return how far a curve lies from the middle of the band, in half-widths of it: within ±1 it is right.

    Where the band has no width, a curve on it is off by 0 and any other by infinity.
    """
    steps = min(map(len, (losses, low, high)))
    losses, low, high = losses[:steps], low[:steps], high[:steps]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance, half = losses - (low + high) / 2, (high - low) / 2
        told = distance / half
    return np.where(distance == 0, 0.0, told)


def training(view: View, subtitle: str) -> Sheet:
    """Return a column a workload: above the curves with the band, below their distances from it."""
    workloads = list(dict.fromkeys(view.trainings["workload"]))
    size = (max(4.6 * len(workloads) + 2.9, MIN_WIDTH), max(6.4, 0.2 * len(view.implementations) + 2.2))
    figure = sheet(view, size, "Training with each implementation's loss, from the same seed", subtitle)
    grid = figure.subplots(2, len(workloads), squeeze=False, sharex="col", height_ratios=[1.5, 1])
    styles = looks(view)
    for (above, below), workload in zip(grid.T, workloads, strict=True):
        rows = view.trainings[view.trainings["workload"] == workload]
        _band(above, rows)
        above.set_title(drawn(workload))
        for place, row in enumerate(rows.to_dict("records")):
            _curves(figure, (above, below), row, (styles[row["implementation"]], place))
        below.axhspan(-1, 1, color=BAND, alpha=0.25, linewidth=0)
        below.set_ylim(-FAR, FAR)
        below.set_xlabel("optimiser step")
    grid[0, 0].set_ylabel("mean loss of the batch")
    grid[1, 0].set_ylabel("off the middle,\nin half-widths")
    _legend(figure, {name: look for name, look in styles.items() if name in set(view.trainings["implementation"])})
    return figure


def _band(axes: Axes, rows: pd.DataFrame) -> None:
    for low, high in zip(rows["losses_low"], rows["losses_high"], strict=True):
        ends = (curve(low), curve(high))
        if len(ends[0]) and len(ends[0]) == len(ends[1]):
            axes.fill_between(np.arange(1, len(ends[0]) + 1), *ends, color=BAND, alpha=0.35, linewidth=0)
            return


def _curves(figure: Sheet, pair: tuple[Axes, Axes], row: dict[Any, Any], looked: tuple[Look, int]) -> None:
    look, place = looked
    losses = curve(row["losses"])
    apart = np.clip(off(losses, curve(row["losses_low"]), curve(row["losses_high"])), -FAR, FAR)
    # Curves of right implementations lie on each other: each has its marks at steps of its own.
    every = max(1, len(losses) // 8)
    marks = (place * max(1, every // 12) % every, every)
    for axes, values in zip(pair, (losses, apart), strict=True):
        style = {"color": look.colour, "linestyle": look.line, "marker": look.marker, "markersize": 3.5}
        (line,) = axes.plot(np.arange(1, len(values) + 1), values, linewidth=1.1, markevery=marks, **style)
        shown = len(values[marks[0] :: marks[1]])
        figure.hint(line, [_told(row)] * shown)


def _told(row: dict[Any, Any]) -> str:
    ratios = f"curve {digits(row['curve_ratio'])}, weights {digits(row['weights_ratio'])} of the bound"
    return f"{row['implementation']}, {row['workload']}: {row['status']}, {ratios}"


def _legend(figure: Sheet, styles: dict[str, Look]) -> None:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=look.colour, marker=look.marker, markersize=4, linestyle=look.line, linewidth=1.1)
        for look in styles.values()
    ]
    handles.append(Patch(color=BAND, alpha=0.35))
    labels = [*map(drawn, styles), "what right ones come to"]
    figure.legend(handles, labels, loc="outside right center", fontsize=8, handlelength=3)
