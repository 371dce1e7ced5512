from __future__ import annotations

import os
from pathlib import Path

import pytest
from worker_fixtures import ONE_GOOD, plugin

from xentbench import weighing, workers
from xentbench.spec import Description, Phase, Problem, Source
from xentbench.weighing import Weighed
from xentbench.workers import Worker

LARGE = Problem(batch_size=132, num_classes=32000)
SMALL = Problem(batch_size=8, num_classes=10)
MIB = 2**20
ELSEWHERE = """
import ctypes, mmap
import numpy as np
BYTES = 2**26

def numpy():
    return np.ones(BYTES // 8)

def mapped():
    room = mmap.mmap(-1, BYTES)
    room.write(bytes(BYTES))
    return room

def c_library():
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    room = libc.malloc(ctypes.c_size_t(BYTES))
    ctypes.memset(room, 1, BYTES)
    libc.free(room)

def outside(name, take):
    def loss(input, target):
        room = take()
        return F.cross_entropy(input, target)
    return implementation(name)(loss)

found = [outside(take.__name__.replace('_', '-'), take) for take in (numpy, mapped, c_library)]
turns = [0]

kept = []

@implementation('keeps')
def keeps(input, target):
    kept[:] = [input.detach() * 2]
    return F.cross_entropy(input, target)

@implementation('grows')
def grows(input, target):
    turns[0] += 1
    taken = torch.empty(1000 * turns[0])
    return F.cross_entropy(input, target)
"""


class Told:
    """A worker whose resident size is what its test writes."""

    pid = 7

    def __init__(self, proc: Path, peak_kib: int) -> None:
        self.folder, self.peak_kib, self.asked = proc / "7", peak_kib, []
        self.folder.mkdir()
        self._tell(1000)

    def ask(self, verb: str, record=None):
        self.asked.append(verb)
        if verb == "call":
            assert (self.folder / "clear_refs").read_text() == "5"
            self._tell(self.peak_kib)
        return {}, {}

    def _tell(self, peak_kib: int) -> None:
        (self.folder / "status").write_text(f"Name:\tpython\nVmHWM:\t  {peak_kib} kB\nVmRSS:\t  1000 kB\n")


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plugin(tmp_path_factory.mktemp("weighed"), ONE_GOOD + ELSEWHERE)


def weighed(file: Path, name: str, problem: Problem, phases=(Phase.FORWARD_BACKWARD,)) -> dict[Phase, Weighed]:
    with Worker(template=workers.template({})) as worker:
        workers.load(worker, Description(name, Source("file", str(file)), file.name), threads=1, weighed=True)
        worker.ask("set-up", {"problem": problem.key, "seed": 0, "phases": list(phases)})
        worker.ask("answer")  # as in a sweep: what was sent is no longer held, and nobody's workspace
        return weighing.weigh(worker, problem, phases)


def test_the_growth_is_read_around_one_call(tmp_path: Path):
    worker = Told(tmp_path, peak_kib=5000)
    assert weighing.peak_resident_bytes(worker, Phase.FORWARD, tmp_path) == 4000 * 1024
    assert worker.asked == ["prepare", "call"]


def test_what_cannot_be_read_is_none_and_no_error(tmp_path: Path):
    worker = Told(tmp_path, peak_kib=5000)
    worker.ask = lambda *_: ({}, {})
    assert weighing.peak_resident_bytes(worker, Phase.FORWARD, tmp_path / "nowhere") is None
    (worker.folder / "status").write_text("State:\tZ (zombie)\n")
    assert weighing.peak_resident_bytes(worker, Phase.FORWARD, tmp_path) is None
    (worker.folder / "clear_refs").unlink()
    (worker.folder / "clear_refs").mkdir()  # refuses to be written
    assert weighing.peak_resident_bytes(worker, Phase.FORWARD, tmp_path) is None


def test_labels_say_what_is_not_steady_and_what_lies_outside():
    assert Weighed(100 * MIB).labels == ()
    assert Weighed(100 * MIB, peak_resident_bytes=114 * MIB).labels == ()
    assert Weighed(100 * MIB, peak_resident_bytes=114 * MIB + 1).labels == ("outside-allocator",)
    assert Weighed(0, peak_resident_bytes=5 * MIB, is_steady=False).labels == ("unsteady-memory", "outside-allocator")


def test_a_small_problem_is_weighed_by_its_allocator_alone(losses: Path):
    seen = weighed(losses, "good", SMALL, tuple(Phase))
    assert all(one.peak_resident_bytes is None and one.labels == ("delegate",) for one in seen.values())
    assert seen[Phase.FORWARD_NO_GRAD].saved_bytes is None
    # The log-softmax and the divisor of the mean.
    assert {seen[phase].saved_bytes for phase in Phase if phase is not Phase.FORWARD_NO_GRAD} == {8 * 10 * 4 + 4}


def test_allocations_that_differ_from_call_to_call_are_labelled(losses: Path):
    assert weighed(losses, "grows", SMALL)[Phase.FORWARD_BACKWARD].labels == ("unsteady-memory", "delegate")


def test_memory_that_is_kept_between_calls_is_labelled(losses: Path):
    seen = weighed(losses, "keeps", Problem(batch_size=32, num_classes=100), tuple(Phase))
    assert all("workspace" in one.labels for one in seen.values())


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system tells no resident size")
class TestResidentSize:
    def test_it_agrees_with_the_allocator_where_all_memory_is_its_own(self, losses: Path):
        for one in weighed(losses, "good", LARGE, tuple(Phase)).values():
            assert one.peak_resident_bytes == pytest.approx(one.peak_bytes, rel=0.02, abs=MIB)
            assert one.labels == ("delegate",)

    @pytest.mark.parametrize("name", ["numpy", "mapped", "c-library"])
    def test_memory_from_elsewhere_is_labelled(self, losses: Path, name: str):
        one = weighed(losses, name, LARGE, [Phase.FORWARD])[Phase.FORWARD]
        assert one.peak_bytes < 20 * MIB
        assert one.peak_resident_bytes > 63 * MIB
        assert one.labels == ("outside-allocator", "delegate")
