"""The duel beside other tools' ways of timing, on the same cells: `python benchmarks/other_rules.py` (12 minutes).

Every trial compares `F.cross_entropy` with itself, or with itself slowed down live by a known share, once by each way
of timing, in fresh random order; half of the trials run beside two processes that load the machine. Counted is how
often each rule calls the same code different, and how often it finds what is slower. The table goes to docs/timing.md.
Conditions: float32, one thread, one core, warm heap, whatever machine this runs on; Linux, two cores or more; needs
pytest-benchmark.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import click
from competing import Load

from xentbench import environment, timing
from xentbench.crews import Crew
from xentbench.lanes import Lane
from xentbench.registry import object_source
from xentbench.spec import Comparison, Description, Phase, Problem, Status
from xentbench.timing import Budget
from xentbench.twins import upper_bound
from xentbench.workers import WARM_HEAP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    Row = dict[str, Any]

HERE: Final = Path(__file__).parent
SPINNING: Final = {Phase.FORWARD: "xentbench.worker.spinning", Phase.FORWARD_BACKWARD: str(HERE / "slower_both.py")}
SHARES: Final = {"plus_0": 0.0, "plus_5": 0.05, "plus_10": 0.10}
HALF_WIDTH: Final = 0.01
"""Of the duel's interval, at which it stops before its seconds are spent: that of a default run."""
DUEL: Final = "duel"
TOOLS: Final = (DUEL, "pytest-benchmark", "blocked_autorange", "do_bench", "single calls")


@dataclass(frozen=True, slots=True)
class Cell:
    """What is timed: a problem and the phase of it."""

    problem: Problem
    phase: Phase

    @property
    def label(self) -> str:
        """Return shape and phase as the table's heading tells them."""
        return f"({self.problem.batch_size}, {self.problem.num_classes}) {self.phase}"

    def arm(self, name: str) -> str:
        """Return where an arm of `SHARES` is found, as `object_source` spells it."""
        return f"{SPINNING[self.phase]}:{name}"


CELLS: Final = (
    Cell(Problem(batch_size=8, num_classes=10), Phase.FORWARD),
    Cell(Problem(batch_size=128, num_classes=1000), Phase.FORWARD),
    Cell(Problem(batch_size=128, num_classes=1000), Phase.FORWARD_BACKWARD),
)

LABELS: Final = [cell.label for cell in CELLS]
HEADS: Final = [
    *("rule", "false alarms, quiet", "loaded", "rate at most"),
    *("+5 % found, quiet", "loaded", "+10 % found, quiet", "loaded", "seconds (most)"),
]


class Others:
    """The process in which other tools time: with the workers' one thread, core and heap."""

    def __init__(self, core: int, heap: dict[str, str]) -> None:
        settings = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", **heap}
        self._process = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, HERE / "other_tools.py", str(core)],
            env=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, tool: str, cell: Cell, arm: str, seconds: float) -> Row:
        """Return one trial of a tool, as `other_tools.trial` tells it."""
        asked = {"tool": tool, "problem": cell.problem.key, "phase": cell.phase, "seconds": seconds}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({**asked, "arms": [cell.arm("plus_0"), cell.arm(arm)]}), file=self._process.stdin, flush=True)
        told: Row = json.loads(self._process.stdout.readline())
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._process.kill()
        self._process.__exit__(kind, error, at)


def crew(cell: Cell, arm: str, core: int, heap: dict[str, str]) -> Crew:
    """Return the one worker that duels an arm with the control, not started yet."""
    entry, baseline = (Description(name, object_source(cell.arm(name)), "spinning") for name in (arm, "plus_0"))
    return Crew(entry, 1, heap, 1, core, baseline)


def duel(team: Crew, phase: Phase, seconds: float, order: random.Random) -> Row:
    """Return one trial of the duel, in the shape of `other_tools.trial`."""
    start = time.perf_counter()
    budget = Budget(seconds, HALF_WIDTH)
    seen = timing.duel([Lane(DUEL, team.workers[0])], phase, budget, order, time.monotonic)[DUEL]
    spent_s = time.perf_counter() - start
    if seen.status is not Status.PASSED:
        msg = f"the duel ended as {seen.status}: {seen.reason}"
        raise RuntimeError(msg)
    told = {"ratio": seen.ratio, "ratio_low": seen.ratio_low, "ratio_high": seen.ratio_high, "reason": seen.reason}
    called = {"duel, interval beyond 1 %": seen.verdict}
    return {"spent_s": spent_s, "samples": [seen.rounds] * 2, **told, "called": called}


def measure(trials: int, seconds: float, seed: int) -> Iterator[Row]:
    """Yield one row for every rule and trial, trials of all cells and arms in one random order.

    Args:
        trials: of each cell and arm, half of them loaded.
        seconds: that each way of timing has for one comparison.
        seed: of the orders.
    """
    order, core = random.Random(seed), max(os.sched_getaffinity(0))  # noqa: S311 - replayable
    heap = WARM_HEAP if environment.warm_heap_available() else {}
    with contextlib.ExitStack() as stack:
        load, others = stack.enter_context(Load(core)), stack.enter_context(Others(core, heap))
        crews = {}
        for cell, arm in itertools.product(CELLS, SHARES):
            crews[cell, arm] = team = stack.enter_context(crew(cell, arm, core, heap))
            team.start()
            if error := team.set_up(cell.problem.key, seed, [cell.phase], None):
                raise error
        plan = [(cell, arm, number % 2 == 1) for cell in CELLS for arm in SHARES for number in range(trials)]
        for number, (cell, arm, loaded) in enumerate(order.sample(plan, len(plan))):
            load.press(on=loaded)
            for tool in order.sample(TOOLS, len(TOOLS)):
                team = crews[cell, arm]
                told = duel(team, cell.phase, seconds, order) if tool == DUEL else others.ask(tool, cell, arm, seconds)
                at = {"trial": number, "cell": cell.label, "share": SHARES[arm], "loaded": loaded, "tool": tool}
                for rule, called in told.pop("called").items():
                    yield {**at, "rule": rule, "called": called, **told}


def table(rows: Sequence[Row]) -> str:
    """Return the rows counted, as Markdown, a table a cell: columns as `HEADS`, quiet and loaded trials apart."""
    parts = []
    for cell in LABELS:
        here = sorted((row for row in rows if row["cell"] == cell), key=lambda row: TOOLS.index(row["tool"]))
        rules = dict.fromkeys(row["rule"] for row in here)
        counted = [line(rule, [row for row in here if row["rule"] == rule]) for rule in rules]
        lines = [HEADS, ["---", *["---:"] * (len(HEADS) - 1)], *counted]
        parts.append(f"{cell}, {injected(here)}:\n\n" + "\n".join(f"| {' | '.join(texts)} |" for texts in lines))
    return "\n\n".join(parts)


def injected(rows: Sequence[Row]) -> str:
    """Return what the injections came to in one cell: the medians of the duel's ratios."""
    ratios = {s: [row["ratio"] for row in rows if row["tool"] == DUEL and row["share"] == s] for s in SHARES.values()}
    told = (
        f"+{share * 100:.0f} % came to {statistics.median(seen) * 100 - 100:+.1f} %"
        for share, seen in ratios.items()
        if share
    )
    return ", ".join(told)


def line(rule: str, rows: Sequence[Row]) -> list[str]:
    """Return one rule's line: what it called different without injection, what it found slower with one."""
    counts = []
    for share, loaded in itertools.product(SHARES.values(), (False, True)):
        wanted = {Comparison.SLOWER} if share else {Comparison.FASTER, Comparison.SLOWER}
        counts.append([row["called"] in wanted for row in rows if (row["share"], row["loaded"]) == (share, loaded)])
    quiet, pressed, *found = (f"{sum(yes)} of {len(yes)}" for yes in counts)
    alike = counts[0] + counts[1]
    spent_s = [row["spent_s"] for row in rows]
    seconds = f"{statistics.median(spent_s):.2f} ({max(spent_s):.2f})"
    return [rule, quiet, pressed, f"{upper_bound(sum(alike), len(alike)) * 100:.0f} %", *found, seconds]


def conditions(seconds: float, trials: int, seed: int) -> Row:
    """Return what the figures hold for: machine, versions, settings, the machine's load before, and the day."""
    return {
        "cpu": environment.cpu_model(),
        "cores": environment.usable_cores(),
        "core": max(os.sched_getaffinity(0)),
        "heap": "warm" if environment.warm_heap_available() else "default",
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: environment.version(name) for name in (*environment.PACKAGES, "pytest-benchmark")},
        "load_before": os.getloadavg()[0],
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "seconds": seconds,
        "trials": trials,
        "seed": seed,
    }


@click.command(help=__doc__)
@click.option("--trials", default=40, show_default=True, type=click.IntRange(2), help="Of each cell and arm.")
@click.option("--seconds", default=0.3, show_default=True, help="That each way of timing has for one comparison.")
@click.option("--seed", default=0, show_default=True, help="Of the orders.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the conditions and every trial here.")
def main(trials: int, seconds: float, seed: int, path: Path | None) -> None:
    """Measure, print the table and its conditions, and keep the trials."""
    here, start = conditions(seconds, trials, seed), time.monotonic()
    rows: list[Row] = []
    whole = len(CELLS) * len(SHARES) * trials
    for row in measure(trials, seconds, seed):
        if row["trial"] % 10 == 0 and (not rows or rows[-1]["trial"] != row["trial"]):
            print(f"trial {row['trial']} of {whole}, {time.monotonic() - start:.0f} s", file=sys.stderr)
        rows.append(row)
    here["took_s"] = time.monotonic() - start
    if path is not None:
        path.write_text(json.dumps({"conditions": here, "rows": rows}, indent=1), encoding="utf-8")
    told = ", ".join(f"{name} {here[name]}" for name in ("python", "torch", "pytest-benchmark"))
    print(table(rows))
    print(
        f"\n{trials} trials of each cell and arm, half of them loaded, {seconds} s a comparison; {here['cpu']}, "
        f"{here['cores']} cores, {told}; load before {here['load_before']:.2f}; {here['date']}; "
        f"{here['took_s'] / 60:.0f} minutes"
    )


if __name__ == "__main__":
    main()
