"""False alarms and power of the duel in one worker, quiet and under load: `python benchmarks/false_alarms.py`.

The trial of `xentbench selftest clock`, longer: 300 duels of `F.cross_entropy` with itself at each of three sizes, and
100 with each slowed arm at the two smaller ones; then all of it again beside two processes that load both cores.
Conditions: float32, forward, one thread, one core, warm heap, whatever machine this runs on (20 minutes).
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any, Final

import click
from competing import Load

from xentbench import console, environment, twins
from xentbench.spec import Problem

SMALL: Final = {Problem(batch_size=8, num_classes=10): 1.0, Problem(batch_size=128, num_classes=1000): 1.0}
LARGE: Final = {Problem(batch_size=512, num_classes=32_000): 2.5}
"""What is timed -> the most seconds a duel."""


def measured(twin_duels: int, slowed_duels: int, seed: int) -> list[dict[str, Any]]:
    """Return what every pair came to at every size, told as soon as it is known."""
    slowed = dict.fromkeys(("plus_2", "plus_5", "plus_10"), slowed_duels)
    rows = []
    for duels, problems in (({"twins": twin_duels, **slowed}, SMALL), ({"twins": twin_duels}, LARGE)):
        with console.progressing(console.errors()) as watch:
            found = twins.trials(seed, watch, duels, problems)
        rows += [trial.record() for trial in found]
        for trial in found:
            reasons = ", ".join(sorted(set(trial.reasons)))
            click.echo(f"  {trial.pair} at {trial.problem}: {': '.join(trial.told())}; {reasons}")
    return rows


@click.command()
@click.option("--twins", "twin_duels", default=300, show_default=True, help="Duels of twins at each size.")
@click.option("--slowed", "slowed_duels", default=100, show_default=True, help="Duels of each slowed arm and size.")
@click.option("--load", type=click.Choice(["quiet", "loaded", "both"]), default="both", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write what every pair came to.")
def main(twin_duels: int, slowed_duels: int, load: str, seed: int, file: Path | None) -> None:
    """Duel twins and slowed arms, quiet and under load."""
    found = {}
    for condition in ("quiet", "loaded"):
        if load not in (condition, "both"):
            continue
        start = time.monotonic()
        click.echo(f"{condition}:")
        with Load(environment.measuring_core() or 0) if condition == "loaded" else contextlib.nullcontext() as others:
            if others is not None:
                others.press(on=True)
            found[condition] = measured(twin_duels, slowed_duels, seed)
        click.echo(f"{condition}: {time.monotonic() - start:.0f} s")
    if file:
        file.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
