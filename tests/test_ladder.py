"""The ladder of ideas: every step is judged by the judge, and does what its idea says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from xentbench.implementations import _compiler, ladder

from xentbench import inprocess, panel

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from traffic import Traffic

STEPS = {entry.name: entry for entry in ladder.STEPS}
NATIVE = ("ladder-08-native", "ladder-09-vectors", "ladder-10-pages")
QUICK = panel.panel("quick")
N, C = 64, 8192
LOGITS_BYTES = N * C * 4


def skip_without_compiler(name: str) -> None:
    if name in NATIVE and _compiler.found() is None:
        pytest.skip(_compiler.REMEDY)


def moved(name: str) -> float:
    """Return what the operations of a step read and write in forward and backward, in sizes of the logits."""
    skip_without_compiler(name)
    logits = torch.randn(N, C, requires_grad=True)
    with Traffic() as seen:
        STEPS[name].function(logits, torch.zeros(N, dtype=torch.int64)).backward()
    return seen.moved_bytes / LOGITS_BYTES


def kept(name: str) -> float:
    """Return what a step keeps for its backward beside the logits, in sizes of them."""
    found: dict[int, int] = {}
    logits = torch.randn(N, C, requires_grad=True)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        STEPS[name].function(logits, torch.zeros(N, dtype=torch.int64))
    found.pop(logits.untyped_storage().data_ptr(), None)
    return sum(found.values()) / LOGITS_BYTES


def test_ten_steps_are_numbered_and_take_part_where_they_are_named():
    assert [int(name.split("-")[1]) for name in STEPS] == list(range(1, 11))
    assert all(entry.on_request and entry.summary.startswith("Step ") for entry in STEPS.values())


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_right_on_the_quick_panel(name: str):
    skip_without_compiler(name)
    seen = inprocess.check(STEPS[name], QUICK, seed=3)
    assert seen.status.value == "passed", seen.failures


def test_large_pages_change_no_bit():
    skip_without_compiler("ladder-10-pages")
    found = []
    for name in ("ladder-09-vectors", "ladder-10-pages"):
        logits = torch.randn(N, 40_000, generator=torch.Generator().manual_seed(1)).requires_grad_()
        STEPS[name].function(logits, torch.zeros(N, dtype=torch.int64)).backward()
        found.append(logits.grad)
    assert found[0].equal(found[1])


def test_the_formula_overflows_where_a_shift_does_not():
    logits, label = torch.tensor([[100.0, 0.0]]), torch.tensor([0])
    assert not STEPS["ladder-01-formula"].function(logits, label).isfinite()
    assert STEPS["ladder-02-shift"].function(logits, label).item() == 0.0


def test_gathering_moves_less_than_a_one_hot_product():
    assert moved("ladder-03-gather") < 0.7 * moved("ladder-02-shift")


def test_a_backward_by_hand_keeps_one_array_and_recomputing_none():
    assert kept("ladder-04-backward") == pytest.approx(1, abs=0.01)
    assert kept("ladder-05-recompute") < 0.01
    assert moved("ladder-04-backward") < moved("ladder-03-gather")


@pytest.mark.parametrize("name", NATIVE)
def test_a_kernel_reads_twice_and_writes_once(name: str):
    assert moved(name) == pytest.approx(3, abs=0.01)


def test_traffic_counts_inputs_and_outputs_and_no_views():
    x = torch.ones(1000)
    with Traffic() as seen:
        (x + 1).view(10, 100).t()
    assert seen.moved_bytes == 2 * x.nbytes
    with Traffic() as seen:
        x.mul_(2)
    assert seen.moved_bytes == 2 * x.nbytes
    with Traffic() as seen:
        torch.zeros(10, 100).gather(1, torch.zeros(10, 1, dtype=torch.int64))
    written_zeros, indices, picked_and_result = 4000, 80, 2 * 40
    assert seen.moved_bytes >= written_zeros + indices + picked_and_result
    assert seen.moved_bytes < written_zeros * 2
