"""Measure the kernel's own exponential beside ATen's two, error and time: `python benchmarks/exponential.py`.

Every 16th float32 from -80 to 0 is held against `exp` in float64; times are the best of 20 over 4096 numbers in the
cache. Conditions: one thread, this processor's vectors, built as the kernel is.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import torch
from xentbench.implementations import _compiler
from xentbench.implementations._fused import building

SOURCE = r"""
#include "vectors.h"
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdio>

using V = at::vec::Vectorized<float>;

template <typename F>
void measure(const char* name, F exponential) {
  double worst = 0, where = 0;
  float in[V::size()], out[V::size()];
  for (uint32_t bits = 0x80000000u; bits <= std::bit_cast<uint32_t>(-80.0f); bits += 16 * V::size()) {
    for (int lane = 0; lane < V::size(); ++lane) {
      in[lane] = std::bit_cast<float>(bits + 16 * static_cast<uint32_t>(lane));
    }
    exponential(V::loadu(in)).store(out);
    for (int lane = 0; lane < V::size(); ++lane) {
      const double right = std::exp(static_cast<double>(in[lane]));
      const double error = std::abs(out[lane] - right) / (right * 0x1p-24);
      if (error > worst) {
        worst = error;
        where = in[lane];
      }
    }
  }
  constexpr int count = 4096;
  alignas(64) static float x[count], y[count];
  for (int j = 0; j < count; ++j) {
    x[j] = -20.0f * j / count;
  }
  double best = 1;
  for (int turn = 0; turn < 20; ++turn) {
    const auto begin = std::chrono::steady_clock::now();
    for (int again = 0; again < 100; ++again) {
      for (int j = 0; j < count; j += V::size()) {
        exponential(V::loadu(x + j)).store(y + j);
      }
      asm volatile("" : : "r"(y) : "memory");
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    best = std::min(best, taken.count() / 100 / count);
  }
  std::printf("%-22s error %5.2f unit roundoffs (at %.4f), %.3f ns\n", name, worst, where, best * 1e9);
}

int main() {
  measure("exp_shifted", [](V x) { return xentbench::exp_shifted(x); });
  measure("Vectorized::exp_u20", [](V x) { return x.exp_u20(); });
  measure("Vectorized::exp", [](V x) { return x.exp(); });
}
"""


def main() -> None:
    """Build the program, run it, print what it says."""
    compiler = _compiler.found()
    if compiler is None:
        raise SystemExit(_compiler.REMEDY)
    libraries = Path(torch.__file__).parent / "lib"
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "exponential.cpp", Path(folder) / "exponential"
        source.write_text(SOURCE, encoding="utf-8")
        flags = ["-O3", *building.flags(building.FUSED)]
        linked = ["-L", str(libraries), f"-Wl,-rpath,{libraries}", "-ltorch_cpu", "-lc10"]
        subprocess.run(  # noqa: S603 - our own command
            [compiler, *flags, "-I", str(building.SOURCES), str(source), "-o", str(program), *linked], check=True
        )
        subprocess.run([program], check=True)  # noqa: S603


if __name__ == "__main__":
    main()
