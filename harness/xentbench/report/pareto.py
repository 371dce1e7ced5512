"""Accuracy, speed and memory in one view, and who is beaten in none of the three."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from xentbench.report.measures import SPEEDUP
from xentbench.report.panels import bars, log_axis
from xentbench.report.picks import MAX_SIZES, spread
from xentbench.report.style import INK, LIMIT, MIN_WIDTH, PAPER, drawn, looks, sheet
from xentbench.report.text import digits, factor_or_bytes, interval, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from xentbench.report.hints import Sheet
    from xentbench.report.style import Look
    from xentbench.report.view import View

LEAST_ULP: Final = 0.05
"""Errors below are drawn here: a twentieth of a unit in the last place is nothing."""
LEAST_SIZE, SIZE_AN_OCTAVE = 5.5, 2.4
"""Points across a mark of the least possible memory, and what each doubling adds."""
MOST_OCTAVES: Final = 5.0


@dataclass(frozen=True, slots=True)
class Rival:
    """One implementation on one problem.

    Attributes:
        name: of the implementation.
        speedup: baseline's time over its own; `low` and `high` are the ends of its interval.
        error_ulp: of the loss.
        memory_ratio: peak over the least possible, NaN where no factor of it would mean anything.
        peak_bytes: peak memory.
    """

    name: str
    speedup: float
    low: float
    high: float
    error_ulp: float
    memory_ratio: float
    peak_bytes: float

    def beats(self, other: Rival) -> bool:
        """Whether it is no worse in accuracy and memory, and shown to be faster, or better in these and as fast."""
        if self.error_ulp > other.error_ulp or self.peak_bytes > other.peak_bytes:
            return False
        better = self.error_ulp < other.error_ulp or self.peak_bytes < other.peak_bytes
        return self.low > other.high or (better and self.speedup >= other.speedup)


def rivals(view: View) -> dict[str, list[Rival]]:
    """Return, by problem, everybody who is right there, was timed in the headline phase, and whose error is known."""
    errors = view.verdicts.set_index(["implementation", "problem"])["error_ulp"].to_dict()
    cells = view.cells[(view.cells["phase"] == view.headline) & view.cells["speedup"].notna()]
    found: dict[str, list[Rival]] = {}
    for row in cells.to_dict("records"):
        error = errors.get((row["implementation"], row["problem"]), np.nan)
        if error >= 0:
            found.setdefault(row["problem"], []).append(_rival(row, error))
    return found


def _rival(row: dict[Any, Any], error_ulp: float) -> Rival:
    ends = (row["speedup_low"], row["speedup_high"])
    low, high = ends if np.isfinite(ends).all() else (0.0, np.inf)
    peak = row["peak_bytes"] if row["peak_bytes"] >= 0 else np.inf
    return Rival(row["implementation"], row["speedup"], low, high, error_ulp, row["memory_ratio"], peak)


def unbeaten(these: list[Rival]) -> list[Rival]:
    """Return the frontier: those whom nobody beats."""
    return [one for one in these if not any(other.beats(one) for other in these if other is not one)]


def pareto(view: View, subtitle: str) -> Sheet:
    """Return a panel a problem: speed-up against error, marks larger with memory, the frontier ringed."""
    known = rivals(view)
    problems = spread(view.problems[[key in known for key in view.problems.index]], MAX_SIZES)
    columns = min(3, len(problems))
    rows = -(-len(problems) // columns)
    size = (max(3.6 * columns + 2.9, MIN_WIDTH), max(3.1 * rows + 1.0, 0.2 * len(view.implementations) + 2.8))
    figure = sheet(view, size, f"Accuracy, speed and memory, {view.headline}", subtitle)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    styles = looks(view)
    for axes, (key, name) in zip(grid.flat, problems["name"].items(), strict=False):
        _panel(figure, axes, known[str(key)], styles, str(name))
    for axes in list(grid.flat)[len(problems) :]:
        axes.set_visible(False)
    for axes in list(grid.flat)[max(0, len(problems) - columns) : len(problems)]:
        axes.set_xlabel("speed-up, faster to the right")
        axes.tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel("error of the loss in ulp, less is better")
    log_axis(grid[0, 0], SPEEDUP, axis="x")
    _error_axis(grid[0, 0])
    seen = {rival.name for key in problems.index for rival in known[str(key)]}
    _legend(figure, {name: look for name, look in styles.items() if name in seen})
    return figure


def _panel(figure: Sheet, axes: Axes, these: list[Rival], styles: dict[str, Look], title: str) -> None:
    axes.axvline(1.0, color=INK, linewidth=1.0)
    axes.set_title(drawn(title, LIMIT))
    ringed = {rival.name for rival in unbeaten(these)}
    # Large marks first: a small one, which needs less memory, stays in sight on top of them.
    for rival in sorted(these, key=lambda one: -_across(one)):
        look, at = styles[rival.name], np.array([max(rival.error_ulp, LEAST_ULP)])
        if np.isfinite(rival.high):
            bars(axes, at, np.array([rival.low]), np.array([rival.high]), look, upright=False)
        edge = (
            {"markeredgecolor": INK, "markeredgewidth": 1.6}
            if rival.name in ringed
            else {"markeredgecolor": PAPER, "markeredgewidth": 0.3}
        )
        style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "markersize": _across(rival), **edge}
        (mark,) = axes.plot([rival.speedup], at, linestyle="none", **style)
        figure.hint(mark, [_told(rival, ringed=rival.name in ringed)])


def _across(rival: Rival) -> float:
    octaves = np.clip(np.log2(rival.memory_ratio), 0, MOST_OCTAVES) if rival.memory_ratio > 0 else 0.0
    return LEAST_SIZE + SIZE_AN_OCTAVE * float(octaves)


def _told(rival: Rival, *, ringed: bool) -> str:
    speed = f"{times(rival.speedup)} {interval(rival.low, rival.high)}".rstrip()
    memory = f"{factor_or_bytes(rival.memory_ratio, rival.peak_bytes)} peak memory"
    return ", ".join([f"{rival.name}: {speed}", f"{digits(rival.error_ulp)} ulp", memory, *["unbeaten"] * ringed])


def _error_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    room = max(1.3, (10 / (high / low)) ** 0.5)  # a decade at least: half an ulp more or less shall look like little
    axes.set_ylim(low / room, high * room)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Sheet, styles: dict[str, Look]) -> None:
    plain: dict[str, Any] = {"linestyle": "none", "markersize": 5}
    handles = [Line2D([], [], color=look.colour, marker=look.marker, **plain) for look in styles.values()]
    ring: dict[str, Any] = {"marker": "o", "color": PAPER, "markeredgecolor": INK, "markeredgewidth": 1.6}
    handles.append(Line2D([], [], markersize=7, linestyle="none", **ring))
    octaves = (0, 1, 2)
    grey: dict[str, Any] = {"marker": "o", "color": "#8a8a8a", "linestyle": "none"}
    handles += [Line2D([], [], markersize=LEAST_SIZE + SIZE_AN_OCTAVE * n, **grey) for n in octaves]
    labels = [*map(drawn, styles), "ringed: beaten in none of the three"]
    labels += [f"peak memory {2**n}x the minimum" for n in octaves]
    figure.legend(handles, labels, loc="outside right center", fontsize=8, handlelength=1.6)
