"""No dishonest implementation is accepted without a flag, and no honest one gets one."""

from __future__ import annotations

import collections
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cheats import CHEATS, HONEST, ROWS, trial
from cheats.cheat import STALE, TINY, Cheat, Honest
from cheats.parts import right
from cheats.trial import Cell

from xentbench.spec import Status

if TYPE_CHECKING:
    from collections.abc import Callable

REPRESENTATIVES = {
    1: "memo-by-pointer",
    2: "fingerprint-of-corners",
    3: "memo-by-version",
    4: "skips-while-the-collector-rests",
    5: "table-of-known-seeds",
    6: "refresh-repeats",
    7: "freed-losses",
    8: "newest-number-alive",
    9: "clock-rewritten-in-place",
    10: "answers-of-another",
    11: "methods-of-its-own",
    12: "thread-computes-later",
    13: "skips-without-grad",
    14: "overwrites-past-the-counter",
    15: "one-buffer-for-all-rows",
    16: "half-of-the-rows-later",
    17: "gradient-of-the-call-before",
    18: "bfloat16-inside-later",
    19: "delegate-by-name",
    20: "nan-later",
    21: "baseline-code-replaced",
    22: "relays-the-pipe",
    23: "caches-emptied-by-a-thread",
    24: "ten-nanoseconds",
}
LOADED = 3
"""Runs in a row, all processes on one loaded core."""


def ended(status: Status, *labels: str) -> Cell:
    return Cell("N=8,C=10", "forward", status, frozenset(labels), "")


def as_it_should(entry: Cheat | Honest, attempt: Callable[[Cheat | Honest], list[Cell]]) -> None:
    word, cell = trial.told(entry, attempt(entry))
    assert word == "ok", f"{entry.note} {cell}"


def test_there_are_several_cheats_of_every_row_and_controls():
    assert len(CHEATS) >= 64
    assert len(HONEST) >= 8
    assert set(CHEATS).isdisjoint(HONEST)
    counted = collections.Counter(entry.row for entry in CHEATS.values())
    assert set(counted) == set(ROWS) == set(range(1, 25))
    assert min(counted.values()) >= 2
    assert {row: CHEATS[name].row for row, name in REPRESENTATIVES.items()} == {row: row for row in ROWS}


def test_a_cheat_is_accepted_where_any_cell_passes_without_its_flag():
    cheat = Cheat(name="x", row=1, build=lambda: right, note="", ends=STALE, labels=frozenset({"delegate"}))
    assert not trial.accepted(cheat, [ended(Status.STALE), ended(Status.PASSED, "delegate", "workspace")])
    assert trial.accepted(cheat, [ended(Status.STALE), ended(Status.PASSED, "workspace")])
    assert trial.misnamed(cheat, [ended(Status.RAISED), ended(Status.PASSED, "delegate")]) == [ended(Status.RAISED)]


def test_an_honest_one_is_accused_by_a_status_or_a_label_that_is_not_harmless():
    assert not trial.accused([ended(Status.PASSED, "workspace"), ended(Status.PASSED)])
    assert trial.accused([ended(Status.PASSED), ended(Status.TAMPERED)])
    assert trial.accused([ended(Status.PASSED, "below-floor")])


@pytest.mark.parametrize("name", REPRESENTATIVES.values())
def test_a_cheat_of_every_row_is_caught(name: str):
    as_it_should(CHEATS[name], trial.brief)


@pytest.mark.parametrize("name", ["workspace-kept", "threads-joined"])
def test_an_honest_one_is_not_accused(name: str):
    as_it_should(HONEST[name], trial.brief)


def test_a_plain_right_loss_would_be_accepted_if_it_were_called_a_cheat():
    # The trial itself could catch everybody.
    plain = HONEST["in-float64"]
    assert {cell.status for cell in trial.brief(plain)} == {Status.PASSED}
    assert plain.problems[0] == TINY


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, cheat in CHEATS.items() if cheat.is_promised])
def test_every_cheat_is_caught(name: str):
    as_it_should(CHEATS[name], trial.cells)


@pytest.mark.slow
@pytest.mark.parametrize("name", HONEST)
def test_nobody_honest_is_accused(name: str):
    as_it_should(HONEST[name], trial.cells)


@pytest.mark.slow
@pytest.mark.parametrize("run", range(LOADED))
def test_the_same_holds_on_one_loaded_core(run: int):
    command = [sys.executable, "-m", "cheats.trial", "--loaded", "--brief"]
    ran = subprocess.run(command, cwd=Path(__file__).parent, check=False, capture_output=True, text=True)
    bad = [line for line in ran.stdout.splitlines() if line.startswith(("ACC", "MIS"))]
    assert not bad
    assert ran.returncode == 0, ran.stderr[-2000:]
