"""What a device can do, by a clock that is injected."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

from xentbench import machine
from xentbench.machine import Machine

ONE = Machine(
    read_bytes_per_s={2**16: 40e9, 2**20: 40e9, 2**24: 20e9},
    copy_bytes_per_s={2**16: 60e9, 2**20: 30e9, 2**24: 10e9},
    exp_per_s={"float32": 1e9, "float64": 5e8},
)


def test_what_a_larger_working_set_reached_a_smaller_one_may_reach_too():
    odd = Machine({2**16: 10e9, 2**20: 50e9, 2**24: 20e9}, {}, {})
    assert [odd.bytes_per_s(size) for size in (1, 2**16, 2**20, 2**24, 2**40)] == [50e9, 50e9, 50e9, 20e9, 20e9]


class Ticking:
    """A clock that counts calls of a made function: a fixed overhead each, and so much for each item."""

    def __init__(self, overhead_s: float, item_s: float) -> None:
        self.now_s, self.overhead_s, self.item_s = 0.0, overhead_s, item_s

    def __call__(self) -> float:
        return self.now_s

    def make(self, items: int):
        def call() -> None:
            self.now_s += self.overhead_s + items * self.item_s

        return call


def test_a_rate_is_the_fastest_call_s_without_its_overhead():
    clock = Ticking(overhead_s=1e-6, item_s=1e-9)
    assert machine.rate(2**16, [clock.make], clock) == pytest.approx(1e9, rel=1e-4)
    both = machine.rate(2**16, [clock.make, lambda items: clock.make(2 * items)], clock)
    assert both == pytest.approx(1e9, rel=1e-4)


def test_a_clock_that_stands_still_shows_no_rate():
    seen = machine.measure(clock=lambda: 0.0, largest_bytes=1)
    assert seen.bytes_per_s(10) == math.inf
    assert seen.record()["exp_per_s"] == {"float32": None, "float64": None}
    json.dumps(seen.record(), allow_nan=False)


def test_large_working_sets_are_measured_for_large_problems_only():
    ticks = itertools.count()
    small = machine.measure(clock=lambda: float(next(ticks)), largest_bytes=2**10)
    assert max(small.read_bytes_per_s) == max(small.copy_bytes_per_s) == machine.ALWAYS_BYTES
    assert set(small.exp_per_s) == {"float32", "float64"}


def test_torch_keeps_its_threads():
    before = torch.get_num_threads()
    machine.measure(clock=lambda: 0.0, largest_bytes=1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("streams", [machine.host_streams, lambda: machine.device_streams("cpu")])
def test_what_is_timed_does_what_its_name_says(streams):
    readers, copiers = streams()
    for make in (*readers, *copiers):
        for size in (2, 2**10):
            assert make(size)() in (True, None, 1, -1)


def test_exponentials_are_those_of_differences_from_a_maximum():
    for dtype in ("float32", "float64"):
        for make in machine.exp_calls(dtype):
            values = torch.as_tensor(make(5)())
            torch.testing.assert_close(values, torch.linspace(-8, 0, 5, dtype=getattr(torch, dtype)).exp())


def test_the_better_of_two_measurements_is_kept_in_each_number():
    other = Machine({2**16: 50e9, 2**26: 5e9}, {2**16: 50e9}, {"float32": 2e9})
    best = ONE.better(other)
    assert best == other.better(ONE)
    assert best.read_bytes_per_s == {2**16: 50e9, 2**20: 40e9, 2**24: 20e9, 2**26: 5e9}
    assert best.copy_bytes_per_s[2**16] == 60e9
    assert best.exp_per_s == {"float32": 2e9, "float64": 5e8}
