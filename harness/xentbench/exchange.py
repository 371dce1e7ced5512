"""A run as another tool writes one: the JSON of pytest-benchmark, made from the raw times."""

from __future__ import annotations

import json
import math
import statistics as plain
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xentbench import environment, results, statistics
from xentbench.spec import inert
from xentbench.worker.visits import CANDIDATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xentbench.results import Run

FORMAT: Final = "5.3.1"
"""The version of pytest-benchmark whose JSON this is."""
TOLD: Final = (
    *("status", "reason", "labels", "grade", "verdict", "ratio", "ratio_low", "ratio_high", "clock"),
    *("baseline_latency_s", "workers", "cpu_share", "minor_faults"),
    *("peak_bytes", "saved_bytes", "peak_resident_bytes", "minimum_bytes", "floor_s", "limit_s", "setup_s"),
)
"""Columns of a cell that go into `extra_info`; its `ratio` is made call by call: a quotient of two means is none."""
WHISKER: Final = 1.5
"""Tukey's: what lies farther than so many interquartile ranges beyond a quartile is an outlier."""


def pytest_benchmark(run: Run) -> str:
    """Return a run in the format of `pytest --benchmark-json`: what was timed, each cell a benchmark.

    Its times are the wall times of the rounds that were kept, over all workers, one call each, in seconds. A cell that
    was not timed, or whose raw times were lost, is left out. The host's name is no part of it.
    """
    told = run.info.get("environment")
    facts = told if isinstance(told, dict) else {}
    record = {
        "machine_info": _machine(facts),
        "commit_info": {
            "id": "unversioned",
            "time": None,
            "author_time": None,
            "dirty": False,
            "project": "xentbench",
            "branch": "(unknown)",
        },
        "benchmarks": list(_benchmarks(run)),
        "datetime": str(run.info.get("started", "")),
        "version": FORMAT,
    }
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def _benchmarks(run: Run) -> Iterator[dict[str, Any]]:
    times = {tuple(raw[key] for key in results.CELL): raw for raw in results.samples(run.path)}
    cells = run.cells.astype(object).where(run.cells.notna(), None).to_dict("records")
    for cell in cells:
        raw = times.get(tuple(cell[key] for key in results.CELL))
        seconds = _kept_s(raw) if raw is not None and cell["ratio"] is not None else []
        if seconds:
            yield _benchmark(run.id, {str(name): value for name, value in cell.items()}, seconds)


def _kept_s(raw: Mapping[str, Any]) -> list[float]:
    """Return the times of the kept rounds of all workers, in seconds; none where the record is not understood."""
    try:
        bursts = [np.asarray(burst, dtype=np.int64) for worker in raw["bursts_wall_ns"] for burst in worker]
        kept = [statistics.keep(burst)[:, CANDIDATE] for burst in bursts if len(burst)]
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return []
    return [ns / 1e9 for times in kept for ns in times.tolist()]


def _benchmark(run: str, cell: Mapping[str, Any], seconds: list[float]) -> dict[str, Any]:
    contract, _, axes = str(cell["problem"]).partition(":")
    name, phase = inert(str(cell["implementation"])), str(cell["phase"])
    param = f"{name}-{axes}"
    return {
        "group": f"{phase} {cell['label']}",
        "name": f"{phase}[{param}]",
        "fullname": f"{contract}::{phase}[{param}]",
        "params": {"implementation": name, "problem": cell["problem"], "phase": phase},
        "param": param,
        "extra_info": {"run": run, **{column: _strict(cell[column]) for column in TOLD}},
        "options": {"disable_gc": True, "timer": "perf_counter_ns", "warmup": True},
        "stats": {**summary(seconds), "data": seconds, "iterations": 1},
    }


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Return what pytest-benchmark says of times, in its words and by its rules.

    Quartiles are medians of the halves; of an odd number of times they are drawn between two neighbours of these (the
    third of the usual methods). `ops` is calls a second.

    Args:
        seconds: one or more times.
    """
    ordered = np.sort(np.asarray(seconds, dtype=np.float64))
    rounds, total_s = len(ordered), math.fsum(seconds)
    mean = total_s / rounds
    stddev = float(np.std(ordered, ddof=1)) if rounds > 1 else 0.0
    low, high = _quartiles(ordered.tolist())
    fence = WHISKER * (high - low)
    beyond = [
        int(np.sum((ordered < a) | (ordered > b)))
        for a, b in ((mean - stddev, mean + stddev), (low - fence, high + fence))
    ]
    inside = ordered[(ordered >= low - fence) & (ordered <= high + fence)]
    return {
        "min": float(ordered[0]),
        "max": float(ordered[-1]),
        "mean": mean,
        "stddev": stddev,
        "rounds": rounds,
        "median": float(np.median(ordered)),
        "iqr": high - low,
        "q1": low,
        "q3": high,
        "iqr_outliers": beyond[1],
        "stddev_outliers": beyond[0],
        "outliers": f"{beyond[0]};{beyond[1]}",
        "ld15iqr": float(inside[0]),
        "hd15iqr": float(inside[-1]),
        "ops": rounds / total_s if total_s else 0,
        "total": total_s,
    }


def _quartiles(ordered: list[float]) -> tuple[float, float]:
    count = len(ordered)
    if count == 1:
        return ordered[0], ordered[0]
    if count % 2 == 0:
        return plain.median(ordered[: count // 2]), plain.median(ordered[count // 2 :])
    n, rest = divmod(count, 4)
    if rest == 1:
        return 0.25 * ordered[n - 1] + 0.75 * ordered[n], 0.75 * ordered[3 * n] + 0.25 * ordered[3 * n + 1]
    return 0.75 * ordered[n] + 0.25 * ordered[n + 1], 0.25 * ordered[3 * n + 1] + 0.75 * ordered[3 * n + 2]


def _machine(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of the machine under the names that pytest-benchmark gives it."""
    named = {"machine": "machine", "python_version": "python", "release": "kernel", "system": "os"}
    return {
        "node": "",
        "processor": "",
        **{name: str(facts.get(fact, environment.UNTOLD)) for name, fact in named.items()},
        "python_implementation": "CPython",
        "cpu": {"brand_raw": str(facts.get("cpu", environment.UNTOLD)), "count": facts.get("cores")},
        "xentbench": {str(name): _strict(value) for name, value in facts.items()},
    }


def _strict(value: Any) -> Any:  # noqa: ANN401 - of a journal
    """Return a value as strict JSON has one."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
