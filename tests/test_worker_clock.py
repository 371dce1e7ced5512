from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from worker_fixtures import ticking_clock

from xentbench import inputs
from xentbench.spec import Phase, Problem
from xentbench.worker import device as devices
from xentbench.worker.clock import Clock
from xentbench.worker.duel import Duel


class FakeDevice:
    """A device on which queued work takes its own time; the host is waited for, and pays 1 us for every queueing."""

    def __init__(self) -> None:
        self.host_ns = self.free_ns = self.waits = self.flushes = 0

    def queue(self, work_ns: int) -> None:
        self.host_ns += 1_000
        self.free_ns = max(self.free_ns, self.host_ns) + work_ns

    def wall_ns(self) -> int:
        return self.host_ns

    def synchronize(self) -> None:
        self.waits += 1
        self.host_ns = max(self.host_ns, self.free_ns)

    def mark(self) -> int:
        self.queue(0)
        return self.free_ns

    def between_ns(self, first: int, second: int) -> int:
        return second - first

    def flush(self) -> None:
        self.flushes += 1

    def clock(self) -> Clock:
        return Clock(self.wall_ns, self.wall_ns, 1.0, 0.0, self.wall_ns).on(self)


def arms(device: FakeDevice, *works_ns: int):
    def arm(work_ns: int):
        def loss(logits, target):
            device.queue(work_ns)
            return functional.cross_entropy(logits, target)

        return loss

    return [arm(work_ns) for work_ns in works_ns]


def duel(device: FakeDevice, phase: Phase = Phase.FORWARD, **fields) -> Duel:
    problem = Problem(batch_size=8, num_classes=10)
    losses = arms(device, 500_000, 1_000_000, 500_000)
    return Duel(problem, phase, losses, inputs.make(problem, 0), device.clock(), **fields)


@pytest.mark.parametrize("phase", [Phase.FORWARD, Phase.FORWARD_NO_GRAD, Phase.FORWARD_BACKWARD])
def test_work_that_is_only_queued_counts_in_full_and_beside_it_the_devices_own_time(phase: Phase):
    ran = duel(FakeDevice(), phase)
    ran.warm_up(calls=2, budget_s=1.0)
    burst = ran.burst(1, 0.0, 6, 6)
    assert ran.metered
    assert (burst.wall_ns[:, 1] >= 1_000_000).all()
    assert (burst.wall_ns[:, 0] < 510_000).all()
    assert np.allclose(burst.busy_ns, [500_000, 1_000_000, 500_000], atol=5_000)


def test_the_last_cache_of_a_device_is_overwritten_where_inputs_must_not_be_hot():
    hot, cold = FakeDevice(), FakeDevice()
    duel(hot).burst(1, 0.0, 4, 4)
    pooled = duel(cold, pool_bytes=2**20)
    pooled.burst(1, 0.0, 4, 4)
    assert (hot.flushes, cold.flushes) == (0, 4 * 3)
    assert len(pooled.pool) == 1


def test_without_a_device_nothing_is_waited_for():
    clock = ticking_clock()
    assert clock.on(None) is clock


def test_the_system_clock_knows_itself():
    clock = Clock.system(readings=101)
    assert clock.now_ns() < clock.now_ns() + 1
    assert 0 <= clock.overhead_ns < 1e6
    assert clock.resolution_ns > 0
    assert clock.busy_ns() <= clock.cpu_ns()
    assert clock.flush is None


def test_a_cache_of_unknown_size_is_taken_for_a_large_one():
    assert devices.cache_bytes(torch.device("xpu")) == devices.UNKNOWN_CACHE_BYTES
