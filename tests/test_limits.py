from __future__ import annotations

import itertools

from xentbench import limits
from xentbench.spec import Phase, Problem

PROBLEM = Problem(batch_size=128, num_classes=1000)


def test_the_least_memory_of_each_phase_is_its_results():
    assert limits.minimum_bytes(PROBLEM, Phase.FORWARD) == 4
    assert limits.minimum_bytes(PROBLEM, Phase.BACKWARD) == 128_000 * 4
    assert limits.minimum_bytes(PROBLEM, Phase.FORWARD_BACKWARD) == 128_000 * 4 + 4
    none = Problem(batch_size=128, num_classes=1000, reduction="none", dtype="bfloat16")
    assert limits.minimum_bytes(none, Phase.FORWARD) == 256


def test_every_input_is_read_and_every_result_written():
    assert limits.moved_bytes(PROBLEM, Phase.FORWARD) == 512_000 + 128 * 8 + 4
    assert limits.moved_bytes(PROBLEM, Phase.FORWARD_BACKWARD) == 2 * 512_000 + 128 * 8 + 4


def test_the_floor_takes_the_bandwidth_of_the_cache_that_the_logits_fit():
    bandwidths = {2**16: 4e10, 2**20: 2e10, 2**24: 1e10}
    small, large = Problem(batch_size=8, num_classes=10), Problem(batch_size=1024, num_classes=32_000)
    assert limits.floor_s(small, Phase.FORWARD, bandwidths) == limits.moved_bytes(small, Phase.FORWARD) / 4e10
    assert limits.floor_s(large, Phase.FORWARD, bandwidths) == limits.moved_bytes(large, Phase.FORWARD) / 1e10


def test_bandwidth_is_bytes_read_and_written_by_an_injected_clock():
    ticks = itertools.count()
    measured = limits.copy_bandwidths(clock=lambda: float(next(ticks)))
    assert measured[2**26] == 2 * 2**26
    assert limits.copy_bandwidths(clock=lambda: 0.0)[2**16] == float("inf")
