"""Start-up of every built-in implementation, the refresh, and what of a sweep's time is bursts, in any version.

`python benchmarks/overhead.py start|refresh|sweep` prints one JSON object for `trust_cost.py`, which runs it on two
versions of the harness (the first `xentbench` on `PYTHONPATH` is the one measured): nothing is used here that the
older one does not have.

A worker's start lasts from before its process exists until it has loaded its implementation; forks come from a template
that is warm. Its end lasts until it is gone. Of a sweep that goes through the command line, in one worker each, these
are added up: the bursts by the workers' own clock (`elapsed_ns`: refreshes, prime and timed calls, copies), the timed
calls inside of them, the parent's requests for bursts and for anything else, and the wall time of groups
(`timing.duel`), of the stage that times, and of the whole command.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import tempfile
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from xentbench import cli, inputs, timing, workers
from xentbench.drawing import Stream
from xentbench.registry import BUILT_IN
from xentbench.spec import Phase, Problem, Status
from xentbench.sweep import Sweep
from xentbench.worker.storage import Numbers, Storage
from xentbench.workers import WARM_HEAP, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from xentbench.spec import Description
    from xentbench.templates import Template

SETTINGS = {**WARM_HEAP, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
SWEPT = ("f-cross-entropy", "logsumexp-gather", "from-scratch")
PROBLEMS = ("cross_entropy:N=8,C=10", "cross_entropy:N=128,C=1000")


def starts(forks: int, execs: int) -> dict[str, dict[str, list[float]]]:
    """Return for every implementation the seconds of its starts and ends, forked; of some exec'd."""
    entries = [entry for entry in workers.describe(BUILT_IN, []) if entry.status is Status.PASSED]
    template = workers.template(SETTINGS)
    start_and_end(entries[0], template)  # warms it
    found: dict[str, dict[str, list[float]]] = {}
    for entry in entries:
        times = found[entry.name] = {}
        kinds = {"fork": (template, forks), "exec": (None, execs)}
        if entry.compiles or template is None:  # compilers get an interpreter of their own
            del kinds["fork"]
        elif entry.name not in SWEPT:  # mostly the import of torch, whoever it is
            del kinds["exec"]
        for kind, (origin, count) in kinds.items():
            pairs = [start_and_end(entry, origin) for _ in range(count)]
            times[kind], times[f"{kind}_end"] = (list(part) for part in zip(*pairs, strict=True))
    return found


def start_and_end(entry: Description, template: Template | None) -> tuple[float, float]:
    """Return the seconds of one start and of its end."""
    start_s = time.perf_counter()
    with Worker(SETTINGS, template=template) as worker:
        workers.load(worker, entry, 1)
        loaded_s = time.perf_counter()
        worker.close()
    return loaded_s - start_s, time.perf_counter() - loaded_s


class Stopwatch:
    """Adds up the seconds that calls of functions and requests to workers take, by name."""

    def __init__(self) -> None:
        self.spent_s: Counter[str] = Counter()
        self._problem = ""

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its wall time added up."""

        def timed(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - as the function's
            start_s = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.spent_s[name] += time.perf_counter() - start_s

        return timed

    def asking(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        """Return a worker's `ask` with the requests' wall time, and what bursts say of themselves, added up."""

        def timed(worker: Worker, verb: str, *given: Any) -> Any:  # noqa: ANN401 - as a worker's
            start_s = time.perf_counter()
            reply, tensors = ask(worker, verb, *given)
            self.spent_s[f"asked {verb}"] += time.perf_counter() - start_s
            if verb == "set-up":
                self._problem = given[0]["problem"]
            if verb == "burst":
                for where in ("", f" {self._problem}"):
                    self.spent_s[f"bursts{where}"] += reply["elapsed_ns"] * 1e-9
                    self.spent_s[f"calls{where}"] += float(tensors["wall_ns"].sum()) * 1e-9
            return reply, tensors

        return timed


def swept(budget: str) -> dict[str, float]:
    """Bench through the command line, one worker each, and return seconds by what they were spent on."""
    watch = Stopwatch()
    Worker.ask = watch.asking(Worker.ask)  # type: ignore[method-assign]
    timing.duel = watch.around("groups", timing.duel)
    Sweep._time = watch.around("stage", Sweep._time)  # type: ignore[method-assign]  # noqa: SLF001 - the stage that times
    asked = [*(f"--implementation={name}" for name in SWEPT), *(f"--problem={key}" for key in PROBLEMS)]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run = watch.around("run", cli.cli.main)
        run(["bench", *asked, "--workers=1", f"--budget={budget}", f"--results={folder}"], standalone_mode=False)
    return dict(watch.spent_s)


def refreshed(key: str) -> dict[str, float]:
    """Return the median CPU time of a refresh in seconds, with its share of the draw that serves several."""
    problem = Problem.parse(key)
    storage = Storage(problem, inputs.make(problem, 1), Phase.FORWARD, restore=False)
    numbers, visits = Numbers(problem, Stream(key, "cost")), max(1, 4096 // problem.rows)
    times_s, end_s = [], time.perf_counter() + 1.0
    while time.perf_counter() < end_s:
        start_ns = time.thread_time_ns()
        for _ in range(visits):
            storage.refresh(numbers)
        times_s.append((time.thread_time_ns() - start_ns) * 1e-9 / visits)
    return {"refresh_s": statistics.median(times_s)}


@click.command()
@click.argument("what", type=click.Choice(["start", "refresh", "sweep"]))
@click.option("--problem", default=PROBLEMS[0], show_default=True, help="Key of the problem that is refreshed.")
@click.option("--forks", default=3, show_default=True, help="Forks of every implementation.")
@click.option("--execs", default=1, show_default=True, help="Workers exec'd of every implementation.")
@click.option("--budget", default="60s", show_default=True, help="Of the sweep.")
def main(what: str, problem: str, forks: int, execs: int, budget: str) -> None:
    """Measure start-up, a refresh or a sweep, and print what was seen."""
    parts = {
        "start": lambda: starts(forks, execs),
        "refresh": lambda: refreshed(problem),
        "sweep": lambda: swept(budget),
    }
    print(json.dumps(parts[what]()))


if __name__ == "__main__":
    main()
