"""Triton's interpreter: who is run by it, what it is asked, and what is said where it cannot be."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from xentbench import Implementation, Problem, judging, training
from xentbench.spec import Description, Source, Status
from xentbench.worker import interpreting, loading, serving
from xentbench.workers import describe

SMALL, LARGE = Problem.parse("cross_entropy:N=32,C=128"), Problem.parse("cross_entropy:N=33,C=128")
KERNEL = Implementation("kernel", print, packages=("triton",))
NEEDS_TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
LOSS = """
import torch, triton
import triton.language as tl
from torch.nn import functional

@triton.jit
def double(x, n: tl.constexpr):
    i = tl.arange(0, n)
    tl.store(x + i, tl.load(x + i) * 2)

def loss(input, target):
    ones = torch.ones(4)
    double[(1,)](ones, 4)
    return functional.cross_entropy(input, target) * ones.sum() / 8
"""


class Quiet:
    def stage(self, *_): ...

    def step(self, *_): ...


@pytest.fixture
def without_device(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(interpreting, "has_device", lambda: False)
    return monkeypatch


def test_where_a_gpu_is_nothing_is_interpreted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interpreting, "has_device", lambda: True)
    assert interpreting.settings() == {}


def test_without_one_the_variable_is_set(without_device: pytest.MonkeyPatch):
    assert interpreting.settings() == {"TRITON_INTERPRET": "1"}


def test_who_declares_triton_is_interpreted_and_nobody_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert interpreting.is_interpreted(KERNEL)
    assert not interpreting.is_interpreted(Implementation("plain", print))
    assert not interpreting.is_interpreted(Implementation("other", print, packages=("json",)))
    assert not interpreting.is_interpreted(Implementation("compiled", print, packages=("triton",), compiles=True))
    monkeypatch.delenv("TRITON_INTERPRET")
    assert not interpreting.is_interpreted(KERNEL)


def test_a_kernel_in_a_loaded_module_tells_of_who_declares_nothing(monkeypatch: pytest.MonkeyPatch):
    class Kernel:
        __module__ = "triton.runtime.interpreter"

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, "triton.runtime.interpreter", type(sys)("triton.runtime.interpreter"))
    module = type(sys)("torch.of_its_own")
    module.kernel = Kernel()
    monkeypatch.setitem(sys.modules, "torch.of_its_own", module)
    assert not interpreting.is_interpreted(Implementation("plain", print))
    monkeypatch.setitem(sys.modules, "their_kernels", module)
    assert interpreting.is_interpreted(Implementation("plain", print))


def test_it_is_asked_up_to_4096_logits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert interpreting.refusal(KERNEL, SMALL) is None
    assert "up to 4096 logits, got 4224" in str(serving.refusal(KERNEL, LARGE))
    assert interpreting.refusal(Implementation("plain", print), LARGE) is None


def test_without_it_a_kernel_has_a_reason_that_says_what_to_do(without_device: pytest.MonkeyPatch):
    without_device.delenv("TRITON_INTERPRET", raising=False)
    assert "TRITON_INTERPRET=1" in str(interpreting.refusal(KERNEL, SMALL))
    compiled = Implementation("compiled", print, packages=("triton",), compiles=True)
    assert "takes a GPU" in str(interpreting.refusal(compiled, SMALL))
    without_device.setattr(interpreting, "has_device", lambda: True)
    assert "--device cuda" in str(interpreting.refusal(KERNEL, SMALL))
    assert interpreting.refusal(KERNEL, Problem.parse("cross_entropy:N=33,C=128,device=cuda")) is None


def test_an_exception_for_want_of_a_device_has_a_hint():
    told = serving.failure(RuntimeError("0 active drivers ([]). There should only be one."), "answer")
    assert "packages=('triton',)" in str(told["reason"])
    assert interpreting.hint("ValueError: another") == ""


def test_a_package_that_pip_calls_otherwise_is_named_as_pip_does():
    assert (
        loading.missing_package(Implementation("x", print, packages=("a-b:no_such_package",))) == "a-b:no_such_package"
    )
    assert loading.missing_package(Implementation("x", print, packages=("a-b:json",))) is None
    assert loading.missing_package(Implementation("x", print, packages=("no_such.deep",))) == "no_such.deep"
    assert loading.remedy("a-b:no_such") == "needs the package 'no_such': pip install a-b"
    assert loading.remedy("no_such.deep") == "needs the package 'no_such.deep': pip install no-such"


@NEEDS_TRITON
def test_a_loss_that_says_nothing_is_judged_and_never_timed(tmp_path: Path):
    if interpreting.has_device():
        pytest.skip("nothing is interpreted here")
    file = tmp_path / "kernel.py"
    file.write_text(LOSS)
    (entry,) = describe(Source("object", f"{file}:loss", (str(tmp_path),)), [SMALL.key, LARGE.key])
    assert entry.interpreted
    assert set(entry.refusals) == {LARGE.key}
    asked = ["--problem", SMALL.key, "--budget", "30s", "--workers", "1", "--json", "run.json"]
    program = [sys.executable, "-m", "xentbench", "bench", f"{file}:loss", "f-cross-entropy", *asked]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "run.json").read_text())["cells"]
    mine = [cell for cell in cells if cell["implementation"] == "loss"]
    assert {cell["status"] for cell in mine} == {Status.SKIPPED}
    assert all("interpreted" in cell["labels"] and "never timed" in cell["reason"] for cell in mine)
    assert all(cell["latency_s"] is None for cell in mine)
    assert {cell["status"] for cell in cells if cell["implementation"] == "f-cross-entropy"} == {Status.PASSED}


def test_who_is_interpreted_is_neither_compiled_nor_trained_with():
    entry = Description("kernel", Source("object", "kernel.py:loss"), "kernel.py", interpreted=True)
    wrapped = judging._wrapped(entry)
    assert wrapped.status is Status.UNSUPPORTED
    assert "does not run under torch.compile" in wrapped.reason
    assert not judging._wrapped(dataclasses.replace(entry, interpreted=False)).status.is_wrong
    told = []
    training.train_all([entry], 0, Quiet(), told.append)
    assert {one.status for one in told} == {Status.SKIPPED}
    assert all("too slow to train with" in one.reason for one in told)


@NEEDS_TRITON
def test_it_is_compared_with_nobody_by_the_clock(tmp_path: Path):
    if interpreting.has_device():
        pytest.skip("nothing is interpreted here")
    file = tmp_path / "kernel.py"
    file.write_text(LOSS)
    program = [sys.executable, "-m", "xentbench", "compare", "f-cross-entropy", f"{file}:loss", "--problem", SMALL.key]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "compare times both, but loss is judged through Triton's interpreter" in done.stderr


@NEEDS_TRITON
def test_compilers_are_left_alone():
    (found,) = [
        e for e in describe(Source("built-in", "xentbench.implementations"), []) if e.name == "compiled-from-scratch"
    ]
    assert found.status is Status.PASSED
    assert not found.interpreted
