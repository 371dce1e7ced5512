"""Measure the ladder of ideas and write its figure and table into the docs: `python benchmarks/ladder.py` (12 minutes).

Judges, weighs and times the steps and `F.cross_entropy`, forward+backward in float32, with the heap kept and with the
default allocator, and counts what their operations read and write. `python benchmarks/ladder.py RUN` draws a run that
is there already; other arguments go to `xentbench bench`.

Conditions: whatever machine this runs on, quiet or not; figure and table carry the run's id, processor and versions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from xentbench import results
from xentbench.files import write_atomically
from xentbench.report import figures
from xentbench.report.standing import worst_grade
from xentbench.report.style import COLOURS, INK, PAPER, foot, settings, sheet
from xentbench.report.text import code_span, interval, plain, times
from xentbench.report.view import View
from xentbench.spec import Phase, Problem, Source, Status
from xentbench.worker import loading

sys.path.append(str(Path(__file__).parent))
from marked import insert
from traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOCS = Path(__file__).parent.parent / "docs"
LARGE, SMALL = Problem(batch_size=512, num_classes=32000), Problem(batch_size=128, num_classes=1000)
BASELINE = "f-cross-entropy"
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
BENCH = (
    *("xentbench", "bench", "ladder-*", BASELINE, "--problem", LARGE.key, "--problem", SMALL.key),
    *("--phase", "forward+backward", "--allocator", "both", "--budget", "12m", "--no-train"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step as it was measured; NaN is what was not.

    Attributes:
        name: `01-formula`, or that of `F.cross_entropy`.
        times: by problem key, its time over that of `F.cross_entropy`, with the ends of its interval.
        cold: the same with the default allocator.
        peak: peak memory at the large problem, over the size of the logits.
        kept: what is kept between forward and backward, over the same.
        moved: bytes that its operations read and write there, over the same.
        grade: the worst of its float32 answers, but for those that a declared deviation explains.
        right: on how many float32 problems it is right, of how many.
    """

    name: str
    times: dict[str, tuple[float, float, float]]
    cold: dict[str, tuple[float, float, float]]
    peak: float
    kept: float
    moved: float
    grade: str
    right: str


def main() -> None:
    """Run a bench, or take the run that is named, and write the figure and the table."""
    torch.set_num_threads(1)
    named = sys.argv[1] if sys.argv[1:] and not sys.argv[1].startswith("-") else ""
    run = results.read(results.find(named, results.RUNS)) if named else measured(sys.argv[1:])
    view = View.of(run)
    steps = ladder(view, moved())
    (DOCS / "figures").mkdir(exist_ok=True)
    write_atomically(DOCS / "figures" / "ladder.png", figures.encode(draw(view, steps))[1])
    insert(DOCS / "implementations.md", "the ladder", table(view, steps))
    print(f"docs/implementations.md: run {run.id}")


def measured(arguments: Sequence[str]) -> results.Run:
    """Bench the ladder; return the run."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"
        subprocess.run([*BENCH, "--json", str(told), *arguments], check=True)  # noqa: S603 - our own command
        return results.read(Path(json.loads(told.read_text(encoding="utf-8"))["path"]))


def moved() -> dict[str, float]:
    """Return what the operations of every step read and write at the large problem, over the size of the logits.

    This runs the steps in this process, which promises nothing of them: they are ours, and only counted here.
    """
    loaded = loading.load(Source("built-in", loading.BUILT_IN))
    losses = {entry.name: entry.function for _, entry in loaded.found if entry.name.startswith("ladder-")}
    return {name: moved_by(loss) for name, loss in {**losses, BASELINE: functional.cross_entropy}.items()}


def moved_by(loss: Callable[..., torch.Tensor], problem: Problem = LARGE) -> float:
    """Return what the operations of a forward and backward read and write, over the size of the logits."""
    logits = torch.randn(problem.rows, problem.num_classes, requires_grad=True)
    target = torch.zeros(problem.rows, dtype=torch.int64)
    with Traffic() as seen:
        loss(logits, target).backward()
    return seen.moved_bytes / logits.nbytes


def ladder(view: View, moved_ratios: dict[str, float]) -> list[Step]:
    """Return the steps of a run in order, and `F.cross_entropy` last."""
    cells = view.phase(Phase.FORWARD_BACKWARD)
    found = []
    for name in sorted(view.implementations, key=lambda name: (name == BASELINE, name)):
        if name == BASELINE or name.startswith("ladder-"):
            rows = {key: cells.loc[(name, key)].to_dict() for key in view.problems.index}
            large = rows.get(LARGE.key, {})
            found.append(
                Step(
                    name.removeprefix("ladder-"),
                    {key: _three(row, ("ratio", "ratio_low", "ratio_high")) for key, row in rows.items()},
                    {key: _three(row, ("cold_ratio", "cold_low", "cold_high")) for key, row in rows.items()},
                    large.get("peak_bytes", np.nan) / LARGE.logits_bytes,
                    large.get("saved_bytes", np.nan) / LARGE.logits_bytes,
                    moved_ratios.get(name, np.nan),
                    *_judged(view, name),
                )
            )
    return found


def _three(row: dict[Any, Any], names: tuple[str, str, str]) -> tuple[float, float, float]:
    middle, low, high = (float(row[name]) for name in names)
    return middle, low, high


def _judged(view: View, name: str) -> tuple[str, str]:
    """Return the worst grade of an implementation in float32, and how often it is right."""
    rows = [
        row
        for frame in (view.verdicts, view.accuracies)
        for row in frame.to_dict("records")
        if (row["implementation"], row["dtype"]) == (name, "float32")
    ]
    right = [row for row in rows if row["status"] == Status.PASSED]
    return worst_grade(right), f"{len(right)}/{len(rows)}"


def draw(view: View, steps: Sequence[Step]) -> Figure:
    """Return the figure: a row a step, and what it costs in time at both sizes, in memory, and in bytes moved."""
    with settings():
        subtitle = (
            "forward+backward, float32  ·  filled: heap kept, open: default allocator, lines: confidence intervals  ·  "
            "dark: kept for backward"
        )
        figure = sheet(view, (10.5, 0.3 * len(steps) + 1.9), "What each idea is worth", subtitle)
        panels = figure.subplots(1, 4, sharey=True, width_ratios=(4, 3, 2, 2))
        for axes, problem in zip(panels, (LARGE, SMALL), strict=False):
            _times(axes, steps, problem.key)
            axes.set_title(f"time at {problem.size_label}", fontsize=9)
            axes.set_xlabel("over F.cross_entropy's")
        _sizes(panels[2], [step.peak for step in steps], [step.kept for step in steps])
        panels[2].set_title("peak memory", fontsize=9)
        _sizes(panels[3], [step.moved for step in steps])
        panels[3].set_title("read and written", fontsize=9)
        for axes in panels[2:]:
            axes.set_xlabel("over the logits' size")
        panels[0].set_yticks(range(len(steps)), [_shown(step) for step in steps])
        panels[0].set_ylim(len(steps) - 0.4, -0.6)
    return figure


def _times(axes: Axes, steps: Sequence[Step], key: str) -> None:
    """Draw times with their intervals: filled with the heap kept, open with the default allocator."""
    axes.set_xscale("log")
    axes.axvline(1.0, color=INK, linewidth=1.0)
    for told, shift, inside in (
        ([step.times.get(key, (np.nan,) * 3) for step in steps], -0.12, COLOURS[0]),
        ([step.cold.get(key, (np.nan,) * 3) for step in steps], 0.18, PAPER),
    ):
        middle, low, high = np.array(told, float).T
        places = np.arange(len(steps)) + shift
        axes.hlines(places, low, high, color=COLOURS[0], linewidth=1.2)
        axes.plot(middle, places, "o", color=COLOURS[0], markerfacecolor=inside, markersize=5)
        for place, value in zip(places, middle, strict=True):
            if inside == COLOURS[0] and np.isfinite(value):
                axes.annotate(times(value), (value, place), (6, 1), textcoords="offset points", fontsize=7, va="bottom")
    axes.margins(x=0.2)
    low, high = axes.get_xlim()
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)


def _sizes(axes: Axes, values: Sequence[float], parts: Sequence[float] = ()) -> None:
    """Draw bars with their numbers; of each, a darker part."""
    axes.barh(range(len(values)), values, height=0.6, color=COLOURS[5])
    axes.barh(range(len(parts)), parts, height=0.3, color=COLOURS[0])
    for place, value in enumerate(values):
        if np.isfinite(value):
            axes.annotate(f"{value:.1f}", (value, place), (3, 0), textcoords="offset points", fontsize=7, va="center")
    axes.margins(x=0.2)
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)


def _shown(step: Step) -> str:
    return "F.cross_entropy" if step.name == BASELINE else plain(step.name.replace("-", "  ", 1), 30)


def table(view: View, steps: Sequence[Step]) -> str:
    """Return the table of the page: the same numbers, and how right each step is."""
    heads = [
        *("step", f"time, {LARGE.size_label}", "step before / this", "default allocator", f"time, {SMALL.size_label}"),
        *("peak", "kept", "moved", "grade", "right"),
    ]
    lines = [heads, [":--", *["--:"] * 7, ":-:", "--:"]]
    for before, step in zip([None, *steps], steps, strict=False):
        gain = before.times[LARGE.key][0] / step.times[LARGE.key][0] if before and step.name != BASELINE else np.nan
        lines.append(
            [
                "`F.cross_entropy`" if step.name == BASELINE else code_span(f"ladder-{step.name}"),
                *(_time(step.times, LARGE), times(gain), _time(step.cold, LARGE), _time(step.times, SMALL)),
                *("" if np.isnan(size) else f"{size:.2f}" for size in (step.peak, step.kept, step.moved)),
                *(step.grade, step.right),
            ]
        )
    told = (
        "Forward+backward, float32. Times are over those of `F.cross_entropy` in the same process, with their "
        "intervals. Peak memory, what is kept between forward and backward, and the bytes that operations read and "
        f"write are over the size of the logits, at {LARGE.size_label}."
    )
    return "\n".join([told, "", *(f"| {' | '.join(line)} |" for line in lines), "", f"<sub>{foot(view)}</sub>"])


def _time(told: dict[str, tuple[float, float, float]], problem: Problem) -> str:
    middle, low, high = told.get(problem.key, (np.nan,) * 3)
    return f"{times(middle)} {interval(low, high)}".rstrip() or "not timed"


if __name__ == "__main__":
    main()
