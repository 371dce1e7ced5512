"""Figures of a run, by matplotlib's object-oriented interface alone: no global figure, no screen, no state."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.transforms import Bbox

from xentbench.files import write_atomically
from xentbench.report import heatmap
from xentbench.report.errormap import errormap
from xentbench.report.families import losses
from xentbench.report.hints import hinted, rounded
from xentbench.report.measures import LATENCY, MEMORY, SPEEDUP, Measure
from xentbench.report.panels import curves, dots, loose, sweeps
from xentbench.report.pareto import pareto, rivals
from xentbench.report.picks import cold
from xentbench.report.regimes import has_faults
from xentbench.report.spans import intervals
from xentbench.report.style import settings
from xentbench.report.training import training
from xentbench.report.view import View
from xentbench.spec import Phase, Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from xentbench.report.view import RunLike

DPI: Final = 150
CLASSES: Final = "-classes"
"""End of the name of a figure against the number of classes, beside one of all problems."""


def latency(run: RunLike | View, phase: str = Phase.FORWARD_BACKWARD) -> Figure:
    """Return latency in seconds, p05 to p95, with the floor: against C where the grid has curves, else by problem."""
    return _figure(View.of(run), LATENCY, phase)


def speedup(run: RunLike | View, phase: str = Phase.FORWARD_BACKWARD) -> Figure:
    """Return speed-ups over F.cross_entropy with intervals: against C where the grid has curves, else by problem."""
    return _figure(View.of(run), SPEEDUP, phase)


def memory(run: RunLike | View, phase: str = Phase.FORWARD_BACKWARD) -> Figure:
    """Return peak memory in bytes, with the analytic minimum: against C where the grid has curves, else by problem."""
    return _figure(View.of(run), MEMORY, phase)


def summary(run: RunLike | View) -> Figure:
    """Return one picture of all in the headline phase: implementations by problems, 16:9, lower where rows are few."""
    view = View.of(run)
    with settings():
        return heatmap.summary(view, _conditions(view))


def figures(run: RunLike | View) -> dict[str, Figure]:
    """Return every figure that the run has numbers for, by file name without ending; headline phase first.

    A grid that has curves and other problems too gets both kinds: `latency-forward+backward-classes` beside
    `latency-forward+backward`. Memory is drawn for the headline phase and for forward. Curves with the default
    allocator, where it was timed as well, are a figure of their own; elsewhere they are open marks beside the others.
    """
    view = View.of(run)
    drawings = {"summary": summary(view)} if len(view.implementations) and len(view.problems) else {}
    phases = sorted(view.phases, key=lambda phase: phase != view.headline)
    some = [phase for phase in phases if phase in (view.headline, Phase.FORWARD)]
    wanted = [(measure, phase) for measure in (SPEEDUP, LATENCY) for phase in phases] + [(MEMORY, p) for p in some]
    for measure, phase in wanted:
        if view.phase(phase)[measure.value].notna().any():
            drawings |= _both_kinds(view, measure, phase)
    with settings():
        return drawings | _across_phases(view)


def _across_phases(view: View) -> dict[str, Figure]:
    """Return the figures that stand for a run as a whole, as far as it has what they show."""
    told, drawings = _conditions(view), {}
    if view.cells["cold_ratio"].notna().any() and sweeps(view.problems):
        chilled = replace(view, cells=cold(view.cells))
        faults = ", page faults included" if has_faults(view) else ""
        subtitle = f"{told}  ·  default allocator{faults}  ·  bars are confidence intervals"
        drawings[f"allocator-{view.headline}"] = curves(chilled, SPEEDUP, view.headline, subtitle)
    if (found := losses(view)).is_answered:
        drawings["accuracy"] = errormap(view, found)
    if rivals(view):
        drawings["pareto"] = pareto(view, f"{told}  ·  bars are confidence intervals  ·  larger marks need more memory")
    if (curves_of := training(view)) is not None:
        drawings["training"] = curves_of
    return drawings


@dataclass(frozen=True, slots=True)
class Bare:
    """What a view needs, of trainings that belong to no run."""

    trainings: pd.DataFrame
    info: dict[str, Any]
    path: Path = Path()
    id: str = ""
    cells: pd.DataFrame = field(default_factory=pd.DataFrame)
    verdicts: pd.DataFrame = field(default_factory=pd.DataFrame)


def draw_training(records: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], file: Path) -> bool:
    """Write training curves to a file, as its ending says (`.svg`, else PNG); return False where nobody was trained.

    Args:
        records: with the fields of `columns.TRAINING_COLUMNS`.
        facts: of the environment, for the foot.
        file: that is replaced, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with settings():
        figure = training(View.of(Bare(pd.DataFrame(list(records)), {"environment": dict(facts)})))
    if figure is None:
        return False
    vector, raster = encode(figure)
    write_atomically(file, vector.encode() if file.suffix.lower() == ".svg" else raster)
    return True


def _both_kinds(view: View, measure: Measure, phase: str) -> dict[str, Figure]:
    name, others = f"{measure.name}-{phase}", len(loose(view.problems)) > 0
    figures = {}
    if sweeps(view.problems):
        figures[name + (CLASSES if others else "")] = _figure(view, measure, phase)
    if others:
        figures[name] = _figure(view, measure, phase, curved=False)
    return figures


def _figure(view: View, measure: Measure, phase: str, *, curved: bool | None = None) -> Figure:
    if curved is None:
        curved = bool(sweeps(view.problems))
    draw = curves if curved else intervals if measure is SPEEDUP else dots
    with settings():
        return draw(view, measure, phase, _subtitle(view, measure, phase, curved=curved))


def _subtitle(view: View, measure: Measure, phase: str, *, curved: bool) -> str:
    cells = view.phase(phase)
    on_no_curve = cells.index.get_level_values("problem").isin(loose(view.problems).index)
    cells = cells[~on_no_curve if curved else on_no_curve]
    absent = int(cells[measure.value].isna().sum())
    bars = {LATENCY: "bars from the 5th to the 95th percentile", SPEEDUP: "bars are confidence intervals"}.get(
        measure, ""
    )
    if measure is not MEMORY and not curved and cells[measure.beside].notna().any():
        bars += ", open marks: default allocator"
    if measure is MEMORY and not curved:
        bars = "stems down to what is saved for backward, rings: resident"
    without = cells.loc[cells[measure.value].isna(), "status"].value_counts()
    told = ", ".join(f"{count} {status}" for status, count in without.items() if status != Status.PASSED)
    why = f"{absent} of {len(cells)} cells have no number" + (f" ({told})" if told else "")
    return "  ·  ".join(filter(None, [_conditions(view), bars, why if absent else ""]))


def _conditions(view: View) -> str:
    """Return what all problems have in common: device, dtype, reduction."""
    words = []
    for name in ("device", "dtype", "reduction"):
        values = list(dict.fromkeys(filter(None, view.problems[name])))
        words += [f"reduction {values[0]}" if name == "reduction" else values[0]] if len(values) == 1 else []
    threads = view.fact("threads")
    words += [f"{threads} thread{'' if threads == '1' else 's'}"] if threads else []
    return ", ".join(words)


def encode(figure: Figure) -> tuple[str, bytes]:
    """Return the figure as SVG text and PNG bytes; equal figures give equal bytes."""
    vector, raster = io.StringIO(), io.BytesIO()
    with settings():
        # Laid out once is enough: positions are fractions of the figure, whatever its resolution.
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
        figure.set_layout_engine("none")
        for axes in figure.axes:
            # The layout's last bits differ from one run to the next, and the names of clip paths are made from them.
            axes.set_position(Bbox(axes.get_position().get_points().round(4)))
        # The canvases rather than `savefig`, which draws everything once more before each file.
        FigureCanvasSVG(figure).print_svg(vector, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
        figure.set_dpi(DPI)
        FigureCanvasAgg(figure).print_png(raster, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return rounded(hinted(vector.getvalue(), figure)), raster.getvalue()


def save(drawings: Mapping[str, Figure], folder: Path) -> dict[str, Path]:
    """Write each figure as NAME.svg and NAME.png into `folder`, whole or not at all; return `{file name: path}`.

    Raises:
        OSError: the folder cannot be made or written.
    """
    return save_encoded({name: encode(figure) for name, figure in drawings.items()}, folder)


def save_encoded(encoded: Mapping[str, tuple[str, bytes]], folder: Path) -> dict[str, Path]:
    """Write figures that `encode` made, as `save` does."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, (vector, raster) in encoded.items():
        paths[f"{name}.svg"] = write_atomically(folder / f"{name}.svg", vector)
        paths[f"{name}.png"] = write_atomically(folder / f"{name}.png", raster)
    return paths
