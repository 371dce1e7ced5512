"""Whatever an implementation does, its cell ends in the status that says so, and nothing of it is left."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import faults
import pytest
from faults.trial import ALL, PROBLEM, SHORT_S, alive, source

from xentbench import workers
from xentbench.crews import Examinee
from xentbench.examining import Examined
from xentbench.posing import Questions
from xentbench.spec import Description, Phase, Status

LOADED = 3
"""Runs of the honest ones in a row, all processes on one loaded core."""
REPRESENTATIVES = {
    *("leaves-with-0", "reads-address-0", "daemon-holds-the-pipe", "stops-itself", "answers-for-the-worker"),
    *("raises-base", "fills-memory", "leaks-descriptors", "returns-a-subclass", "answers-in-a-buffer"),
    *("import-loops", "import-escapes-in-its-message", "import-lacks-a-package", "off-by-a-percent"),
    *("without-a-gradient", "zeroes-its-input", "promises-too-much", "prints-bytes-and-escapes", "says-farewell"),
}
ELSEWHERE = {Status.SKIPPED, Status.STALE, Status.TAMPERED, Status.TRAINS_DIFFERENTLY}
"""Statuses that come of the plan, of what is asked while calls are timed, or of training (`test_training`)."""


def named(names: set[str] | None = None):
    """Return the faults as parameters: those that take long altogether are run by `nox -s judge`."""
    return [
        pytest.param(fault, id=name, marks=() if name in REPRESENTATIVES else pytest.mark.slow)
        for name, fault in ALL.items()
    ]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "DEADLINES_S", SHORT_S)


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
@pytest.mark.parametrize("arguments", [(), ("--loaded",), *[("--loaded", "--honest")] * LOADED])
def test_every_fault_in_one_run_costs_its_own_cells_and_no_other(arguments: tuple[str, ...]):
    command = [sys.executable, "-m", "faults.trial", *arguments]
    ran = subprocess.run(command, cwd=Path(__file__).parent, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]


def test_there_are_48_faults_and_every_status_has_one():
    assert len([fault for fault in ALL.values() if fault.status is not Status.PASSED]) >= 48
    assert {fault.status for fault in ALL.values()} == set(Status) - ELSEWHERE
    assert ALL.keys() >= REPRESENTATIVES
    assert len(ALL) == len(faults.called()) + len(faults.IMPORTING)
