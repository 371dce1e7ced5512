from __future__ import annotations

import functools
import gc
import os
import random
import signal
import sys
import threading
import time

import pytest
import torch
from torch.nn import functional

from xentbench.worker import duel, storage
from xentbench.worker.watch import MORE_DESCRIPTORS, Watch

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


def test_nothing_has_changed_where_nobody_changes_anything():
    watch = Watch((0, 1))
    functional.cross_entropy(torch.randn(8, 10, requires_grad=True), torch.arange(8)).backward()
    torch.randn(3)
    assert watch.changes() == []
    assert watch.leaks() == ""


@pytest.mark.parametrize(("owner", "name", "told"), PATCHES, ids=[patch[2] for patch in PATCHES])
def test_what_is_patched_is_told_by_name(monkeypatch, owner, name: str, told: str):
    watch, was = Watch(), getattr(owner, name)
    monkeypatch.setattr(owner, name, functools.partial(was))
    assert told in watch.changes()


def test_code_that_is_replaced_inside_a_function_is_told(monkeypatch):
    def _forward(self, loss, at, meter):
        return 1, 0, 0

    monkeypatch.setattr(duel.Duel._forward, "__code__", _forward.__code__)
    assert any("_forward.__code__" in name for name in Watch().changes())


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
        watch = Watch()
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


def test_a_thread_that_stays_is_told_and_one_that_ended_is_not():
    watch, end = Watch(), threading.Event()
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
    watch, more = Watch(ends), [os.open(os.devnull, os.O_RDONLY) for _ in range(MORE_DESCRIPTORS)]
    try:
        assert "more open descriptors" in watch.leaks()
        os.dup2(more[0], ends[1])
        assert watch.changes() == [f"descriptor {ends[1]}"]
    finally:
        for fd in (*ends, *more):
            os.close(fd)
