"""One entry on trial: real workers, through what the command line runs, on one or two small problems.

    python -m cheats.trial [--brief] [--loaded] [NAME …]

in the folder `tests` prints for every entry how its cells ended. `--brief`: at one problem and phase. `--loaded`:
with all processes on one core, which two others keep busy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from worker_fixtures import loaded_core

from cheats import CHEATS, HONEST, Cheat, Honest
from xentbench import examining, machine, planning, results, sweep, workers
from xentbench.limits import Survey
from xentbench.spec import Source, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

CELL_S: Final = 0.3
"""What one cell's bursts take."""
CALL_S: Final = 8e-3
"""For each call that a patient cheat lets pass: what one may take on a loaded core, the other arms' included."""
COMPANY: Final = "in-float64"
"""Who is timed beside some."""
HARMLESS: Final = frozenset(
    {
        "backward-once",
        "no-double-backward",
        "not-deterministic",
        "gradient-in-forward",
        "overwrites-input",
        "workspace",
        "slow-first-call",
        "outside-allocator",
        "unsteady-memory",
    }
)
"""Labels that tell of a way of working, and accuse nobody."""
_survey: Final = Survey(machine.measure)


@dataclass(frozen=True, slots=True)
class Cell:
    """How one cell ended."""

    problem: str
    phase: str
    status: Status
    labels: frozenset[str]
    reason: str


class _Nobody:
    """Watches and says nothing."""

    def stage(self, title: str, steps: int) -> None: ...

    def step(self, text: str) -> None: ...

    def cell(self, fields: Any) -> None: ...

    def left(self, seconds: float) -> None: ...


def cells(entry: Cheat | Honest, cell_s: float = CELL_S) -> list[Cell]:
    """Judge and time the entry, in a run of its own, and return what was recorded.

    Its memory is weighed where the label that it must have comes from that.
    """
    names = [entry.name]
    if isinstance(entry, Cheat):
        cell_s = max(cell_s, entry.patience * CALL_S)
        names += [COMPANY] * entry.in_company
    keys = [problem.key for problem in entry.problems]
    found = [described for name in names for described in workers.describe(_source(name), keys)]
    posed = planning.Posed(entry.problems, {}, {}, ())
    preset = planning.Preset(budget_s=300.0, workers=1, half_width=0.0)
    plan = planning.make(posed, found, entry.phases, preset, secrets.randbits(63))
    weighs = isinstance(entry, Cheat) and entry.labels & {"delegate", "workspace"}
    patched = contextlib.nullcontext() if weighs else mock.patch.object(examining.weighing, "weigh", return_value={})
    with (
        patched,
        tempfile.TemporaryDirectory(prefix="xentbench-trial-") as folder,
        mock.patch.object(sweep, "cell_limit_s", return_value=cell_s),
    ):
        journal = results.create(Path(folder) / "runs")
        journal.head({"run": journal.run})
        sweep.Sweep(plan, journal, _Nobody(), survey=_survey).run()
        told = results.read(journal.folder).cells.to_dict("records")
    return [
        Cell(
            str(cell["problem"]),
            str(cell["phase"]),
            Status(cell["status"]),
            frozenset(_words(cell["labels"])),
            str(cell["reason"]),
        )
        for cell in told
        if cell["implementation"] == entry.name
    ]


def _source(name: str) -> Source:
    place = f"cheats.entrance:{name.replace('-', '_')}"
    return Source("object", place, (str(Path(__file__).parents[1]),))


def brief(entry: Cheat | Honest) -> list[Cell]:
    """As `cells`, at the entry's first problem and phase, as briefly as its patience allows."""
    return cells(dataclasses.replace(entry, problems=entry.problems[:1], phases=entry.phases[:1]), 0.1)


def _words(labels: Any) -> list[str]:
    return labels.replace(",", " ").split() if isinstance(labels, str) else list(labels)


def accepted(entry: Cheat, seen: Sequence[Cell]) -> list[Cell]:
    """Return the cells of a cheat that were passed without the flag that they must have."""
    return [cell for cell in seen if cell.status is Status.PASSED and not (entry.labels & cell.labels)]


def misnamed(entry: Cheat, seen: Sequence[Cell]) -> list[Cell]:
    """Return the cells of a cheat that ended otherwise than they should have."""
    return [cell for cell in seen if cell.status not in {*entry.ends, Status.PASSED}]


def accused(seen: Sequence[Cell]) -> list[Cell]:
    """Return the cells of an honest entry that were not passed, or with a label that accuses."""
    return [cell for cell in seen if cell.status is not Status.PASSED or cell.labels - HARMLESS - {"delegate"}]


def told(entry: Cheat | Honest, seen: Sequence[Cell]) -> tuple[str, Cell]:
    """Return how the entry did, in a word, and the cell that tells most of it."""
    if isinstance(entry, Honest):
        wrong = accused(seen)
        return ("ACCUSED", wrong[0]) if wrong else ("ok", seen[0])
    if wrong := accepted(entry, seen):
        return ("ACCEPTED" if entry.is_promised else "beyond"), wrong[0]
    other = misnamed(entry, seen)
    return ("MISNAMED", other[0]) if other else ("ok", seen[0])


def main(arguments: Sequence[str]) -> int:
    """Try what matches, all without a name; return how many did not end as they should."""
    globs = [argument for argument in arguments if not argument.startswith("--")]
    chosen = [entry for entry in (*CHEATS.values(), *HONEST.values()) if _matches(entry.name, globs)]
    attempt = brief if "--brief" in arguments else cells
    bad = 0
    with loaded_core() if "--loaded" in arguments else contextlib.nullcontext():
        for entry in chosen:
            start_s = time.monotonic()
            seen = attempt(entry)
            word, cell = told(entry, seen)
            bad += word not in ("ok", "beyond")
            row = "honest" if isinstance(entry, Honest) else f"row {entry.row}"
            ends = ", ".join(sorted({" ".join([cell.status, *sorted(cell.labels)]) for cell in seen}))
            took_s = time.monotonic() - start_s
            print(f"{word:9}{row:7} {entry.name:32} {ends} [{took_s:.1f} s] {cell.reason[:160]}", flush=True)  # noqa: T201
    print(f"{bad} of {len(chosen)} not as they should be")  # noqa: T201
    return bad


def _matches(name: str, globs: Sequence[str]) -> bool:
    return not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
