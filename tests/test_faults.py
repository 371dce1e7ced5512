"""Whatever an implementation does, its cell ends in the status that says so, and nothing of it is left."""

from __future__ import annotations

import dataclasses
import random
import time
from pathlib import Path

import faults
import pytest
from rich.console import Console
from worker_fixtures import ONE_GOOD, plugin

from xentbench import planning, results, running, templates, workers
from xentbench.console import Progressing
from xentbench.crews import Examinee
from xentbench.examining import Examined
from xentbench.posing import Questions
from xentbench.spec import Description, Phase, Problem, Source, Status

PROBLEM = Problem(batch_size=8, num_classes=10)
LIMIT_S = 1.5
"""In place of each deadline that a hang runs into."""
CALLED = faults.called()
ALL = {**CALLED, **faults.IMPORTING}
REPRESENTATIVES = {
    *("leaves-with-0", "reads-address-0", "daemon-holds-the-pipe", "stops-itself", "answers-for-the-worker"),
    *("raises-base", "fills-memory", "leaks-descriptors", "returns-a-subclass", "answers-in-a-buffer"),
    *("import-loops", "import-escapes-in-its-message", "import-lacks-a-package", "off-by-a-percent"),
    *("without-a-gradient", "zeroes-its-input", "promises-too-much", "prints-bytes-and-escapes", "says-farewell"),
}
ELSEWHERE = {Status.SKIPPED, Status.STALE, Status.DEFERRED, Status.TAMPERED}
"""Statuses that come of the plan, or of what is asked while calls are timed."""


def named(names: set[str] | None = None):
    """Return the faults as parameters: those that take long altogether are run by `nox -s judge`."""
    return [
        pytest.param(fault, id=name, marks=() if name in REPRESENTATIVES else pytest.mark.slow)
        for name, fault in ALL.items()
    ]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch):
    own = dict.fromkeys(("describe", "set-up", "answer", "repeat", "memory"), LIMIT_S)
    monkeypatch.setattr(workers, "DEADLINES_S", {**workers.DEADLINES_S, **own})


def source(fault: faults.Fault, folder: Path) -> Source:
    file = faults.FOLDER / f"{fault.theme}.py"
    if fault.text:
        file = folder / "faulty.py"
        file.write_text(fault.text)
    return Source("file", str(file), (str(faults.FOLDER.parent),))


def ending(fault: faults.Fault, folder: Path) -> tuple[Status, str]:
    """Describe, set up, judge and weigh, as a run does; return how that ends."""
    if fault.text:
        (entry,) = workers.describe(source(fault, folder), [PROBLEM.key])
        if entry.status is not Status.PASSED:
            return entry.status, entry.reason
        if PROBLEM.key in entry.refusals:
            return Status.UNSUPPORTED, entry.refusals[PROBLEM.key]
    else:
        declared = next(e for e in workers.describe(source(fault, folder), []) if e.name == fault.name)
        entry = declared
    seen = examined(entry)
    return seen.verdict.status, seen.verdict.reason


def examined(entry: Description) -> Examined:
    with Examinee(entry, {}) as examinee:
        return examinee.examine(Questions(0, {})(PROBLEM), list(Phase), measure_memory=True)


def alive() -> set[int]:
    """Return the processes that bear the mark of this run, but for templates."""
    return set(templates.marked()) - {template.pid for template in templates._started.values()}


@pytest.mark.parametrize("fault", named())
def test_a_fault_ends_in_its_status_and_leaves_nothing(fault: faults.Fault, tmp_path: Path):
    before, start_s = alive(), time.monotonic()
    status, reason = ending(fault, tmp_path)
    assert (status, fault.told in reason) == (fault.status, True), reason
    assert len(reason) < 8000
    assert reason.isprintable()
    for _ in range(40):
        if alive() <= before:
            break
        time.sleep(0.05)
    assert alive() <= before, time.monotonic() - start_s


@pytest.mark.slow
def test_every_fault_in_one_run_costs_its_own_cells_and_no_other(tmp_path: Path):
    honest = plugin(tmp_path, ONE_GOOD)
    files = [
        Source("file", str(faults.FOLDER / f"{theme}.py"), (str(faults.FOLDER.parent),)) for theme in faults.THEMES
    ]
    entries = [entry for file in files for entry in workers.describe(file, [PROBLEM.key])]
    for name, fault in faults.IMPORTING.items():
        (tmp_path / name).mkdir()
        (entry,) = workers.describe(source(fault, tmp_path / name), [PROBLEM.key])
        entries.append(dataclasses.replace(entry, name=name))
    entries = [*workers.describe(Source("file", str(honest)), []), *random.Random(0).sample(entries, len(entries))]  # noqa: S311 - any order
    phases = [Phase.FORWARD, Phase.FORWARD_BACKWARD]
    posed = planning.Posed((PROBLEM,), {}, {}, ())
    plan = planning.make(posed, entries, phases, planning.Preset(1200.0, 1, 0.1), seed=3)
    journal = results.create(tmp_path / "runs")
    run = running.bench(plan, journal, Progressing(Console(quiet=True), live=False), preset_name="test", grids=[])
    cells = run.cells.set_index(["implementation", "phase"])["status"]
    assert cells.index.is_unique
    assert set(cells.index) == {(name, phase) for name in ["good", *ALL] for phase in phases}
    ended = {name: {str(cells[name, phase]) for phase in phases} for name in ["good", *ALL]}
    unlike = {name: ended[name] for name, fault in ALL.items() if ended[name] != {str(fault.status)}}
    assert unlike == {}
    assert ended["good"] == {"passed"}
    assert run.cells[run.cells["implementation"] == "good"]["latency_s"].notna().all()
    assert running.is_wrong(run)
    assert alive() == set()


def test_there_are_48_faults_and_every_status_has_one():
    assert len([fault for fault in ALL.values() if fault.status is not Status.PASSED]) >= 48
    assert {fault.status for fault in ALL.values()} == set(Status) - ELSEWHERE
    assert ALL.keys() >= REPRESENTATIVES
    assert len(ALL) == len(CALLED) + len(faults.IMPORTING)
