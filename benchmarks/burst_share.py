"""The share of a burst that is prime and timed calls and the forwards that a backward needs.

`python benchmarks/burst_share.py` (half a minute): the loop of a worker is driven in this process with a stopwatch
around every visit, from the first statement of a burst to the last; the parent's gap, the time between two bursts of a
real worker, is told beside it. Conditions: the default grid, one thread, one core, whatever machine this runs on.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pandas as pd

from xentbench import environment, problems, timing, twins
from xentbench.spec import Phase, Problem
from xentbench.worker import wire
from xentbench.worker.serving import Session

BURSTS = 8
LONG_S = 1e-4
WARMING = {"warm_calls": 200, "warm_s": 0.005}


def main() -> None:
    """Print a line a cell: the baseline's latency, the share of calls, the parent's gap over the burst."""
    if (core := environment.measuring_core()) is not None:
        os.sched_setaffinity(0, {core})
    rows = []
    with twins.crew_of("twins", core) as crew:
        crew.start()
        for problem in problems.grid("default"):
            if problem.recorded:
                continue
            session = loaded(problem)
            if error := crew.set_up(problem.key, 1, list(Phase), None):
                raise error
            for phase in Phase:
                inside = share(session, phase)
                rows.append(
                    {"problem": problem.label, "phase": phase, **inside, "gap_ratio": gap(crew.workers[0], phase)}
                )
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    least = [f"{part['calls_ratio'].min():.1%}" for part in (table[table["latency_s"] >= LONG_S], table)]
    print(f"least share of cells of 0.1 ms and more: {least[0]}; of all: {least[1]}")


def loaded(problem: Problem) -> Session:
    """Return the loop's state in this process, set up for twins."""
    session = Session()
    entry = twins.crew_of("twins", None).entry
    source = {"kind": entry.source.kind, "where": entry.source.where, "paths": list(entry.source.paths)}
    switches = dict.fromkeys(("compile", "flush_denormal", "weighed"), False)
    session.load({"source": source, "name": entry.name, "threads": 1, **switches}, {})
    session.set_up({"problem": problem.key, "seed": 1, "phases": list(Phase)}, {})
    return session


def share(session: Session, phase: Phase) -> dict[str, float]:
    """Return latency and share of calls, over some bursts of one phase."""
    session.begin({"phase": phase, **WARMING}, {})
    duel: Any = session.duel
    visit, spent_ns = duel._visit, [0]  # noqa: SLF001 - the stopwatch goes where the loop itself calls

    def watched(*arguments: Any) -> Any:  # noqa: ANN401 - as the visit's
        start = time.perf_counter_ns()
        result = visit(*arguments)
        spent_ns[0] += time.perf_counter_ns() - start
        return result

    duel._visit = watched  # noqa: SLF001
    whole_ns, latencies = 0, []
    for seed in range(BURSTS):
        start = time.perf_counter_ns()
        _, times = session.burst({"seed": seed, **timing.BURST}, {})
        whole_ns += time.perf_counter_ns() - start
        latencies.append(float(times["wall_ns"][:, 0].double().median()) * 1e-9)
    return {"latency_s": sorted(latencies)[BURSTS // 2], "calls_ratio": spent_ns[0] / whole_ns}


def gap(worker: Any, phase: Phase) -> float:  # noqa: ANN401 - a worker
    """Return the parent's time between bursts over the bursts' own, for a real worker asked again and again."""
    worker.ask("begin", {"phase": phase, **WARMING})
    start, inside_s = time.perf_counter(), 0.0
    for seed in range(BURSTS):
        reply, _ = worker.ask("burst", {"seed": seed, **timing.BURST})
        inside_s += reply["elapsed_ns"] * 1e-9
    return (time.perf_counter() - start - inside_s) / inside_s


if __name__ == "__main__":
    print(f"protocol {wire.PROTOCOL}, {environment.cpu_model()}, {environment.usable_cores()} cores")
    main()
