"""The quantities that are drawn, and what a mark says of its cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xentbench.report.hints import Sheet
from xentbench.report.text import count_bytes, interval, seconds, tick, times

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from matplotlib.lines import Line2D


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity of the cells and how it is drawn.

    Attributes:
        name: of the files.
        title: of the figures.
        axis: label of its axis.
        value: column.
        ends: columns of the ends of its interval, or none.
        floor: column of a bound that nothing can beat, or empty.
        floor_label: what that bound is.
        unit: SI unit, or `x` for a factor.
        within: column of a part of the value, where dots are joined down to it, or empty.
        beside: column of the value as measured in another way, an open mark where dots are drawn, or empty.
    """

    name: str
    title: str
    axis: str
    value: str
    ends: tuple[str, str] | None
    floor: str
    floor_label: str
    unit: str
    within: str = ""
    beside: str = ""

    def tick(self, value: float, _place: int | None = None) -> str:
        """Return the label of a tick."""
        return f"{value:.4g}x" if self.unit == "x" else tick(value, self.unit)

    def text(self, row: Mapping[Any, Any]) -> str:
        """Return the value of a cell and its interval, e.g. `1.32x [1.28, 1.37]`, or `4.20 µs (4.10 µs to 5.00 µs)`."""
        show = times if self.unit == "x" else seconds if self.unit == "s" else count_bytes
        if not self.ends:
            return show(row[self.value])
        low, high = (row[end] for end in self.ends)
        around = interval(low, high) if self.unit == "x" else f"({show(low)} to {show(high)})"
        return f"{show(row[self.value])} {around}"


LATENCY: Final = Measure(
    *("latency", "Latency", "latency of one call", "latency_s", ("latency_p05_s", "latency_p95_s")),
    *("floor_s", "floor: bytes / bandwidth", "s", "", "cold_latency_s"),
)
SPEEDUP: Final = Measure(
    *("speedup", "Speed-up over F.cross_entropy", "speed-up", "speedup", ("speedup_low", "speedup_high")),
    *("", "", "x", "", "cold_ratio"),
)
MEMORY: Final = Measure(
    *("memory", "Peak memory", "peak extra memory", "peak_bytes", None),
    *("minimum_bytes", "analytic minimum", "B", "saved_bytes", "peak_resident_bytes"),
)


def hint(marks: Line2D, measure: Measure, rows: Iterable[Mapping[Any, Any]], name: str) -> None:
    """Let each mark tell its cell of one implementation, in the order of `rows`."""
    figure = marks.get_figure(root=True)
    if isinstance(figure, Sheet):
        figure.hint(marks, [f"{name}, {row['label']}: {measure.text(row)}" for row in rows])


def told(rows: pd.DataFrame, measure: Measure) -> list[dict[Any, Any]]:
    """Return of each cell what a hint tells; all columns of a frame would take ten times as long."""
    return rows[["label", measure.value, *(measure.ends or ())]].to_dict("records")
