"""Measure `fused` beside torch's own loss, eager and compiled: `python benchmarks/fused.py` (25 minutes).

A bench for each of the conditions below, each with the heap kept and with the default allocator; then the tables of
docs/implementations.md and `results/fused.csv` are written from them. `python benchmarks/fused.py RUN …` writes them
from runs that are there already.

Conditions: whatever machine this runs on, quiet or not; the tables carry the runs' ids, processor and versions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import xentbench
from xentbench import results
from xentbench.files import write_atomically
from xentbench.report.style import foot
from xentbench.report.text import interval, times
from xentbench.report.view import View
from xentbench.spec import Phase, Problem

sys.path.append(str(Path(__file__).parent))
from marked import insert

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parent.parent
NAMES = ("fused", "compiled-f-cross-entropy", "f-cross-entropy")
LARGE = ((512, 32000), (256, 128256))
OTHERS = (
    *((8, 10), (32, 10), (32, 256), (32, 1000), (256, 10), (256, 100), (512, 10), (1024, 2), (4096, 10)),
    *((128, 1000), (256, 1000), (32, 10000), (128, 8192), (32, 32000)),
)
CONDITIONS = (
    ("float32", 1, (*LARGE, *OTHERS), "9m"),
    ("float32", 2, (*LARGE, (128, 1000), (4096, 10)), "4m"),
    ("bfloat16", 1, (*LARGE, (128, 1000)), "4m"),
    ("bfloat16", 2, LARGE, "4m"),
)
PHASES = (Phase.FORWARD_NO_GRAD, Phase.FORWARD_BACKWARD)
COLUMNS = (
    *("run_id", "implementation", "problem", "dtype", "threads", "phase", "status", "latency_s", "ratio", "ratio_low"),
    *("ratio_high", "cold_latency_s", "cold_ratio", "cold_low", "cold_high", "peak_bytes", "minimum_bytes", "limit_s"),
    *("limit_by", "reached_ratio"),
)
"""Of the cells, those that `results/fused.csv` keeps."""


def main() -> None:
    """Run the benches, or take the runs that are named, and write tables and file."""
    runs = [results.read(results.find(name, results.RUNS)) for name in sys.argv[1:]] or list(measured())
    cells = pd.concat([told(run) for run in runs], ignore_index=True)
    (ROOT / "results").mkdir(exist_ok=True)
    write_atomically(ROOT / "results" / "fused.csv", cells[list(COLUMNS)].to_csv(index=False, float_format="%.6g"))
    insert(ROOT / "docs" / "implementations.md", "fused", text(cells, runs))
    print("docs/implementations.md, results/fused.csv")


def measured() -> Iterator[results.Run]:
    """Bench every condition; yield the runs."""
    for dtype, threads, sizes, budget in CONDITIONS:
        asked = [f"cross_entropy:N={rows},C={classes},dtype={dtype}" for rows, classes in sizes]
        with tempfile.TemporaryDirectory() as folder:
            seen = Path(folder) / "seen.json"
            command = [
                *("xentbench", "bench", *NAMES, *(part for key in asked for part in ("--problem", key))),
                *(part for phase in PHASES for part in ("--phase", phase.value)),
                *("--threads", str(threads), "--allocator", "both", "--budget", budget, "--no-train"),
                *("--json", str(seen)),
            ]
            subprocess.run(command, check=True)  # noqa: S603 - our own command
            yield results.read(Path(json.loads(seen.read_text(encoding="utf-8"))["path"]))


def told(run: results.Run) -> pd.DataFrame:
    """Return the cells of a run, with its id and its number of threads."""
    cells = xentbench.load(run.path)
    cells["run_id"], cells["threads"] = run.id, View.of(run).fact("threads")
    return cells


def text(cells: pd.DataFrame, runs: Sequence[results.Run]) -> str:
    """Return the table, a line for each problem under each condition, and what it was measured on."""
    intro = (
        "Speed-ups of forward and backward, by times taken call by call in the same process, with their intervals, "
        "with the heap kept and with the default allocator; those over `torch.compile(F.cross_entropy)` are quotients "
        "of the two. The limit is the time in which this machine's memory moves the bytes, or in which torch computes "
        "the exponentials, whichever is longer. Peak memory is over the size of the gradient."
    )
    heads = (
        *("problem", "dtype", "threads", "over `F.cross_entropy`", "default allocator", "over compiled"),
        *("default allocator", "forward alone", "of the limit", "peak", "peak of `F.cross_entropy`"),
    )
    lines = [heads, (*[":--"] * 2, *["--:"] * (len(heads) - 2))]
    lines += [line(rows.set_index(["implementation", "phase"])) for _, rows in grouped(cells)]
    feet = [f"<sub>{foot(View.of(run))}</sub>  " for run in runs]
    return "\n".join([intro, "", *(f"| {' | '.join(line)} |" for line in lines), "", *feet])


def grouped(cells: pd.DataFrame) -> Iterator[tuple[object, pd.DataFrame]]:
    """Yield the cells of each problem under each condition."""
    yield from cells.groupby(["dtype", "threads", "size_label"], sort=False)


def line(cells: pd.DataFrame) -> tuple[str, ...]:
    """Return a line of the table from the cells of one problem, by implementation and phase."""
    both = Phase.FORWARD_BACKWARD.value
    fused, compiled, torch_own = (cells.loc[(name, both)] for name in NAMES)
    forward = cells.loc[(NAMES[0], Phase.FORWARD_NO_GRAD.value)]
    gradient_bytes = Problem.parse(fused["problem"]).logits_bytes
    return (
        *(fused["size_label"], fused["dtype"], str(fused["threads"])),
        *(speed_up(fused, name) for name in ("ratio", "cold")),
        *(times(compiled[name] / fused[name]) for name in ("ratio", "cold_ratio")),
        speed_up(forward, "ratio"),
        f"{fused['reached_ratio']:.0%}",
        *(f"{one['peak_bytes'] / gradient_bytes:.2f}" for one in (fused, torch_own)),
    )


def speed_up(cell: pd.Series, name: str) -> str:
    """Return how many times faster than the baseline a cell is, with the interval."""
    column = "cold_ratio" if name == "cold" else name
    low, high = cell[f"{name}_low"], cell[f"{name}_high"]
    return f"{times(1 / cell[column])} {interval(1 / high, 1 / low)}"


if __name__ == "__main__":
    main()
