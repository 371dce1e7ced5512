from __future__ import annotations

import os
from pathlib import Path

import pytest

from xentbench import pace
from xentbench.pace import Deadline


class Machine:
    """A clock, and a machine as slow and as crowded as a test says."""

    def __init__(self, slowness: float = 1.0) -> None:
        self.now_s, self.waited_s, self.slowness, self.looks = 100.0, 7.0, slowness, 0

    def deadline(self, limit_s: float) -> Deadline:
        return Deadline(limit_s, lambda: self.waited_s, self.look, lambda: self.now_s)

    def look(self) -> float:
        self.looks += 1
        return self.slowness


def test_an_idle_machine_ends_a_hang_at_the_limit_itself():
    machine = Machine()
    deadline = machine.deadline(60.0)
    assert deadline.left_s() == 60.0
    machine.now_s += 59.0
    assert (deadline.left_s(), machine.looks) == (1.0, 0)
    machine.now_s += 1.5
    assert deadline.left_s() == -0.5
    assert deadline.factor == 1.0


def test_time_without_a_processor_does_not_count():
    machine = Machine()
    deadline = machine.deadline(10.0)
    machine.now_s, machine.waited_s = machine.now_s + 10.0, machine.waited_s + 8.0
    assert deadline.left_s() == 8.0
    machine.now_s, machine.waited_s = machine.now_s + 8.0, machine.waited_s + 4.0
    assert deadline.left_s() == 4.0
    machine.now_s += 4.0
    assert deadline.left_s() == 0.0
    assert deadline.factor == 2.2


def test_a_slow_machine_gets_as_much_longer_and_never_without_end():
    machine = Machine(slowness=3.0)
    deadline = machine.deadline(10.0)
    machine.now_s += 10.0
    assert deadline.left_s() == 20.0
    machine.slowness, machine.waited_s = 1e9, 1e9
    machine.now_s += 20.0
    assert deadline.left_s() == 10.0 * pace.MOST - 30.0


def test_a_machine_that_gets_faster_takes_nothing_back():
    machine = Machine(slowness=2.0)
    deadline = machine.deadline(10.0)
    machine.now_s += 10.0
    assert deadline.left_s() == 10.0
    machine.slowness = 1.0
    machine.now_s += 9.0
    assert deadline.left_s() == 1.0


def test_waiting_is_that_of_the_thread_that_waited_most(tmp_path: Path):
    for thread, told in (("7", "5 2000000000 1"), ("8", "5 3500000000 1")):
        (tmp_path / "7" / "task" / thread).mkdir(parents=True)
        (tmp_path / "7" / "task" / thread / "schedstat").write_text(told)
    assert pace.waited_s(7, tmp_path) == 3.5
    assert pace.waited_s(9, tmp_path) == 0.0


def test_this_machine_can_be_measured():
    assert pace.waited_s(os.getpid()) >= 0.0
    assert pace.computation_s() > 0.0
    assert pace.slowness() >= 1.0


@pytest.mark.parametrize(("load", "expected"), [(0.1, 1.0), (8.0, 4.0)])
def test_where_waiting_is_not_told_the_load_counts(load: float, expected: float, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert pace.crowding(tmp_path) == expected
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "schedstat").touch()
    assert pace.crowding(tmp_path) == 1.0
