"""What it costs that every timed answer is judged: `python benchmarks/trust_cost.py` (3 minutes, with --before 6).

Medians of: the start and end of a worker of every built-in implementation; in a worker, the refresh, the copy of the
loss right after its call, the remembering of a gradient and the watch, beside the calls and bursts that they go with;
in the parent, the judging of a burst's answers and the preparing of a problem; and what of a sweep's time is bursts,
of this version and of an older one in turns. The worker's loop and the parent's judging run in this process, the rest
goes through `overhead.py`. Between calls time is the processor's: a busy machine's other work is not counted.
Conditions: F.cross_entropy as the candidate, float32, one thread, whatever machine this is.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import pandas as pd

import xentbench
from xentbench import environment, timing, twins
from xentbench.challenge import Challenge
from xentbench.spec import Phase, Problem
from xentbench.witness import Witness
from xentbench.worker import wire
from xentbench.worker.serving import Session
from xentbench.worker.visits import ARMS, CANDIDATE, SLOTS, Keeper
from xentbench.workers import WARM_HEAP

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES: Final = ((8, 10), (512, 32000))
PHASES: Final = (Phase.FORWARD, Phase.FORWARD_BACKWARD)
SEED: Final = 1
BURSTS: Final = 9
TRIES_S: Final = 1.0
"""For the tries of one figure, of which the median is told."""
WORKERS: Final = {**WARM_HEAP, "OMP_NUM_THREADS": "1"}
"""Environment of a worker, which this process is for the figures of a burst."""
OVERHEAD: Final = Path(__file__).with_name("overhead.py")
HERE: Final = Path(xentbench.__file__).parents[1]


@click.command()
@click.option("--before", type=click.Path(exists=True, path_type=Path), help="Checkout of an older version.")
@click.option("--repeats", default=3, show_default=True, help="Sweeps of each version, and rounds of starts.")
@click.option("--budget", default="60s", show_default=True, help="Of each sweep.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every figure.")
def main(before: Path | None, repeats: int, budget: str, file: Path | None) -> None:
    """Measure, and print a table for each part."""
    if WORKERS.items() - os.environ.items():  # the allocator reads them once
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **WORKERS})  # noqa: S606 - ourselves
    versions = {"after": HERE} | ({"before": before.resolve() / "harness"} if before else {})
    problems = [Problem(batch_size=rows, num_classes=classes) for rows, classes in SIZES]
    told = {
        "start": start_up(versions, repeats),
        "bursts": [row for problem in problems for row in bursts(problem, refresh_us(versions, problem))],
        "sweep": sweeps(versions, repeats, budget),
    }
    for rows in told.values():
        print(pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.3g}"), end="\n\n")
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    print(f"{environment.cpu_model()}, {environment.usable_cores()} cores, load {load}, protocol {wire.PROTOCOL}")
    if file:
        file.write_text(json.dumps(told, indent=1), encoding="utf-8")


def start_up(versions: dict[str, Path], repeats: int) -> list[dict[str, Any]]:
    """Return a row an implementation: medians in seconds; versions take turns."""
    times: dict[str, dict[str, list[float]]] = {}
    for _ in range(repeats):
        for version, harness in versions.items():
            for name, kinds in overhead(harness, "start").items():
                row = times.setdefault(name, {})
                for kind, several in kinds.items():
                    row.setdefault(f"{kind}_s {version}", []).extend(several)
    return [
        {"implementation": name} | {what: statistics.median(several) for what, several in row.items()}
        for name, row in times.items()
    ]


def sweeps(versions: dict[str, Path], repeats: int, budget: str) -> list[dict[str, Any]]:
    """Return a row a version: medians over sweeps, which take turns, of shares of time."""
    seen: dict[str, list[dict[str, float]]] = {version: [] for version in versions}
    for _ in range(repeats):
        for version, harness in versions.items():
            seen[version].append(shares(overhead(harness, "sweep", f"--budget={budget}")))
    return [
        {"version": version} | {name: statistics.median(one.get(name, 0.0) for one in several) for name in several[0]}
        for version, several in seen.items()
    ]


def shares(spent_s: dict[str, float]) -> dict[str, float]:
    """Return what of a sweep's time is not bursts, and where it goes instead, each over the wall time it is part of."""
    groups, bursts_s = spent_s["groups"], spent_s["bursts"]
    asked = {verb: spent_s.get(f"asked {verb}", 0.0) for verb in ("begin", "burst", "gradient")}
    timed = {
        f"calls / bursts {Problem.parse(key).label}": spent_s[f"calls {key}"] / spent_s[f"bursts {key}"]
        for key in (name.removeprefix("bursts ") for name in spent_s if name.startswith("bursts "))
    }
    return {
        "not bursts / groups": 1.0 - bursts_s / groups,
        "not bursts / stage": 1.0 - bursts_s / spent_s["stage"],
        "not bursts / run": 1.0 - bursts_s / spent_s["run"],
        "warming / groups": asked["begin"] / groups,
        "around bursts / groups": (asked["burst"] - bursts_s) / groups,
        "gradients / groups": asked["gradient"] / groups,
        "parent / groups": 1.0 - sum(asked.values()) / groups,
        **timed,
        "groups_s": groups,
        "stage_s": spent_s["stage"],
        "run_s": spent_s["run"],
    }


def overhead(harness: Path, *arguments: str) -> dict[str, Any]:
    """Run `overhead.py` on a version of the harness; return what it told."""
    kept = {name: value for name, value in os.environ.items() if name not in WORKERS}
    surroundings = {**kept, "PYTHONPATH": str(harness.resolve())}
    command = [sys.executable, str(OVERHEAD), *arguments]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=surroundings)  # noqa: S603 - ourselves
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


def refresh_us(versions: dict[str, Path], problem: Problem) -> dict[str, float]:
    """Return the time of a refresh in each version."""
    told = {version: overhead(at, "refresh", f"--problem={problem.key}") for version, at in versions.items()}
    return {version: one["refresh_s"] * 1e6 for version, one in told.items()}


def bursts(problem: Problem, refreshes_us: dict[str, float]) -> list[dict[str, Any]]:
    """Return a row a phase: what goes with a burst, in the worker and in the parent."""
    session = Session()
    entry = twins.crew_of("twins", None).entry
    source = {"kind": entry.source.kind, "where": entry.source.where, "paths": list(entry.source.paths)}
    switches = dict.fromkeys(("compile", "flush_denormal", "weighed"), False)
    session.load({"source": source, "name": entry.name, "threads": 1, **switches}, {})
    session.set_up({"problem": problem.key, "seed": SEED, "phases": list(PHASES)}, {})
    prepared_ms = typical_ns(lambda: Challenge(problem, SEED)) * 1e-6
    challenge = Challenge(problem, SEED)
    return [one_phase(session, challenge, phase, refreshes_us) | {"problem_ms": prepared_ms} for phase in PHASES]


def one_phase(session: Session, challenge: Challenge, phase: Phase, refreshes_us: dict[str, float]) -> dict[str, Any]:
    """Return the figures of one size and phase; times in microseconds and milliseconds, as their names tell."""
    problem = challenge.problem
    session.begin({"phase": phase, "warm_calls": 200, "warm_s": 0.005}, {})
    duel, watch, witness = session.duel, session.watch, Witness(challenge, phase)
    assert duel is not None
    assert watch is not None
    whole, calls, rounds, judging, remembering, remembered = [], [], [], [], [], []
    for seed in range(BURSTS):
        ran = duel.burst(seed, **timing.BURST)
        whole.append(ran.elapsed_ns)
        calls += ran.wall_ns[:, CANDIDATE].tolist()
        rounds.append(len(ran.wall_ns))
        judging.append(spent_ns(lambda seed=seed, ran=ran: witness.losses(seed, ran.losses)))
        if phase is Phase.FORWARD_BACKWARD:
            slot = seed % SLOTS
            rows = duel.remembered[slot]
            remembering.append(spent_ns(lambda seed=seed, slot=slot, rows=rows: witness.gradient(seed, slot, rows)))
            keeper = Keeper(seed)
            remembered.append(sum(bool(keeper.next()) for _ in range(len(ran.wall_ns))))
    if changes := watch.changes():
        msg = f"the watch expected no change in this process, saw {changes}"
        raise RuntimeError(msg)
    burst_ms, call_us = statistics.median(whole) * 1e-6, statistics.median(calls) * 1e-3
    visit_us = burst_ms * 1e3 / (statistics.median(rounds) * ARMS)
    refreshed_us, copy_us = refreshes_us["after"], copy_ns(session) * 1e-3
    remember_us = remember_ns(session) * 1e-3 if remembering else 0.0
    watch_ms = typical_ns(watch.changes) * 1e-6
    losses_ms, gradient_ms = (statistics.median(times or [0]) * 1e-6 for times in (judging, remembering))
    return {
        "problem": problem.label,
        "phase": phase,
        "burst_ms": burst_ms,
        "rounds": statistics.median(rounds),
        "visit_us": visit_us,
        "call_us": call_us,
        **{f"refresh_us {version}": time_us for version, time_us in refreshes_us.items()},
        "refresh / call": refreshed_us / call_us,
        "refresh / visit": refreshed_us / visit_us,
        "copy_us": copy_us,
        "copy / call": copy_us / call_us,
        "copy / visit": 2.0 * copy_us / visit_us,  # the untimed call's answer is copied as well
        "remember_us": remember_us,
        "remember / burst": remember_us * statistics.median(remembered or [0]) * 1e-3 / burst_ms,
        "watch_ms": watch_ms,
        "watch / burst": watch_ms / burst_ms,
        "losses_ms": losses_ms,
        "gradient_ms": gradient_ms,
        "parent / burst": (losses_ms + gradient_ms) / burst_ms,
    }


def copy_ns(session: Session) -> float:
    """Return the time of the copy of a loss that a call has just returned, less the clock's own."""
    duel = session.duel
    assert duel is not None
    times, end_s = [], time.perf_counter() + TRIES_S
    while time.perf_counter() < end_s:
        result = duel.arms[CANDIDATE](duel.prime.logits, duel.prime.target)
        start = time.perf_counter_ns()  # the clock of CPU time takes longer than the copy
        duel._copied(result)  # noqa: SLF001 - what the loop itself calls
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) - duel.clock.overhead_ns


def remember_ns(session: Session) -> float:
    """Return the time that it takes to remember the gradient of a call just made."""
    duel = session.duel
    assert duel is not None
    times, end_s, call = [], time.perf_counter() + TRIES_S, 0
    while time.perf_counter() < end_s:
        call += 1
        duel._visit(duel.arms[CANDIDATE], duel.prime, duel._meter)  # noqa: SLF001 - it leaves the gradient behind
        times.append(spent_ns(lambda call=call: duel._remember([0], SEED, call)))  # noqa: SLF001 - as the loop does
    return statistics.median(times)


def typical_ns(function: Callable[[], object]) -> float:
    """Return the median time of a call, over three calls or a second of them."""
    times, end_s = [], time.perf_counter() + TRIES_S
    while len(times) < 3 or time.perf_counter() < end_s:  # noqa: PLR2004 - the fewest that have a median
        times.append(spent_ns(function))
    return statistics.median(times)


def spent_ns(function: Callable[[], object]) -> int:
    """Return the CPU time of one call: on a busy machine it is the time that the call would take by itself."""
    start = time.thread_time_ns()
    function()
    return time.thread_time_ns() - start


if __name__ == "__main__":
    main()
