"""The native kernel under the address and undefined-behaviour sanitizers, by a program of its own: `sanitized/`.

A Python process would have to load the sanitizers before itself, and all of it would be looked at. The program calls
the kernel's functions some 44 000 times and holds each answer against torch's own loss. It is built for every kind of
vectors that this processor has, since they differ in what is read: AVX-512 masks, the others copy.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from xentbench.implementations import _compiler
from xentbench.implementations._fused import building

DRIVER = Path(__file__).parent / "sanitized" / "driver.cpp"
SANITIZERS = (
    # A number that its integer cannot hold is not among what `undefined` stands for.
    "-fsanitize=address,undefined,float-cast-overflow",
    *("-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g", "-Wno-psabi"),
)
BEST = torch.backends.cpu.get_cpu_capability()
BUILDS = {"AVX512": ("AVX512", "AVX2", "DEFAULT"), "AVX2": ("AVX2", "DEFAULT")}.get(BEST, ("DEFAULT",))


@dataclass(frozen=True, slots=True)
class Fault:
    """One place of the sources that is wrong where a program is told so, and what then has to be said of it."""

    file: str
    right: str
    wrong: str
    step: str
    said: str


# One of each kind: masked reads and writes, which AddressSanitizer does not see and a guarded page does; streaming
# stores; a label that nobody looked at; undefined arithmetic; and an answer that is merely wrong.
FAULTS = {
    "a tail is read one too far": Fault(
        "vectors.h",
        "::loadu(from, count);",
        "::loadu(from, count + (FAULT && count < width));",
        "sizes",
        "AddressSanitizer",
    ),
    "a tail is written one too far": Fault(
        "vectors.h",
        "values[0].store(to, static_cast<int>(count));",
        "values[0].store(to, static_cast<int>(count + (FAULT && count < width)));",
        "sizes",
        "AddressSanitizer",
    ),
    "rows are streamed that are not aligned": Fault(
        "rows.h", "L::is_aligned(gradient)", "(FAULT || L::is_aligned(gradient))", "streamed", "AddressSanitizer"
    ),
    "the first label out of range is taken": Fault(
        "arguments.h", "label >= classes_", "label >= classes_ + FAULT", "refused", "AddressSanitizer"
    ),
    "a division by zero": Fault(
        "forward.h",
        "GRAIN / grid.classes",
        "GRAIN / (grid.classes - FAULT)",
        "sizes",
        "runtime error: division by zero",
    ),
    "a gradient is wrong at the label": Fault(
        "backward.h",
        "(p[0] / stats.sum) - q)",
        "(p[0] / stats.sum) - q * (1 - FAULT * acc_t(0.05)))",
        "differentiated",
        "WRONG",
    ),
}


@functools.cache
def lacking() -> str | None:
    """Return why nothing can be built with the sanitizers here, or None."""
    if _compiler.found() is None:
        return _compiler.REMEDY
    command = [_compiler.found(), *SANITIZERS, "-x", "c++", "-", "-o", "/dev/null"]
    done = subprocess.run(command, input="int main() {}", capture_output=True, text=True, check=False)
    return f"{command[0]} has no sanitizers: {done.stderr.strip()[-200:]}" if done.returncode else None


def built(place: Path, capability: str, sources: Path = building.SOURCES) -> Path:
    """Return the program, built of these sources with the flags of the library."""
    if reason := lacking():
        pytest.skip(reason)
    program = place / f"driver-{capability}"
    flags = building.flags(capability=capability)
    command = [_compiler.found(), str(DRIVER), f"-I{sources}", "-o", str(program), *SANITIZERS, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def ran(program: Path, *steps: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([program, *steps], env=os.environ | environment, capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout[-2000:] + done.stderr[:2000])  # for whoever asks pytest to show it
    return done


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of which any one fault can be had by its number in FAULT: one build for all of them."""
    place = tmp_path_factory.mktemp("faulty")
    texts = {file.name: file.read_text() for file in building.SOURCES.iterdir() if file.suffix in (".h", ".cpp")}
    for number, fault in enumerate(FAULTS.values()):
        assert texts[fault.file].count(fault.right) == 1, f"{fault.file} has changed: {fault.right}"
        wrong = fault.wrong.replace("FAULT", f"int(FAULT == {number})")
        texts[fault.file] = texts[fault.file].replace(fault.right, wrong)
    told = '#include <cstdlib>\ninline const int FAULT = std::atoi(std::getenv("FAULT"));\n'
    texts["vectors.h"] = texts["vectors.h"].replace("#pragma once\n", f"#pragma once\n{told}")
    for name, text in texts.items():
        (place / name).write_text(text)
    return built(place, BEST if BEST in building.VECTORS else "DEFAULT", place)


@pytest.mark.slow
@pytest.mark.parametrize("capability", BUILDS)
def test_no_call_touches_what_is_not_its_own_or_is_undefined(capability: str, tmp_path: Path):
    done = ran(built(tmp_path, capability))
    assert done.returncode == 0
    assert done.stdout.endswith(" calls, 0 wrong\n")
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str, faulty: Path):
    fault = FAULTS[name]
    if fault.step == "streamed" and BEST not in building.VECTORS:
        pytest.skip("nothing is streamed without the processor's vectors")
    done = ran(faulty, fault.step, FAULT=str(list(FAULTS).index(name)))
    assert done.returncode != 0
    assert fault.said in done.stdout + done.stderr


@pytest.mark.slow
def test_without_a_fault_the_same_program_finds_none(faulty: Path):
    for step in ("refused", "differentiated"):
        assert ran(faulty, step, FAULT="-1").returncode == 0
