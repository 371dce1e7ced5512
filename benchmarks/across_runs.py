"""The same code measured in two runs, minutes apart, and code that is slower: `python benchmarks/across_runs.py`.

Nine built-in entrants, wrapped so that a busy wait can follow each call, are benched four times: three times as they
are, once with every forward slower by 10 % of its own time. `xentbench compare` then tells, of every pair of runs, how
many cells of the same code it calls different, and how many of the slower it finds. Conditions: those of a default run
of three workers, four sizes; four phases of the same code, the two forwards of the slower; 12 to 17 minutes.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import click

from xentbench.twins import upper_bound

PLUGIN: Final = """
import dataclasses
from xentbench.registry import BUILT_IN
from xentbench.worker import loading
from xentbench.worker.spinning import slower

LOSSES = [
    dataclasses.replace(entry, name="x-" + entry.name, function=slower(entry.function, {share}))
    for _, entry in loading.load(BUILT_IN).found
    if not entry.compiles and not entry.factory and entry.name not in ("bce-with-logits", "nn-cross-entropy-loss")
]
"""
XENTBENCH: Final = (sys.executable, "-m", "xentbench")
SIZES: Final = ("--batch-size", "8,128", "--num-classes", "10,1000")
FORWARDS: Final = ("--phase", "forward-no-grad", "--phase", "forward")


def bench(share: float, folder: Path, *more: str) -> str:
    """Bench the entrants, slowed by a share; return the run's folder."""
    plugin = folder / "wrapped.py"
    plugin.write_text(PLUGIN.format(share=share), encoding="utf-8")
    told = folder / "bench.json"
    asked = ["--plugin", str(plugin), "--implementation", "x-*", *SIZES, *more]
    command = [*XENTBENCH, "bench", *asked, "--results", str(folder / "runs"), "--json", str(told)]
    subprocess.run(command, check=True)  # noqa: S603 - ourselves
    path: str = json.loads(told.read_text(encoding="utf-8"))["path"]
    return path


def compared(first: str, second: str, folder: Path) -> list[dict[str, Any]]:
    """Return what `xentbench compare` says of the cells that both runs timed."""
    told = folder / "compare.json"
    command = [*XENTBENCH, "compare", first, second, "--inconclusive", "pass", "--json", str(told)]
    subprocess.run(command, check=False)  # noqa: S603 - ourselves; 1 says that something became worse
    found = json.loads(told.read_text(encoding="utf-8"))["differences"]
    return [cell for cell in found if cell["ratio"] is not None]


@click.command()
@click.option("--runs", type=click.IntRange(min=2), default=3, show_default=True, help="Of the same code.")
@click.option("--budget", default="5m", show_default=True, help="Of each run of four phases.")
@click.option("--half-budget", default="150s", show_default=True, help="Of the run of two phases.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every compared cell.")
def main(runs: int, budget: str, half_budget: str, file: Path | None) -> None:
    """Bench, compare every two runs of the same code and each of them with the slower one, and count."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alike = [bench(0.0, folder, "--budget", budget) for _ in range(runs)]
        slower = bench(0.10, folder, *FORWARDS, "--budget", half_budget)
        same = [cell for pair in itertools.combinations(alike, 2) for cell in compared(*pair, folder)]
        slow = [cell for one in alike for cell in compared(one, slower, folder)]
    if file:
        file.write_text(json.dumps({"same": same, "slower": slow}, indent=1), encoding="utf-8")
    for label, cells in (("same code", same), ("slower by 10 %", slow)):
        outcomes = Counter(cell["outcome"] for cell in cells)
        wrong = outcomes["worse"] + outcomes["better"]
        widths = sorted((cell["ratio_high"] / cell["ratio_low"]) ** 0.5 - 1 for cell in cells)
        bound = f" (rate below {upper_bound(wrong, len(cells)):.1%})" if label == "same code" else ""
        click.echo(
            f"{label}: {wrong} of {len(cells)} cells called different{bound}; "
            f"{dict(outcomes)}; median half-width {widths[len(widths) // 2]:.1%}"
        )


if __name__ == "__main__":
    main()
