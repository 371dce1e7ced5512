"""`fused-triton` and `liger`: by Triton's interpreter, and compiled ahead for GPUs that need not be there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from xentbench.implementations.fused_triton import cross_entropy as entry

from xentbench import panel
from xentbench.worker import interpreting

HAS_TRITON = importlib.util.find_spec("triton") is not None
NEEDS_TRITON = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")
TARGETS = ((80, "float32"), (90, "bfloat16"), (90, "float64"))
AHEAD = """
import sys
import torch, triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from xentbench.implementations import _fused_triton as kernels

capability, dtype = int(sys.argv[1]), sys.argv[2]
logits = torch.empty(2, 50000, dtype=getattr(torch, dtype))
short = {"float32": "fp32", "bfloat16": "bf16", "float64": "fp64"}[dtype]
wide = "fp64" if dtype == "float64" else "fp32"
meta = kernels._meta(logits, torch.zeros(2, dtype=torch.int64), None, kernels.Options(-100, "mean", 1.0, 0.0))
warps = meta.pop("num_warps")
pointers = {"logits": short, "gradient": short, "target": "i64"}
pointers |= dict.fromkeys(("parts", "stats", "upstream", "divisor"), wide)
for kernel, added in (
    (kernels._forward, {"lowest": torch.finfo(torch.float32).min}),
    (kernels._backward, {"has_divisor": True, "has_target_gradient": False, "target_gradient": None}),
):
    constants = {**meta, **added, "weight": None}
    signature = {
        name: "constexpr" if name in constants else "*" + pointers[name] if name in pointers
        else "i64" if name == "ignore_index" else "i32"
        for name in kernel.arg_names
    }
    places = {name: place for place, name in enumerate(kernel.arg_names)}
    aligned = [name for name in signature if signature[name][0] == "*" or name in ("logits_stride", "classes")]
    source = ASTSource(
        kernel, signature, constexprs={(places[name],): value for name, value in constants.items()},
        attrs={(places[name],): [["tt.divisibility", 16]] for name in aligned},
    )
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={
        "num_warps": warps, "debug": kernel is kernels._forward, "sanitize_overflow": False})
    print("loads of 16 bytes:", sum("ld.global" in line and (".v4.b32" in line or ".v2.b64" in line)
                                    for line in made.asm["ptx"].splitlines()))
"""


def judged(name: str, folder: Path, *arguments: str) -> dict[str, object]:
    command = [sys.executable, "-m", "xentbench", "parity", name, "--json", "seen.json", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    seen = json.loads((folder / "seen.json").read_text())["implementations"][name]
    assert isinstance(seen, dict)
    return seen


def test_it_is_left_out_where_nobody_names_it_and_needs_triton():
    assert entry.on_request
    assert entry.packages == ("triton",)


def test_it_is_loaded_without_triton():
    blocked = "import sys; sys.modules['triton'] = None; import xentbench.implementations.fused_triton"
    subprocess.run([sys.executable, "-c", blocked], check=True)


def test_a_device_that_triton_does_not_have_is_refused():
    from xentbench import Problem

    assert entry.supports is not None
    assert "no such device" in str(entry.supports(Problem.parse("cross_entropy:N=3,C=5,device=mps")))
    assert entry.supports(Problem.parse("cross_entropy:N=3,C=5,device=cuda:1")) is None


@pytest.mark.slow
@NEEDS_TRITON
def test_every_problem_that_the_interpreter_is_asked_is_right_with_grade_b_or_better(tmp_path: Path):
    if interpreting.has_device():
        pytest.skip("nothing is interpreted here")
    seen = judged("fused-triton", tmp_path)
    asked = [problem for problem in panel.panel("full") if problem.elements <= interpreting.MOST_ELEMENTS]
    assert seen["verdict"] == "pass", seen["failures"]
    assert len(panel.panel("full")) - len(seen["refused"]) == len(asked) == 147
    assert set(seen["grades"].values()) <= {"A", "B"}
    assert "interpreted" in seen["labels"]


@pytest.mark.slow
@NEEDS_TRITON
@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is None, reason="liger-kernel is not installed")
def test_liger_is_right_but_for_what_is_declared(tmp_path: Path):
    if interpreting.has_device():
        pytest.skip("nothing is interpreted here")
    seen = judged("liger", tmp_path, "--grid", "full")
    assert seen["verdict"] == "pass", seen["failures"]
    declared = {label for label in seen["labels"] if label.startswith("declared-deviation")}
    assert declared == {
        f"declared-deviation:{code}" for code in ("all-ignored-mean", "second-backward", "second-derivative")
    }


@NEEDS_TRITON
@pytest.mark.parametrize(("capability", "dtype"), TARGETS)
def test_the_kernels_compile_for_gpus_and_read_16_bytes_at_once(capability: int, dtype: str, tmp_path: Path):
    settings = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    program = [sys.executable, "-c", AHEAD, str(capability), dtype]
    done = subprocess.run(program, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts = [int(line.rpartition(" ")[2]) for line in done.stdout.splitlines()]
    assert len(counts) == 2
    assert min(counts) >= 2
