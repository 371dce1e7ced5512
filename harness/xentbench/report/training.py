"""Training curves of every implementation, and below them how far each is from the baseline's, in bounds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from xentbench.report.style import INK, MIN_WIDTH, RULE, drawn, looks, sheet
from xentbench.report.text import digits
from xentbench.spec import Status

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes

    from xentbench.report.hints import Sheet
    from xentbench.report.style import Look
    from xentbench.report.view import View

    Array = npt.NDArray[np.float64]

LEAST: Final = 1e-4
"""Distances below are drawn here: those of losses that agree to the last bit are 0."""
TITLE: Final = "Training by each loss"
_LISTS: Final = ("losses", "losses_low", "losses_high")
_COLUMN_IN, _LEGEND_IN, _HEIGHT_IN, _LINE_IN = 4.6, 2.6, 5.6, 0.19
"""Width of a workload's column and of the legend, least height, and height of a line of the legend, in inches."""
SMOOTHED: Final = 10
"""Steps that a point of the curve is the mean of: batches differ more than a model learns in a step."""


def training(view: View) -> Sheet | None:
    """Return the curves with their distances, a column for each workload; None where nobody was trained."""
    rows = _rows(view.trainings)
    curves = [row for row in rows if len(row["losses"])]
    if not curves:
        return None
    look = looks(view)
    workloads = list(dict.fromkeys(row["workload"] for row in curves))
    shown = list(dict.fromkeys(row["implementation"] for row in curves))
    high = max(_HEIGHT_IN, _LINE_IN * len(shown) + 1.5)
    size = (max(MIN_WIDTH, _COLUMN_IN * len(workloads) + _LEGEND_IN), high)
    figure = sheet(view, size, TITLE, _subtitle(rows))
    axes = figure.subplots(2, len(workloads), squeeze=False, height_ratios=(3, 2), sharex="col")
    for column, workload in enumerate(workloads):
        mine = [row for row in curves if row["workload"] == workload]
        _curves(axes[0, column], mine, look)
        _distances(figure, axes[1, column], mine, look)
        axes[0, column].set_title(drawn(workload))
    axes[0, 0].set_ylabel(f"true loss, mean of {SMOOTHED} steps")
    axes[1, 0].set_ylabel("distance / bound")
    handles = [
        Line2D([], [], color=look[name].colour, marker=look[name].marker, markersize=4, linestyle=look[name].line)
        for name in shown
    ]
    figure.legend(handles, list(map(drawn, shown)), loc="outside right center", fontsize=8, handlelength=3)
    return figure


def _rows(trainings: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows with their curves as numbers; what is no list of numbers is an empty curve."""
    records = trainings.to_dict("records")
    return [
        {**{str(key): value for key, value in record.items()}, **{name: _numbers(record.get(name)) for name in _LISTS}}
        for record in records
    ]


def _numbers(value: object) -> Array:
    held = value if isinstance(value, list | tuple | np.ndarray) else ()
    numbers: Array = pd.to_numeric(pd.Series(list(held), dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    return numbers


def _subtitle(rows: list[dict[str, Any]]) -> str:
    """Say what is drawn, and how many did not pass."""
    ends = Counter(row["status"] for row in rows if row["status"] != Status.PASSED)
    told = [f"{count} of {len(rows)} {status}" for status, count in ends.most_common()]
    what = "below: distance from F.cross_entropy, dashed what rounding explains"
    return "  ·  ".join([what, *(told or ["all within it"])])


def _curves(axes: Axes, rows: list[dict[str, Any]], look: dict[str, Look]) -> None:
    """Draw running means, within the band of the baseline's; right ones lie on top of each other."""
    band = max(rows, key=lambda row: len(row["losses_low"]))
    if len(band["losses_low"]) == len(band["losses_high"]):
        low, high = (_smooth(band[name]) for name in ("losses_low", "losses_high"))
        axes.fill_between(np.arange(len(low)), low, high, color=INK, alpha=0.5, linewidth=1.6)
    for row in rows:
        line = look[row["implementation"]]
        axes.plot(_smooth(row["losses"]), color=line.colour, linestyle=line.line, linewidth=1.1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _distances(figure: Sheet, axes: Axes, rows: list[dict[str, Any]], look: dict[str, Look]) -> None:
    """Draw distances on a logarithmic axis; a curve that ends in NaN has no distance from there on."""
    for row in rows:
        line = look[row["implementation"]]
        far = np.maximum(_distance(row), LEAST)
        place = len(far) // 2
        (drawn_line,) = axes.plot(
            far,
            color=line.colour,
            linestyle=line.line,
            linewidth=1.1,
            marker=line.marker,
            markersize=4,
            markevery=[place] if len(far) else [],
        )
        figure.hint(drawn_line, [_told(row)])
    axes.axhline(1.0, color=INK, linestyle="--", linewidth=0.9)
    axes.set_yscale("log")
    axes.set_ylim(bottom=LEAST / 2)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("step")
    axes.grid(axis="y", color=RULE)


def _smooth(losses: Array) -> Array:
    """Return the running mean of the last steps; NaN from where the curve is."""
    means: Array = pd.Series(losses).rolling(SMOOTHED, min_periods=1).mean().to_numpy()
    return np.where(np.isnan(losses), np.nan, means)


def _distance(row: dict[str, Any]) -> Array:
    """Return how far each loss is from the middle of its band, in half-widths of it."""
    losses, low, high = (row[name] for name in _LISTS)
    if not len(losses) == len(low) == len(high):
        return np.zeros(0)
    half = (high - low) / 2.0
    with np.errstate(all="ignore"):
        far: Array = np.where(half > 0.0, np.abs(losses - (low + high) / 2.0) / half, np.nan)
    return far


def _told(row: dict[str, Any]) -> str:
    ratios = f"curve {digits(row['curve_ratio'])}, weights {digits(row['weights_ratio'])} of the bound"
    return f"{row['implementation']}, {row['workload']}: {row['status']}, {ratios}"
