"""Bytes, exponentials, and the bounds that follow from them on a machine of known rates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xentbench import inputs, limits
from xentbench.machine import Machine
from xentbench.spec import Phase, Problem

PROBLEM = Problem(batch_size=128, num_classes=1000)
# Reading or copying is the faster, by size; a nanosecond for an exponential of float32.
MACHINE = Machine(
    read_bytes_per_s={2**16: 40e9, 2**20: 40e9, 2**24: 20e9},
    copy_bytes_per_s={2**16: 60e9, 2**20: 30e9, 2**24: 10e9},
    exp_per_s={"float32": 1e9, "float64": 5e8},
)
SIZES = st.integers(0, 3000)


def fast(machine: Machine) -> Machine:
    """The same machine, if exponentials took no time."""
    return replace(machine, exp_per_s={})


def test_the_least_memory_of_each_phase_is_its_results():
    assert limits.minimum_bytes(PROBLEM, Phase.FORWARD) == 4
    assert limits.minimum_bytes(PROBLEM, Phase.BACKWARD) == 128_000 * 4
    assert limits.minimum_bytes(PROBLEM, Phase.FORWARD_BACKWARD) == 128_000 * 4 + 4
    none = Problem(batch_size=128, num_classes=1000, reduction="none", dtype="bfloat16")
    assert limits.minimum_bytes(none, Phase.FORWARD) == 256


def test_every_input_is_read_and_every_result_written():
    assert limits.moved_bytes(PROBLEM, Phase.FORWARD) == 512_000 + 128 * 8 + 4
    assert limits.moved_bytes(PROBLEM, Phase.FORWARD_BACKWARD) == 2 * 512_000 + 128 * 8 + 4


def test_logits_of_ignored_rows_need_no_reading_but_their_zero_gradient_is_written():
    assert limits.moved_bytes(PROBLEM, Phase.FORWARD, rows=28) == 28 * 4000 + 128 * 8 + 4
    assert limits.moved_bytes(PROBLEM, Phase.BACKWARD, rows=0) == 128 * 8 + 512_000


def test_a_row_that_memory_holds_once_is_read_once():
    repeated = replace(PROBLEM, logits_layout="expanded", target_layout="expanded")
    assert limits.moved_bytes(repeated, Phase.FORWARD) == 4000 + 8 + 4
    assert limits.read_bytes(Problem(batch_size=None, num_classes=10, logits_layout="expanded")) == 4


@pytest.mark.parametrize(
    ("problem", "exponentials"),
    [
        (PROBLEM, 128 * 999),
        (Problem(batch_size=0, num_classes=10), 0),
        (Problem(batch_size=9, num_classes=1), 0),
        (Problem(batch_size=None, num_classes=5), 4),
        (Problem(batch_size=2, num_classes=3, dims=(4, 5)), 40 * 2),
        (replace(PROBLEM, target="soft", label_smoothing=0.1, weight="random", reduction="none"), 128 * 999),
    ],
)
def test_all_logits_of_a_row_but_one_are_exponentiated_once(problem: Problem, exponentials: int):
    assert limits.exponentials(problem, Phase.FORWARD) == exponentials
    assert limits.exponentials(problem, Phase.FORWARD_NO_GRAD) == exponentials
    assert limits.exponentials(problem, Phase.FORWARD_BACKWARD) == exponentials
    assert limits.exponentials(problem, Phase.BACKWARD) == 0


def test_rows_count_unless_they_are_ignored_or_weigh_nothing():
    problem = Problem(batch_size=4, num_classes=3, ignore_index=2)
    target = torch.tensor([0, 2, 1, 2])
    assert limits.counted_rows(problem, target, None) == 2
    assert limits.counted_rows(problem, target, torch.tensor([0.5, 1.0, 2.0])) == 2
    assert limits.counted_rows(problem, target, torch.tensor([0.5, 0.0, 2.0])) == 0
    assert limits.counted_rows(Problem(batch_size=None, num_classes=3), torch.tensor(1), None) == 1


def test_rows_of_probabilities_count_unless_all_are_0():
    problem = Problem(batch_size=2, num_classes=3, dims=(5,), target="unnormalised")
    asked = inputs.make(problem, seed=1)
    assert limits.counted_rows(problem, asked.target, None) == 8  # every fifth of ten is empty
    assert limits.counted_rows(Problem(batch_size=None, num_classes=2, target="soft"), torch.tensor([0.0, 1.0]), None)


def test_the_floor_takes_the_better_of_reading_and_copying_in_the_cache_that_the_logits_fit():
    small, large = Problem(batch_size=8, num_classes=10), Problem(batch_size=1024, num_classes=32_000)
    for problem, bandwidth in ((small, 60e9), (replace(PROBLEM, batch_size=120), 60e9), (large, 20e9)):
        bytes_ = limits.moved_bytes(problem, Phase.FORWARD)
        assert limits.limit(problem, Phase.FORWARD, MACHINE).floor_s == pytest.approx(bytes_ / bandwidth)


def test_the_limit_is_the_floor_or_the_exponentials_whichever_is_longer():
    forward = limits.limit(PROBLEM, Phase.FORWARD, MACHINE)
    assert (forward.limit_s, forward.by) == (pytest.approx(127_872e-9), "exp")
    assert forward.floor_s < forward.limit_s
    backward = limits.limit(PROBLEM, Phase.BACKWARD, MACHINE)
    assert (backward.limit_s, backward.by) == (backward.floor_s, "bytes")
    assert limits.limit(PROBLEM, Phase.FORWARD, fast(MACHINE)).by == "bytes"


def test_half_types_are_exponentiated_in_float32_and_float64_in_itself():
    for dtype, exp_s in (("bfloat16", 127_872e-9), ("float16", 127_872e-9), ("float64", 2 * 127_872e-9)):
        bounds = limits.limit(replace(PROBLEM, dtype=dtype), Phase.FORWARD, MACHINE)
        assert bounds.limit_s == pytest.approx(exp_s)


def test_threads_of_the_processor_share_the_work_and_may_each_have_a_cache():
    one = limits.limit(PROBLEM, Phase.FORWARD, MACHINE)
    four = limits.limit(PROBLEM, Phase.FORWARD, MACHINE, threads=4)
    assert four.floor_s == pytest.approx(one.floor_s / 4)
    assert four.limit_s == pytest.approx(one.limit_s / 4)
    large = replace(PROBLEM, batch_size=128 * 64)
    assert limits.STORAGES * limits.read_bytes(large) // 64 < 2**20
    divided = limits.moved_bytes(large, Phase.FORWARD) / (64 * 60e9)
    assert limits.limit(large, Phase.FORWARD, MACHINE, threads=64).floor_s == pytest.approx(divided)


def test_threads_of_the_host_speed_no_other_device_up():
    there = replace(PROBLEM, device="cuda")
    assert limits.limit(there, Phase.FORWARD, MACHINE, threads=4) == limits.limit(there, Phase.FORWARD, MACHINE)


def test_a_gradient_made_in_forward_may_leave_nothing_to_an_upstream_gradient_of_1():
    one = replace(PROBLEM, upstream="one")
    assert limits.limit(one, Phase.BACKWARD, MACHINE, gradient_in_forward=True).floor_s == 0
    assert limits.limit(one, Phase.FORWARD_BACKWARD, MACHINE, gradient_in_forward=True).floor_s > 0
    assert limits.limit(PROBLEM, Phase.BACKWARD, MACHINE, gradient_in_forward=True).floor_s > 0
    assert limits.limit(one, Phase.BACKWARD, MACHINE).floor_s > 0


@given(SIZES, st.integers(1, 3000), SIZES, st.sampled_from(list(Phase)), st.integers(1, 3))
def test_bounds_never_fall_as_a_problem_grows(rows: int, classes: int, more: int, phase: Phase, threads: int):
    def bounds(problem: Problem) -> limits.Limit:
        return limits.limit(problem, phase, MACHINE, threads=threads)

    here = bounds(Problem(batch_size=rows, num_classes=classes))
    for grown in (
        Problem(batch_size=rows + more, num_classes=classes),
        Problem(batch_size=rows, num_classes=classes + more),
    ):
        assert bounds(grown).floor_s >= here.floor_s
        assert bounds(grown).limit_s >= here.limit_s


@given(SIZES, st.integers(1, 3000), st.floats(0, 1))
def test_forward_and_backward_take_as_long_as_either_and_ignored_rows_less_than_all(
    rows: int, classes: int, share: float
):
    problem = Problem(batch_size=rows, num_classes=classes)
    both = limits.limit(problem, Phase.FORWARD_BACKWARD, MACHINE)
    for phase in Phase:
        part = limits.limit(problem, phase, MACHINE)
        assert part.floor_s <= both.floor_s
        assert part.floor_s <= part.limit_s <= both.limit_s
        assert limits.limit(problem, phase, fast(MACHINE), rows=0).limit_s <= part.limit_s
        fewer = limits.exponentials(problem, phase, rows=int(share * rows))
        assert fewer <= limits.exponentials(problem, phase)


def test_a_cell_holds_the_share_of_the_limit_that_its_time_reached():
    bounds = limits.Limit(floor_s=1.0, limit_s=3.0, by="exp")
    assert bounds.fields(4.0) == {"floor_s": 1.0, "limit_s": 3.0, "limit_by": "exp", "reached_ratio": 0.75}
    assert bounds.fields(None)["reached_ratio"] is None
    assert bounds.fields(0.0)["reached_ratio"] is None


def test_a_bandwidth_too_high_to_be_timed_sets_no_bound():
    unmeasured = Machine({2**16: math.inf}, {2**16: math.inf}, {"float32": math.inf})
    bounds = limits.limit(PROBLEM, Phase.FORWARD, unmeasured)
    assert (bounds.floor_s, bounds.limit_s, bounds.by) == (0.0, 0.0, "bytes")


def test_a_survey_keeps_the_best_of_each_device_and_the_rows_of_each_problem():
    asked, speeds = [], iter([1e9, 3e9, 2e9])

    def measure(device: str, largest_bytes: int) -> Machine:
        asked.append((device, largest_bytes))
        return Machine({2**16: next(speeds)}, {}, {})

    survey = limits.Survey(measure)
    problem = replace(PROBLEM, ignored=0.5)
    given = inputs.make(problem, seed=3)
    survey.count(problem, given)
    for _ in range(3):
        survey.look(problem)
    assert asked == [("cpu", 2 * 512_000)] * 3
    assert survey.machines["cpu"].read_bytes_per_s == {2**16: 3e9}
    rows = int((given.target != -100).sum())
    assert 0 < rows < 128
    bounds = survey.limit(problem, Phase.FORWARD, threads=1, gradient_in_forward=False)
    assert bounds.floor_s == limits.moved_bytes(problem, Phase.FORWARD, rows) / 3e9
