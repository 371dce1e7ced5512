"""Ways to draw one measured quantity: curves against the number of classes, and dots by problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from xentbench.report.measures import Measure, hint, told
from xentbench.report.style import INK, MIN_WIDTH, RULE, drawn, looks, sheet

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xentbench.report.style import Look
    from xentbench.report.view import View

    Array = npt.NDArray[np.float64]

CONDITIONS: Final = ("dtype", "device", "logits", "reduction")
MIN_CLASSES: Final = 3
"""Fewest different numbers of classes that make a curve."""
SUBTICKS: Final = (1.0, 2.0, 5.0)
DECADE: Final = 10.0
WIDE_DECADES: Final = 2.5
"""Span of an axis, in decades, beyond which only powers of ten are written."""
LEVEL_GAP, UPRIGHT_GAP = 0.13, 0.035
"""Least distance of labels on the axis of classes, as a share of its length, when they lie level and upright."""


def sweeps(problems: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the groups of problems that differ in their number of classes alone, each with its title.

    Recorded workloads have one shape each and never make a curve.
    """
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for key, row in problems[["batch_size", *CONDITIONS]].to_dict("index").items():
        # None for unbatched: NaN is no key, since it does not equal itself.
        size = row["batch_size"] if row["batch_size"] >= 0 else None
        groups.setdefault((size, *(row[name] for name in CONDITIONS)), []).append(key)
    classes = problems["num_classes"].to_dict()
    found = {key: keys for key, keys in groups.items() if len({classes[k] for k in keys}) >= MIN_CLASSES}
    varied = [place for place in range(1, len(CONDITIONS) + 1) if len({key[place] for key in found}) > 1]
    return [(_sweep_title(key, varied), problems.loc[keys].sort_values("num_classes")) for key, keys in found.items()]


def _sweep_title(key: tuple[Any, ...], varied: list[int]) -> str:
    size = "unbatched" if key[0] is None else f"N = {key[0]:.0f}"
    return ", ".join([size, *(str(key[place]) for place in varied)])


def curves(view: View, measure: Measure, phase: str, subtitle: str) -> Figure:
    """Return the measure against the number of classes, both axes logarithmic, one panel a batch size."""
    panels = sweeps(view.problems)
    columns = 2 if len(panels) == 4 else min(len(panels), 3)  # noqa: PLR2004 - two by two leaves no hole
    rows = -(-len(panels) // columns)
    height = max(3.9 * rows + 1.0, 0.2 * len(view.implementations) + 2.2)
    figure = sheet(view, (max(4.3 * columns + 2.9, MIN_WIDTH), height), f"{measure.title}, {phase}", subtitle)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    cells, styles = view.phase(phase), looks(view)
    for axes, (title, problems) in zip(grid.flat, panels, strict=False):
        _curve_panel(axes, measure, cells, problems, styles)
        axes.set_title(drawn(title, 60))
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(measure.axis)
    log_axis(grid[0, 0], measure, axis="y")
    _leave_deep_floor_out(grid[0, 0], measure, cells)
    _legend(figure, measure, cells, styles, lines=True)
    return figure


def _curve_panel(
    axes: Axes, measure: Measure, cells: pd.DataFrame, problems: pd.DataFrame, styles: dict[str, Look]
) -> None:
    classes = problems["num_classes"].to_numpy(float)
    axes.set_xscale("log")
    # Intervals at the same C would hide each other, so they stand a little apart, in plan order; not where there is a
    # floor, because on a steep curve a step to the side looks like a step below it.
    step = 1.0 if measure.floor else 10 ** (0.012 * np.log10(classes[-1] / classes[0]))
    for place, (name, look) in enumerate(styles.items()):
        rows = cells.loc[[(name, key) for key in problems.index]]
        beside = classes * step ** ((place - (len(styles) - 1) / 2) / max(len(styles), 1) * 4)
        _points(axes, measure, rows, beside, look, line=True)
    if measure.floor:
        floor = cells.groupby("problem")[measure.floor].max().reindex(problems.index).to_numpy(float)
        axes.plot(classes, _positive(floor), color=INK, linestyle=(0, (4, 3)), linewidth=1.2)
    if measure.unit == "x":
        axes.axhline(1.0, color=INK, linewidth=1.0)
    _class_ticks(axes, classes)


def _class_ticks(axes: Axes, classes: Array) -> None:
    """Write every number of classes that was run: upright where they stand close, left out where still too close."""
    gaps = np.diff(np.log10(classes)) / np.log10(classes[-1] / classes[0])
    shown = [*(gap > UPRIGHT_GAP for gap in gaps), True]
    axes.xaxis.set_major_locator(FixedLocator(list(classes)))
    texts = [f"{value:.0f}" if show else "" for value, show in zip(classes, shown, strict=True)]
    axes.xaxis.set_major_formatter(FixedFormatter(texts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelrotation=90 if gaps.min() < LEVEL_GAP else 0)
    axes.set_xlabel("number of classes C")


def _positive(values: Array) -> Array:
    """Return `values` with what a logarithmic axis cannot show made NaN."""
    return np.where(values > 0, values, np.nan)


def _points(axes: Axes, measure: Measure, rows: pd.DataFrame, places: Array, look: Look, *, line: bool) -> None:
    values = _positive(rows[measure.value].to_numpy(float))
    if measure.ends:
        low, high = (_positive(rows[end].to_numpy(float)) for end in measure.ends)
        bars(axes, places, low, high, look, upright=True)
    style = look.line if line else "none"
    (marks,) = axes.plot(
        places, values, color=look.colour, marker=look.marker, markersize=4.5, linestyle=style, linewidth=1.2
    )
    shown = rows[np.isfinite(values)]
    hint(marks, measure, told(shown, measure), str(rows.index[0][0]))


def bars(axes: Axes, places: Array, low: Array, high: Array, look: Look, *, upright: bool, width: float = 1.1) -> None:
    """Draw intervals as one broken line: a file with a path for each would be three times as large."""
    along = np.column_stack([low, high, np.full_like(low, np.nan)]).ravel()
    across = np.repeat(places, 3)
    axes.plot(*((across, along) if upright else (along, across)), color=look.colour, linewidth=width, alpha=0.8)


def _rings(axes: Axes, measure: Measure, rows: pd.DataFrame, places: Array, look: Look) -> None:
    """Draw open marks of the other way of measuring: of memory, around the dots where the two agree."""
    shown, size = _positive(rows[measure.beside].to_numpy(float)), 8.0 if measure.within else 4.5
    style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "markersize": size, "fillstyle": "none"}
    axes.plot(places, shown, linestyle="none", **style)


def _stems(axes: Axes, measure: Measure, rows: pd.DataFrame, places: Array, look: Look) -> None:
    """Join each dot to the part of it that lies below, or to the edge of the axis where that is next to nothing."""
    parts = np.maximum(rows[measure.within].to_numpy(float), 1e-9)
    bars(axes, places, parts, _positive(rows[measure.value].to_numpy(float)), look, upright=True)
    axes.plot(places, parts, color=look.colour, marker="_", markersize=6, linestyle="none")


def _leave_deep_floor_out(axes: Axes, measure: Measure, cells: pd.DataFrame) -> None:
    """Let a time axis end a decade below the fastest call: a floor far beneath tells nothing and flattens all else."""
    lowest = cells[measure.value].min()
    if measure.unit == "s" and lowest > 0 and axes.get_ylim()[0] < lowest / DECADE:
        axes.set_ylim(bottom=lowest / DECADE)


def log_axis(axes: Axes, measure: Measure, *, axis: str) -> None:
    """Make an axis logarithmic, with few enough written ticks and SI prefixes."""
    (axes.set_yscale if axis == "y" else axes.set_xscale)("log")
    shared = axes.get_shared_y_axes() if axis == "y" else axes.get_shared_x_axes()
    for sibling in shared.get_siblings(axes):
        sibling.margins(**{axis: 0.0})
    low, high = axes.get_ylim() if axis == "y" else axes.get_xlim()
    narrow = np.log10(high / low) < WIDE_DECADES
    # Out to the next written tick: without it nobody can read off where the best entrants lie.
    ends = (_written(low, up=False) * 0.97, _written(high, up=True) * 1.03) if narrow else (low / 1.5, high * 1.5)
    (axes.set_ylim if axis == "y" else axes.set_xlim)(*ends)
    side = axes.yaxis if axis == "y" else axes.xaxis
    side.set_major_locator(LogLocator(subs=SUBTICKS if narrow else (1.0,), numticks=12))
    side.set_major_formatter(FuncFormatter(measure.tick))
    side.set_minor_formatter(NullFormatter())
    if not narrow:  # eight small ticks a decade cost more than all marks, and tell less than the written powers of ten
        side.set_minor_locator(NullLocator())


def _written(value: float, *, up: bool) -> float:
    """Return the nearest of 1, 2, 5, 10, … (times any power of ten) at or beyond `value`."""
    decade = float(np.floor(np.log10(value)))
    ticks: list[float] = [sub * 10.0 ** (decade + shift) for shift in (-1, 0, 1) for sub in SUBTICKS]
    return min(t for t in ticks if t >= value * 0.999) if up else max(t for t in ticks if t <= value * 1.001)


def _legend(figure: Figure, measure: Measure, cells: pd.DataFrame, styles: dict[str, Look], *, lines: bool) -> None:
    """Name the implementations that were drawn, and the floor, to the right of all panels."""
    shown = cells[measure.value].groupby("implementation").count()
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, markersize=5, linestyle=look.line if lines else "")
        for name, look in styles.items()
        if shown[name]
    ]
    labels = [drawn(name) for name in styles if shown[name]]
    if measure.floor and cells[measure.floor].notna().any():
        handles.append(Line2D([], [], color=INK, linestyle=(0, (4, 3)), linewidth=1.2))
        labels.append(measure.floor_label)
    if measure.unit == "x":
        handles.append(Line2D([], [], color=INK, linewidth=1.0))
        labels.append("F.cross_entropy")
    figure.legend(handles, labels, loc="outside right center", fontsize=8, handlelength=3 if lines else 1.6)


def loose(problems: pd.DataFrame) -> pd.DataFrame:
    """Return the problems that lie on no curve, in plan order."""
    on_curves = {key for _, group in sweeps(problems) for key in group.index}
    return problems[[key not in on_curves for key in problems.index]]


def dots(view: View, measure: Measure, phase: str, subtitle: str) -> Figure:
    """Return the measure by problem, in plan order as everywhere: for problems that lie on no common curve."""
    cells, styles = view.phase(phase), looks(view)
    problems = loose(view.problems)
    size = (max(1.55 * len(problems) + 3.2, MIN_WIDTH), max(5.2, 0.2 * len(styles) + 2.2))
    figure = sheet(view, size, f"{measure.title}, {phase}", subtitle)
    axes = figure.subplots()
    centres = np.arange(len(problems), dtype=float)
    each = {name: cells.loc[[(name, key) for key in problems.index]] for name in styles}
    shifts = np.linspace(-0.35, 0.35, len(styles)) if len(styles) > 1 else np.zeros(1)
    for shift, (name, look) in zip(shifts, styles.items(), strict=False):
        _points(axes, measure, each[name], centres + shift, look, line=False)
        if measure.beside:
            _rings(axes, measure, each[name], centres + shift, look)
    if measure.floor:
        floor = cells.groupby("problem")[measure.floor].max().reindex(problems.index).to_numpy(float)
        axes.hlines(_positive(floor), centres - 0.45, centres + 0.45, color=INK, linestyle=(0, (4, 3)), linewidth=1.2)
    for edge in centres[1:] - 0.5:
        axes.axvline(edge, color=RULE, linewidth=0.8)
    names = [drawn(name).replace(" (", "\n(", 1).replace(") ", ")\n", 1) for name in problems["name"]]
    axes.set_xticks(list(centres), names)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(problems) - 0.5)
    axes.set_ylabel(measure.axis)
    axes.set_xlabel("problem")
    log_axis(axes, measure, axis="y")
    _leave_deep_floor_out(axes, measure, cells)
    if measure.within:  # now that the axis stands: a part may be next to nothing, and shall not stretch it
        for shift, (name, look) in zip(shifts, styles.items(), strict=False):
            _stems(axes, measure, each[name], centres + shift, look)
    _legend(figure, measure, cells, styles, lines=False)
    return figure
