from __future__ import annotations

import functools
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from xentbench.threads import one_thread
from xentbench.worker import duel, storage
from xentbench.worker import watch as watching
from xentbench.worker.clock import Clock
from xentbench.worker.watch import MORE_DESCRIPTORS, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator


def fresh(*pipes: int) -> Watch:
    return Watch(watching.names(), watching.settings(), watching.identities(*pipes))


PATCHES = [
    (time, "perf_counter_ns", "time.perf_counter_ns"),
    (time, "monotonic", "time.monotonic"),
    (torch, "empty", "torch.empty"),
    (torch.Tensor, "item", "Tensor.item"),
    (functional, "cross_entropy", "torch.nn.functional.cross_entropy"),
    (random.Random, "sample", "Random.sample"),
    (gc, "disable", "gc.disable"),
    (duel, "Storage", "xentbench.worker.duel.Storage"),
    (duel.Duel, "_forward", "xentbench.worker.duel.Duel._forward"),
    (storage.Numbers, "next", "xentbench.worker.storage.Numbers.next"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def test_nothing_has_changed_where_nobody_changes_anything():
    watch = fresh(0, 1)
    functional.cross_entropy(torch.zeros(8, 10, requires_grad=True), torch.arange(8)).backward()
    torch.randn(3, generator=torch.Generator())
    assert watch.changes() == []
    assert watch.leaks() == ""


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (lambda: torch.randn(3), "torch's generator"),
        (lambda: np.random.seed(3), "NumPy's generator"),  # noqa: NPY002 - the global one is what is watched
        (lambda: random.seed(3), "Python's generator"),
    ],
)
def test_global_generators_are_left_alone(draw, told: str):
    watch = fresh()
    draw()
    assert watch.changes() == [told]


@pytest.mark.parametrize(("owner", "name", "told"), PATCHES, ids=[patch[2] for patch in PATCHES])
def test_what_is_patched_is_told_by_name(monkeypatch, owner, name: str, told: str):
    watch, was = fresh(), getattr(owner, name)
    monkeypatch.setattr(owner, name, functools.partial(was))
    assert told in watch.changes()


def test_code_that_is_replaced_inside_a_function_is_told(monkeypatch):
    def _forward(self, loss, at, meter):
        return 1, 0, 0

    watch = fresh()
    monkeypatch.setattr(duel.Duel._forward, "__code__", _forward.__code__)
    assert watch.changes() == ["xentbench.worker.duel.Duel._forward.__code__"]


def test_a_clock_that_is_changed_in_place_is_told():
    clock = Clock.system(readings=11)
    watch = Watch(watching.names(), watching.settings(), kept={"the worker's clock": (clock, watching.fields(clock))})
    assert watch.changes() == []
    object.__setattr__(clock, "now_ns", lambda: 0)
    assert watch.changes() == ["the worker's clock"]


@pytest.mark.parametrize(
    ("change", "other", "usual", "told"),
    [
        (torch.set_num_threads, 3, 1, "number of threads"),
        (torch.set_default_dtype, torch.float64, torch.float32, "default dtype"),
        (torch.set_float32_matmul_precision, "medium", "highest", "precision"),
        (lambda value: os.environ.__setitem__("XENTBENCH_TEST", value), "1", "", "environment"),
        (sys.setprofile, lambda *_: None, None, "trace or profile"),
        (lambda value: signal.signal(signal.SIGUSR1, value), lambda *_: None, signal.SIG_DFL, "signal"),
        (torch._C._set_grad_enabled, False, True, "grad mode"),
    ],
)
def test_settings_that_changed_are_told_by_name(change, other, usual, told: str):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    change(usual)
    try:
        watch = fresh()
        change(other)
        try:
            changes = watch.changes()
        finally:
            change(usual)
        assert any(told in name for name in changes)
        assert watch.changes() == []
    finally:
        torch.set_num_threads(threads)
        os.environ.pop("XENTBENCH_TEST", None)


def test_torchs_own_threads_are_there_before_anybody_is_watched():
    script = """
import torch
from xentbench.worker import serving, watch
torch.set_num_threads(2)
serving.pay_for_imports()
serving.start_threads()
seen = watch.Watch(watch.names(), watch.settings())
logits = torch.ones(512, 4096)
torch.nn.functional.cross_entropy(logits, torch.zeros(512, dtype=torch.int64))
print(seen.changes())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_thread_that_stays_is_told_and_one_that_ended_is_not():
    watch, end = fresh(), threading.Event()
    short = threading.Thread(target=lambda: None)
    short.start()
    short.join()
    assert watch.changes() == []
    long = threading.Thread(target=end.wait)
    long.start()
    try:
        assert any("threads" in name for name in watch.changes())
    finally:
        end.set()
        long.join()


def test_a_pipe_that_is_another_now_and_descriptors_that_leak_are_told():
    ends = os.pipe()
    watch, more = fresh(*ends), [os.open(os.devnull, os.O_RDONLY) for _ in range(MORE_DESCRIPTORS)]
    try:
        assert "more open descriptors" in watch.leaks()
        os.dup2(more[0], ends[1])
        assert watch.changes() == [f"descriptor {ends[1]}"]
    finally:
        for fd in (*ends, *more):
            os.close(fd)
