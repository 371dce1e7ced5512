"""Measure `fused` beside torch's own loss, eager and compiled: `python benchmarks/fused.py` (half an hour).

Some benches, the large sizes with the heap kept and with the default allocator; then the table of
docs/implementations.md and `results/fused.csv` are written from them. `python benchmarks/fused.py RUN …` writes them
from runs that are there already.

Conditions: whatever machine this runs on, quiet or not; the table carries the runs' ids, processor and versions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
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
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parent.parent
FUSED, COMPILED, TORCH = "fused", "compiled-f-cross-entropy", "f-cross-entropy"
ALONE, BOTH = Phase.FORWARD_NO_GRAD.value, Phase.FORWARD_BACKWARD.value
LARGE = ((512, 32000), (256, 128256))
OTHERS = (
    *((8, 10), (32, 10), (32, 256), (32, 1000), (256, 10), (256, 100), (512, 10), (1024, 2), (4096, 10)),
    *((128, 1000), (256, 1000), (32, 10000), (128, 8192), (32, 32000)),
)


@dataclass(frozen=True, slots=True)
class Bench:
    """One run: who is asked what, under which conditions, and how long it may take."""

    names: tuple[str, ...]
    dtype: str
    threads: int
    sizes: tuple[tuple[int, int], ...]
    budget: str
    phases: tuple[str, ...] = (ALONE, BOTH)
    allocator: str = "both"

    def command(self, told: Path) -> list[str]:
        """Return the command line, which tells in a file where its run is."""
        asked = [f"cross_entropy:N={rows},C={classes},dtype={self.dtype}" for rows, classes in self.sizes]
        return [
            *("xentbench", "bench", *self.names, *(part for key in asked for part in ("--problem", key))),
            *(part for phase in self.phases for part in ("--phase", phase)),
            *("--threads", str(self.threads), "--allocator", self.allocator, "--budget", self.budget, "--no-train"),
            *("--json", str(told)),
        ]


BENCHES = (
    Bench((FUSED, COMPILED), "float32", 1, LARGE, "8m", (BOTH,)),
    Bench((FUSED, COMPILED), "float32", 2, LARGE, "8m", (BOTH,)),
    Bench((FUSED,), "float32", 1, LARGE, "90s", (ALONE,), "warm"),
    Bench((FUSED,), "float32", 2, LARGE, "90s", (ALONE,), "warm"),
    Bench((TORCH,), "float32", 1, LARGE, "1m", (BOTH,), "warm"),
    Bench((FUSED,), "bfloat16", 1, LARGE, "3m"),
    Bench((FUSED,), "bfloat16", 2, LARGE, "3m"),
    Bench((FUSED,), "float32", 1, OTHERS, "5m", (BOTH,), "warm"),
)
"""Who asks for little has much time for each of it: a round with the default allocator takes a second."""
COLUMNS = (
    *("run_id", "implementation", "problem", "dtype", "threads", "phase", "status", "latency_s", "ratio", "ratio_low"),
    *("ratio_high", "cold_latency_s", "cold_ratio", "cold_low", "cold_high", "peak_bytes", "minimum_bytes", "limit_s"),
    *("limit_by", "reached_ratio"),
)
"""Of the cells, those that `results/fused.csv` keeps."""


def main() -> None:
    """Run the benches, or take the runs that are named, and write table and file."""
    runs = [results.read(results.find(name, results.RUNS)) for name in sys.argv[1:]] or list(measured())
    cells = pd.concat([told(run) for run in runs], ignore_index=True)
    (ROOT / "results").mkdir(exist_ok=True)
    write_atomically(ROOT / "results" / "fused.csv", cells[list(COLUMNS)].to_csv(index=False, float_format="%.6g"))
    insert(ROOT / "docs" / "implementations.md", "fused", text(cells, runs))
    print("docs/implementations.md, results/fused.csv")


def measured() -> Iterator[results.Run]:
    """Make the runs; yield each."""
    for bench in BENCHES:
        with tempfile.TemporaryDirectory() as folder:
            seen = Path(folder) / "seen.json"
            subprocess.run(bench.command(seen), check=True)  # noqa: S603 - our own command
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
    both, alone = cell(cells, FUSED, BOTH), cell(cells, FUSED, ALONE)
    compiled, torch_own = cell(cells, COMPILED, BOTH), cell(cells, TORCH, BOTH)
    gradient_bytes = Problem.parse(both["problem"]).logits_bytes
    return (
        *(both["size_label"], both["dtype"], str(both["threads"])),
        *(speed_up(both, "ratio", "ratio"), speed_up(both, "cold_ratio", "cold")),
        *(known(compiled[name] / both[name], times) for name in ("ratio", "cold_ratio")),
        *(speed_up(alone, "ratio", "ratio"), known(both["reached_ratio"], "{:.0%}".format)),
        *(known(one["peak_bytes"] / gradient_bytes, "{:.2f}".format) for one in (both, torch_own)),
    )


def cell(cells: pd.DataFrame, name: str, phase: str) -> pd.Series:
    """Return a cell; of what was not asked, NaN."""
    return cells.loc[(name, phase)] if (name, phase) in cells.index else pd.Series(np.nan, cells.columns)


def speed_up(one: pd.Series, middle: str, ends: str) -> str:
    """Return how many times faster than the baseline a cell is, with the interval."""
    low, high = 1 / one[f"{ends}_high"], 1 / one[f"{ends}_low"]
    return known(1 / one[middle], lambda value: f"{times(value)} {interval(low, high)}")


def known(value: float, shown: Callable[[float], str]) -> str:
    """Return a number as it is shown, or nothing where it was not measured."""
    return shown(value) if pd.notna(value) and np.isfinite(value) else ""


if __name__ == "__main__":
    main()
