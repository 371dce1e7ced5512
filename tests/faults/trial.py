"""All faults in one run, in any order, beside an honest loss: through what the command line runs.

    python -m faults.trial [--loaded] [--honest]

in the folder `tests` prints what did not end as it should. `--loaded`: with all processes on one core, which two
others keep busy. `--honest`: only those that have to pass.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unittest import mock

from cheats.trial import HARMLESS
from rich.console import Console
from worker_fixtures import ONE_GOOD, loaded_core, plugin

from faults import FOLDER, IMPORTING, THEMES, Fault, called
from xentbench import ordering, planning, results, running, templates, workers
from xentbench.console import Progressing
from xentbench.ordering import Given, Order
from xentbench.shards import Shard
from xentbench.spec import Description, Phase, Problem, Source, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

PROBLEM: Final = Problem(batch_size=8, num_classes=10)
PHASES: Final = (Phase.FORWARD, Phase.FORWARD_BACKWARD)
ALL: Final = {**called(), **IMPORTING}
LIMIT_S: Final = 1.5
"""In place of each deadline that a hang runs into."""
SHORT_S: Final = {**workers.DEADLINES_S, **dict.fromkeys(("describe", "set-up", "answer", "repeat", "memory"), LIMIT_S)}
GOOD: Final = Fault("good", "", Status.PASSED)


def source(fault: Fault, folder: Path) -> Source:
    """Return where a fault is; one that is text is written to the folder."""
    file = FOLDER / f"{fault.theme}.py"
    if fault.text:
        file = folder / "faulty.py"
        file.write_text(fault.text)
    return Source("file", str(file), (str(FOLDER.parent),))


def alive() -> set[int]:
    """Return the processes that bear the mark of this run, but for templates."""
    return set(templates.marked()) - {template.pid for template in templates._started.values()}


def astray(faults: Sequence[Fault], folder: Path) -> dict[str, list[str]]:
    """Run the faults and an honest loss; return what each told that did not end as it should in each of its cells."""
    faults = [GOOD, *faults]
    entries = _entries({fault.name for fault in faults}, folder)
    plan = planning.make(planning.Posed((PROBLEM,), {}, {}, ()), entries, PHASES, planning.Preset(1200.0, 1, 0.1), 3)
    given = Given((), (), (), {"logits_file": None}, {"preset": None, "seed": None})
    journal = results.create(folder / "runs")
    journal.head(ordering.head(plan, given, Shard(), []))
    run = running.bench(Order(plan, plan, journal, "", {}), Progressing(Console(quiet=True), live=False))
    wrong = any(fault.in_a_run is not Status.PASSED for fault in faults)
    if not (run.path / "report.html").exists() or running.is_wrong(run) != wrong:
        msg = "a run of faults must be complete, have its page, and be wrong if any of them is"
        raise AssertionError(msg)
    told: dict[str, list[str]] = {fault.name: [] for fault in faults}
    for cell in run.cells.to_dict("records"):
        told[cell["implementation"]].append(_told(cell))
    ends = {fault.name: [str(fault.in_a_run)] * len(PHASES) for fault in faults}
    return {name: several for name, several in told.items() if [text.split()[0] for text in several] != ends[name]}


def _told(cell: dict) -> str:
    """Return how a cell ended: its status, but `accused` where it passed with a label that accuses, or untimed."""
    labels = set(filter(None, str(cell["labels"] or "").split(",")))
    if cell["status"] == Status.PASSED and (labels - HARMLESS - {"delegate"} or not cell["latency_s"] > 0):
        return f"accused of {sorted(labels)}, {cell['latency_s']} s"
    return f"{cell['status']} {cell['reason']}"


def _entries(names: set[str], folder: Path) -> list[Description]:
    files = [Source("file", str(FOLDER / f"{theme}.py"), (str(FOLDER.parent),)) for theme in THEMES]
    files.append(Source("file", str(plugin(folder, ONE_GOOD))))
    entries = [entry for file in files for entry in workers.describe(file, [PROBLEM.key]) if entry.name in names]
    for name in names & IMPORTING.keys():
        (folder / name).mkdir()
        (entry,) = workers.describe(source(IMPORTING[name], folder / name), [PROBLEM.key])
        entries.append(dataclasses.replace(entry, name=name))
    return random.sample(entries, len(entries))


def main(arguments: Sequence[str]) -> int:
    """Run the faults once; return how many did not end as they should, and what lives on."""
    faults = [fault for fault in ALL.values() if fault.in_a_run is Status.PASSED or "--honest" not in arguments]
    start_s = time.monotonic()
    with (
        loaded_core() if "--loaded" in arguments else contextlib.nullcontext(),
        tempfile.TemporaryDirectory(prefix="xentbench-trial-") as folder,
        mock.patch.object(workers, "DEADLINES_S", SHORT_S),
    ):
        bad = astray(faults, Path(folder))
    for name, told in bad.items():
        print(name, *(text[:300] for text in told), sep="\n    ")
    took_s = time.monotonic() - start_s
    left = alive()
    print(f"{len(bad)} of {len(faults)} astray, {len(left)} processes left [{took_s:.0f} s]")
    return len(bad) + len(left)


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
