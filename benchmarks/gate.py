"""A gate that stays on: the example project's gate, run many times as its workflow file says it.

    python benchmarks/gate.py --log gate.jsonl --minutes 9     # again and again, until it says that nothing is left

Three trials, each run logged as one JSON line and never made twice:

- `unchanged`: base and head hold the same code. In every second run a process computes on the measuring core all the
  while. A failure is a false one.
- `slowed`: the head waits for 10 % of its own time after its forward and its backward pass; the base does the same
  without the wait. In every second run beside the same load.
- `wrong`, `right`: each of `xentbench.mistakes`, through the fixture of the pytest plugin on the full panel, in one
  pytest process for 20 of them.

Conditions: CPU, float32, forward+backward at the sizes of the workflow, on whatever machine this runs.
"""

from __future__ import annotations

import contextlib
import json
import platform
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import numpy as np
from competing import Load
from their_repo import LOSSES, Repository, commands

from xentbench import environment, mistakes
from xentbench.twins import upper_bound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCH: Final = 20
SLOWER: Final = Path("src/their_package/slower_both.py")
WAITING: Final = """

import time

from xentbench.worker.spinning import look_ns, wrapper_ns

from their_package.slower_both import slowed_both

_each_ns = look_ns(time.thread_time_ns)
_own_ns = wrapper_ns(_each_ns, time.thread_time_ns)
token_loss = slowed_both({share}, _each_ns, _own_ns, time.thread_time_ns, token_loss)
"""
"""Appended to the losses: both revisions hold the same wrapper, and differ in its share alone. It waits by CPU time: a
wait that is over while somebody else has the core would be none."""
ASKED: Final = """
import pytest
from xentbench import mistakes

LOSSES = {**mistakes.WRONG, **mistakes.RIGHT}


@pytest.mark.parametrize("name", NAMES)
def test_it(name, cross_entropy_parity):
    cross_entropy_parity(LOSSES[name].loss, grid="full")
"""


def timing_command() -> str:
    """Return the workflow's one line that times."""
    (line,) = (line for line in commands() if "xentbench compare" in line)
    return line


def gated(kind: str, *, loaded: bool) -> dict[str, Any]:
    """Run the timing gate once, in fresh processes of a fresh copy, and return what came of it."""
    with tempfile.TemporaryDirectory(prefix="xentbench-gate-") as folder, contextlib.ExitStack() as stack:
        repository = _changed(kind, Path(folder))
        if loaded:
            stack.enter_context(Load(environment.measuring_core() or 0, ("computing",))).press(on=True)
        start_s, told = time.monotonic(), Path(folder) / "told.json"
        done = repository.run(f"{timing_command()} --json {told}")
        wall_s = time.monotonic() - start_s
        cells = json.loads(told.read_text())["differences"] if done.returncode in (0, 1, 3) else []
        error = "" if cells else done.stderr[-2000:]
    kept = ("problem", "outcome", "ratio", "ratio_low", "ratio_high", "reason")
    seen = [{name: cell[name] for name in kept} for cell in cells]
    return {"loaded": loaded, "failed": done.returncode, "wall_s": wall_s, "cells": seen, "error": error}


def _changed(kind: str, folder: Path) -> Repository:
    """Return a copy of the example with its change."""
    if kind == "unchanged":
        repository = Repository.at(folder)
        repository.commit({Path("README.md"): "other words\n"})
        return repository
    here = Path(__file__).parent
    plain = Repository.at(folder)
    text = (plain.folder / LOSSES).read_text(encoding="utf-8")
    plain.git("checkout", "-q", "main")
    slower = (here / "slower_both.py").read_text(encoding="utf-8")
    plain.commit({LOSSES: text + WAITING.format(share=0.0), SLOWER: slower})
    plain.git("checkout", "-q", "-B", "change")
    plain.commit({LOSSES: text + WAITING.format(share=0.10)})
    return plain


def judged(names: Sequence[str]) -> dict[str, str]:
    """Put losses through the plugin's fixture in one pytest process; return `passed` or `failed` of each."""
    with tempfile.TemporaryDirectory(prefix="xentbench-gate-") as folder:
        repository = Repository.at(Path(folder))
        file = repository.folder / "tests" / "test_many.py"
        file.write_text(ASKED.replace("NAMES", repr(list(names))), encoding="utf-8")
        done = repository.run("pytest tests/test_many.py -q -rA --no-header --show-capture=no")
    ends = re.findall(r"^(PASSED|FAILED|SKIPPED|ERROR) \S+::test_it\[([^\]]+)\]", done.stdout, re.MULTILINE)
    return {name: end.lower() for end, name in ends}


def pending(log: Path, counts: dict[str, int]) -> Iterator[tuple[str, Any]]:
    """Yield what is still to be done, the kinds in turn: a run's number, or a batch of names."""
    lines = read(log)
    had = Counter(line["kind"] for line in lines)
    for number in range(max(counts.values())):
        for kind, count in counts.items():
            if had[kind] <= number < count:
                yield kind, number
    for kind, held in (("wrong", mistakes.WRONG), ("right", mistakes.RIGHT)):
        known = {name for line in lines if line["kind"] == kind for name in line["ends"]}
        left = [name for name in held if name not in known]
        yield from ((kind, left[place : place + BATCH]) for place in range(0, len(left), BATCH))


def read(log: Path) -> list[dict[str, Any]]:
    """Return the lines so far."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def one(kind: str, what: Any) -> dict[str, Any]:  # noqa: ANN401 - a number or names
    """Make one run, or judge one batch."""
    if kind in ("wrong", "right"):
        return {"kind": kind, "ends": judged(what)}
    return {"kind": kind, "load": Path("/proc/loadavg").read_text().split()[0], **gated(kind, loaded=what % 2 == 1)}


def told(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield what everything came to, in sentences."""
    for kind in ("unchanged", "slowed"):
        for loaded in (False, True):
            runs = [line for line in lines if line["kind"] == kind and line["loaded"] == loaded]
            if runs:
                yield f"{kind}, {'one core loaded' if loaded else 'quiet'}: {_counted(kind, runs)}"
        runs = [line for line in lines if line["kind"] == kind]
        if runs:
            yield f"{kind}, all: {_counted(kind, runs)}"
    for kind, right in (("wrong", "failed"), ("right", "passed")):
        ends = {name: end for line in lines if line["kind"] == kind for name, end in line["ends"].items()}
        if ends:
            others = [f"{name} ({end})" for name, end in ends.items() if end != right]
            yield f"{kind}: {len(ends) - len(others)} of {len(ends)} {right}" + f"; not {', '.join(others)}" * bool(
                others
            )


def _counted(kind: str, runs: Sequence[dict[str, Any]]) -> str:
    """Return how many runs failed, the exact one-sided 95 % bound, seconds a run, and how wide the intervals were."""
    broken = sum(run["failed"] not in (0, 1) for run in runs)
    failed, count = sum(run["failed"] == 1 for run in runs), len(runs)
    cells = [cell for run in runs for cell in run["cells"] if cell["ratio"]]
    outcomes = Counter(cell["outcome"] for run in runs for cell in run["cells"])
    widths = [np.log(cell["ratio_high"] / cell["ratio_low"]) / 2 for cell in cells if cell["ratio_low"]]
    seconds = [run["wall_s"] for run in runs]
    missed = count - failed if kind == "slowed" else failed
    rate = f"{'missed' if kind == 'slowed' else 'false'} in at most {upper_bound(missed, count):.1%}"
    return (
        f"{failed} of {count} fail ({rate}); cells: {', '.join(f'{n} {name}' for name, n in outcomes.items())}; "
        f"median {np.median([cell['ratio'] for cell in cells]) - 1:+.1%}, half-width ±{np.median(widths):.1%} "
        f"(most ±{max(widths):.1%}); {np.median(seconds):.0f} s a run, most {max(seconds):.0f}"
        + (f"; {broken} ended in an error" if broken else "")
    )


@click.command()
@click.option("--log", type=click.Path(path_type=Path), default="gate.jsonl", show_default=True, help="Lines so far.")
@click.option("--unchanged", default=60, show_default=True, help="Runs of unchanged code.")
@click.option("--slowed", default=60, show_default=True, help="Runs of code that is slower by 10 %.")
@click.option("--judged/--no-judged", "judges", default=True, show_default=True, help="Every wrong and right loss.")
@click.option("--minutes", default=9.0, show_default=True, help="Begin nothing new after so many.")
def main(log: Path, unchanged: int, slowed: int, minutes: float, *, judges: bool) -> None:
    """Run what is not in the log yet, then say what all of it came to."""
    end_s, left = time.monotonic() + 60 * minutes, 0
    for kind, what in pending(log, {"unchanged": unchanged, "slowed": slowed}):
        if kind in ("wrong", "right") and not judges:
            continue
        if time.monotonic() > end_s:
            left += 1
            continue
        line = one(kind, what)
        with log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        click.echo(json.dumps(line)[:300], err=True)
    lines = read(log)
    for sentence in told(lines):
        click.echo(sentence)
    versions = f"python {platform.python_version()}, torch {environment.version('torch')}"
    click.echo(f"{environment.cpu_model()}, {environment.usable_cores()} cores; {versions}; {left} runs left")


if __name__ == "__main__":
    main()
