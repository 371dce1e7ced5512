"""What fresh seeds found: problems and seeds that some implementation once failed, asked again in every later run."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xentbench import environment, planning
from xentbench.checking import PARALLEL, conclude
from xentbench.crews import Examinee
from xentbench.files import write_atomically
from xentbench.posing import Questions
from xentbench.spec import Phase, Problem, Status, UsageError
from xentbench.workers import stoppable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from xentbench.checking import Checked
    from xentbench.spec import Description
    from xentbench.watching import Watch

SCHEMA: Final = 1
MOST: Final = 100
"""Entries that a file may hold; what is found beyond them is told and not kept."""


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """One failure that was found.

    Attributes:
        problem: its key.
        seed: of its numbers.
        implementation: that failed.
        quantity: that was wrong.
    """

    problem: str
    seed: int
    implementation: str
    quantity: str


def read(path: Path) -> tuple[Found, ...]:
    """Return the file's entries; none where there is no file yet.

    Raises:
        UsageError: it cannot be read, or an entry is none.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["schema"] != SCHEMA:
            msg = f"it has schema {told['schema']}, this version reads {SCHEMA}"
            raise ValueError(msg)  # noqa: TRY301 - every damage is told in one sentence
        return tuple(_entry(**entry) for entry in told["found"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        msg = f"--found expected a file that it made itself, or none yet, got {str(path)!r}: {reason}"
        raise UsageError(msg) from None


def _entry(problem: str, seed: int, implementation: str, quantity: str) -> Found:
    parsed = Problem.parse(problem)
    if parsed.recorded:
        msg = f"problem {problem!r} has recorded logits"
        raise ValueError(msg)
    return Found(parsed.key, int(seed), str(implementation), str(quantity))


def write(path: Path, entries: Iterable[Found]) -> None:
    """Write the entries, sorted, one a line."""
    lines = ",\n".join(f"  {json.dumps(dataclasses.asdict(entry))}" for entry in sorted(entries))
    body = f"[\n{lines}\n ]" if lines else "[]"
    write_atomically(path.resolve(), f'{{\n "schema": {SCHEMA},\n "found": {body}\n}}\n')


def fresh(checked: Iterable[Checked], seed: int, again: Iterable[Mapping[str, Any]]) -> tuple[Found, ...]:
    """Return what a run found: of each implementation the first failure, by size, of each quantity.

    Recorded logits belong to somebody and are not kept. What already failed in `replay` is no news.

    Args:
        checked: what the judge said.
        seed: of that run.
        again: failures that `replay` returned.
    """
    known = {(failure["implementation"], failure["quantity"]) for failure in again}
    first: dict[tuple[str, str], Found] = {}
    for entry in checked:
        for failure in entry.failures:
            name, quantity = entry.entry.name, failure["quantity"]
            if failure["problem"] and not Problem.parse(failure["problem"]).recorded and (name, quantity) not in known:
                first.setdefault((name, quantity), Found(failure["problem"], seed, name, quantity))
    return tuple(first.values())


def merge(kept: Iterable[Found], new: Iterable[Found]) -> tuple[Found, ...]:
    """Return all entries once, sorted; beyond `MOST` of them the new ones are left out first."""
    return tuple(sorted(list(dict.fromkeys([*kept, *new]))[:MOST]))


def replay(entries: Sequence[Description], kept: Sequence[Found], watch: Watch) -> list[dict[str, Any]]:
    """Ask every implementation what was found before, and return what fails: as in `Checked.failures`, and by whom.

    One that compiles pays seconds for each problem, so it is asked only what it failed itself. Problems for which this
    machine has no device or no room are left out.
    """
    problems = [Problem.parse(found.problem) for found in kept]
    skipped = planning.screen(problems, environment.available_bytes() // 2, planning.device_present)
    here = [found for found in kept if found.problem not in skipped]
    asked = {entry.name: _asked(entry, here) for entry in entries}
    questions = {found.seed: Questions(found.seed, {}) for found in kept}
    watch.stage("found before", sum(map(len, asked.values())))

    def one(entry: Description) -> list[dict[str, Any]]:
        failures = []
        phases = list(Phase) if entry.compiles else []
        with Examinee(entry, {}) as examinee:
            for problem, seed in asked[entry.name]:
                seen = {problem: examinee.examine(questions[seed](problem), phases, measure_memory=False)}
                concluded = conclude(dataclasses.replace(entry, refusals={}), seen, seed, whole_panel=False)
                failures += [{"implementation": entry.name, **failure} for failure in concluded.failures]
                watch.step(f"{entry.name} at {problem.label}")
        return failures

    with stoppable(PARALLEL) as pool:
        return [failure for failures in pool.map(one, entries) for failure in failures]


def _asked(entry: Description, kept: Sequence[Found]) -> list[tuple[Problem, int]]:
    if entry.status is not Status.PASSED:
        return []
    mine = [found for found in kept if not entry.compiles or found.implementation == entry.name]
    pairs = dict.fromkeys((found.problem, found.seed) for found in mine if found.problem not in entry.refusals)
    return [(Problem.parse(key), seed) for key, seed in pairs]
