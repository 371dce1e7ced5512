from __future__ import annotations

import itertools

import pytest

from xentbench import leaks, processes
from xentbench.processes import Held
from xentbench.spec import Problem

SMALL = Problem(batch_size=8, num_classes=10)


class Answering:
    """A worker whose process holds, at each look, what a test says."""

    pid = 1

    def __init__(self, calls: int = leaks.CALLS) -> None:
        self.calls, self.asked = calls, 0

    def ask(self, verb, record):
        self.asked += 1
        return {"calls": self.calls}, {}


def look(monkeypatch, helds, worker=None, problem=SMALL):
    told = iter(helds)
    monkeypatch.setattr(processes, "held", lambda _pid: next(told))
    worker = worker or Answering()
    return leaks.look(worker, problem), worker


def growing(resident_bytes: int = 0, descriptors: int = 0, threads: int = 0):
    """Return what is seen before and after each window where every window leaves so much behind."""
    steps = [Held(2**28 + n * resident_bytes, 9 + n * descriptors, 1 + n * threads) for n in range(leaks.WINDOWS + 1)]
    return [held for pair in itertools.pairwise(steps) for held in pair]


def test_one_that_holds_the_same_is_looked_at_once(monkeypatch):
    told, worker = look(monkeypatch, growing())
    assert (told, worker.asked) == ("", 2)


@pytest.mark.parametrize(
    ("grown", "said"),
    [
        ({"resident_bytes": leaks.CALLS * 2**20}, f"{2**20} resident bytes a call"),
        ({"descriptors": leaks.CALLS}, "1 descriptors a call"),
        ({"threads": leaks.CALLS}, "1 threads a call"),
    ],
)
def test_what_grows_in_every_window_is_told(monkeypatch, grown, said: str):
    assert said in look(monkeypatch, growing(**grown))[0]


def test_what_settles_is_no_leak(monkeypatch):
    steps = [Held(size, 9, 1) for size in (2**28, 2**29, 2**29, 2**29 + 2**26, 2**29 + 2**26, 2**29 + 2**26)]
    assert look(monkeypatch, steps)[0] == ""


def test_little_growth_is_no_leak(monkeypatch):
    assert look(monkeypatch, growing(resident_bytes=leaks.CALLS * (leaks.CALL_BYTES - 1)))[0] == ""
    assert look(monkeypatch, growing(descriptors=leaks.CALLS // 2 - 1))[0] == ""


def test_who_takes_long_or_holds_what_nobody_tells_is_not_suspected(monkeypatch):
    leaking = growing(descriptors=leaks.CALLS)
    assert look(monkeypatch, leaking, Answering(calls=leaks.LEAST_CALLS - 1))[0] == ""
    assert look(monkeypatch, [None, None])[0] == ""


def test_large_problems_are_left_alone(monkeypatch):
    told, worker = look(monkeypatch, [], problem=Problem(batch_size=512, num_classes=32000))
    assert (told, worker.asked) == ("", 0)
