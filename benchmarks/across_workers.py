"""False alarms and power between implementations that no process holds together: `python benchmarks/across_workers.py`.

Four arms of `unlike_arms.py`, three workers each, are timed as a bench run times its entrants: bursts of all twelve in
random order, every worker against its own baseline. The first arm is then compared with its copy (false alarms) and
with those slowed by 5 and 10 % (power), as `xentbench compare` tests cells: by the workers' quickest calls, where
cells share what they know of the workers' spread; different is p < 5 % and more than 2 %. What their typical calls
(medians) would tell stands beside it. Every trial has fresh workers. Conditions: float32, forward, one thread, one
core, warm heap, whatever machine.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import statistics as plain
import time
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from competing import Load

from xentbench import environment, statistics, timing
from xentbench.compare import ALARM, QUICKEST, RUN_MARGIN, TYPICAL
from xentbench.crews import Crew
from xentbench.lanes import Lane
from xentbench.registry import object_source
from xentbench.spec import Description, Phase, Problem
from xentbench.timing import Budget
from xentbench.twins import upper_bound
from xentbench.workers import WARM_HEAP

ARMS: Final = ("plus_0", "again_0", "plus_5", "plus_10")
PROBLEMS: Final = (Problem(batch_size=8, num_classes=10), Problem(batch_size=128, num_classes=1000))
WORKERS: Final = 3


def trial(problem: Problem, seconds: float, seed: int, core: int | None) -> dict[str, Any]:
    """Return the workers' log ratios of every arm, the wall time, and what each comparison with the first arm gives."""
    order, start = random.Random(seed), time.monotonic()  # noqa: S311 - no secret
    with contextlib.ExitStack() as stack:
        lanes = []
        for arm in ARMS:
            where = f"{Path(__file__).with_name('unlike_arms.py')}:{arm}"
            entry = Description(arm, object_source(where), where)
            crew = stack.enter_context(Crew(entry, WORKERS, WARM_HEAP, 1, core))
            crew.start()
            if error := crew.set_up(problem.key, seed, [Phase.FORWARD], None):
                raise error
            lanes += [Lane(arm, worker) for worker in crew.workers]
        began = time.monotonic()
        seen = timing.duel(lanes, Phase.FORWARD, Budget(seconds, 0.0), order, time.monotonic)
        measured_s = time.monotonic() - began
    logs = {by: {arm: list(map(float, getattr(seen[arm], by))) for arm in ARMS} for by in (QUICKEST, TYPICAL)}
    return {
        "problem": problem.label,
        "pair_s": measured_s * 2 / len(ARMS),
        "wall_s": time.monotonic() - start,
        "moves": {by: moved(logs[by]) for by in logs},
        "logs": logs,
    }


def moved(logs: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Return how far every arm is from the first one, and whether that counts."""
    shifts = statistics.shifts([(np.array(logs[ARMS[0]]), np.array(logs[arm])) for arm in ARMS[1:]])
    return {
        arm: {
            "ratio": shift.interval.ratio,
            "half_width": shift.interval.half_width,
            "different": shift.p < ALARM and abs(math.log(shift.interval.ratio)) > math.log1p(RUN_MARGIN),
        }
        for arm, shift in zip(ARMS[1:], shifts, strict=True)
    }


def told(rows: list[dict[str, Any]], arm: str, by: str) -> str:
    """Return one line about one comparison at one size."""
    moves = [row["moves"][by][arm] for row in rows]
    different = sum(move["different"] for move in moves)
    ratio, width = (plain.median(move[name] for move in moves) for name in ("ratio", "half_width"))
    bound = f" (rate below {upper_bound(different, len(moves)):.1%})" if arm == "again_0" else ""
    return f"{different}/{len(moves)} different{bound}, median {ratio - 1:+.2%} ± {width:.2%}"


@click.command()
@click.option("--trials", default=40, show_default=True, help="At each size.")
@click.option("--seconds", default=0.6, show_default=True, help="Of bursts a worker.")
@click.option("--load/--quiet", default=False, help="Beside two processes that load the machine.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every trial.")
def main(trials: int, seconds: float, seed: int, file: Path | None, *, load: bool) -> None:
    """Compare workers of implementations that are the same, and of ones that are not."""
    order, core = random.Random(seed), environment.measuring_core()  # noqa: S311 - no secret
    plan = order.sample(PROBLEMS, trials * len(PROBLEMS), counts=[trials] * len(PROBLEMS))
    with Load(core or 0) if load else contextlib.nullcontext() as competitors:
        if competitors is not None:
            competitors.press(on=True)
        rows = []
        for number, problem in enumerate(plan):
            rows.append(trial(problem, seconds, seed + number, core))
            click.echo(f"{number + 1}/{len(plan)} {rows[-1]}", err=True)
    if file:
        file.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    for problem in PROBLEMS:
        mine = [row for row in rows if row["problem"] == problem.label]
        if not mine:
            continue
        click.echo(f"{problem.label}, {plain.median(row['pair_s'] for row in mine):.1f} s of bursts a comparison:")
        for arm in ARMS[1:]:
            click.echo(f"  {arm}: {told(mine, arm, QUICKEST)}; by typical calls {told(mine, arm, TYPICAL)}")


if __name__ == "__main__":
    main()
