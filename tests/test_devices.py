"""One active worker a device, devices side by side: with devices that do not exist."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from xentbench import devices, environment, planning, results, sweep
from xentbench.devices import StoppedError
from xentbench.examining import Examined
from xentbench.limits import Survey
from xentbench.machine import Machine
from xentbench.measured import Measured
from xentbench.spec import Description, Phase, Problem, Source, Status, Verdict
from xentbench.squads import Timed

PROBLEMS = tuple(
    Problem(batch_size=8, num_classes=c, device=device) for device in ("cpu", "cuda:0", "cuda:1") for c in (10, 20)
)


class Looking:
    def __init__(self) -> None:
        self.steps = 0

    def stage(self, title: str, steps: int) -> None:
        pass

    def step(self, text: str) -> None:
        self.steps += 1

    def cell(self, fields) -> None:
        pass

    def left(self, seconds: float) -> None:
        pass


class Crowd:
    """What squads do in the place of timing: they note who is busy with what at the same time."""

    def __init__(self, fails_on: str = "") -> None:
        self.busy, self.seen, self.cores, self.lock = set(), [], {}, threading.Lock()
        self.fails_on, self.met = fails_on, threading.Barrier(2)

    def squad(self, _entries, _builds, rank: int):
        return Squad(self, environment.measuring_core(rank))


class Squad:
    inputs = None

    def __init__(self, crowd: Crowd, core: int | None) -> None:
        self.crowd, self.core, self.problem = crowd, core, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def start(self) -> None:
        pass

    def free(self) -> None:
        pass

    def set_up(self, names, key, *_):
        self.problem = Problem.parse(key)
        return {}

    def duel(self, names, phase, *_):
        device = self.problem.device
        with self.crowd.lock:
            assert device not in self.crowd.busy
            self.crowd.busy.add(device)
            self.crowd.seen.append(set(self.crowd.busy))
            self.crowd.cores[device] = self.core
        if device != "cpu":
            self.crowd.met.wait(30)  # nobody goes on before the other device is busy too
            if self.crowd.fails_on == device:
                raise OSError(28, "No space left on device")
            if self.crowd.fails_on:
                time.sleep(0.2)  # what it would tell now comes from a worker that is being ended
        with self.crowd.lock:
            self.crowd.busy.remove(device)
            self.crowd.seen.append(set(self.crowd.busy))
        return {name: Timed(Measured(Status.PASSED), ()) for name in names}


def timed(tmp_path, monkeypatch, crowd: Crowd):
    """Time every problem with squads of that crowd, on a machine of four cores."""
    monkeypatch.setattr(environment, "usable_cores", lambda: 4)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    entries = [Description("good", Source("file", "losses.py"), "losses.py")]
    posed = planning.Posed(PROBLEMS, {}, {}, ())
    plan = planning.make(posed, entries, [Phase.FORWARD], planning.Preset(600.0, 1, 0.05), seed=3)
    journal, watch = results.create(tmp_path / "runs"), Looking()
    journal.head({"run": journal.run})
    slow = Machine({2**16: 1.0}, {2**16: 1.0}, {"float32": 1.0})
    going = sweep.Sweep(plan, journal, watch, survey=Survey(lambda *_: slow))
    for problem in PROBLEMS:
        going.examined["good", problem.key] = Examined(Verdict(Status.PASSED))
        going.survey.counted_rows[problem.key] = 8
    monkeypatch.setattr(sweep.Sweep, "_squad", lambda _self, *given: crowd.squad(*given))
    try:
        going._time(tmp_path, time.monotonic() + 600)
    finally:
        journal.close()
    return results.read(journal.folder)


def test_accelerators_are_timed_side_by_side_each_alone_on_a_core_and_the_processor_alone(tmp_path, monkeypatch):
    crowd = Crowd()
    run = timed(tmp_path, monkeypatch, crowd)
    assert sorted(run.cells["problem"]) == sorted(problem.key for problem in PROBLEMS)
    assert {"cuda:0", "cuda:1"} in crowd.seen
    assert not any("cpu" in busy and len(busy) > 1 for busy in crowd.seen)
    assert crowd.cores == {"cpu": 3, "cuda:0": 3, "cuda:1": 2}


def test_what_a_device_tells_while_another_one_ends_the_run_is_no_result(tmp_path, monkeypatch):
    crowd = Crowd(fails_on="cuda:1")
    with pytest.raises(OSError, match="No space left"):
        timed(tmp_path, monkeypatch, crowd)
    (folder,) = (tmp_path / "runs").iterdir()
    assert set(results.read(folder).cells["device"]) == {"cpu"}


def test_the_first_error_is_told_and_not_that_the_others_were_stopped():
    stopped = threading.Event()

    def fail() -> None:
        msg = "first"
        raise ValueError(msg)

    def wait() -> None:
        stopped.wait(30)
        raise StoppedError

    for tasks in ([fail, wait], [wait, fail]):
        stopped.clear()
        with pytest.raises(ValueError, match="first"):
            devices.side_by_side(tasks, 2, stopped.set)


def test_devices_of_one_core_take_turns():
    seen = []
    tasks = [lambda n=n: seen.append((n, threading.current_thread() is threading.main_thread())) for n in range(3)]
    devices.side_by_side(tasks, 1, lambda: None)
    assert seen == [(0, True), (1, True), (2, True)]


def test_all_devices_of_a_kind_are_those_that_torch_sees(monkeypatch):
    import torch

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: SimpleNamespace(type="cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert planning.devices("cuda") == ["cuda:0", "cuda:1"]
