"""What the judge costs at a language model's size, whole against sampled: `python benchmarks/large_problems.py`.

Conditions: (1024, 128256), reduction mean, one thread, whatever machine this runs on; each in a process of its own,
whose peak is its resident memory beyond what it held before the truth was solved (inputs and answers). It takes some
minutes, Linux and, for the whole truth, about 6 GiB.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
ROWS, CLASSES = 1024, 128_256


def main() -> None:
    """Print seconds and bytes of both ways, their ratios, and the conditions."""
    from xentbench import environment  # noqa: PLC0415 - a measuring process must not hold more than it needs

    elements = ROWS * CLASSES
    for dtype in ("bfloat16", "float32"):
        seen = {way: ask(way, dtype) for way in ("whole", "sampled")}
        for way, cost in seen.items():
            told = ", ".join(f"{name} {cost[name]:.2f} s" for name in ("solve_s", "judge_s"))
            print(
                f"{dtype} {way}: {told} ({(cost['solve_s'] + cost['judge_s']) / elements * 1e9:.1f} ns a logit), "
                f"peak {cost['peak_bytes'] / 2**30:.2f} GiB ({cost['peak_bytes'] / elements:.1f} bytes a logit)"
            )
        ratios = ", ".join(f"{name} {seen['sampled'][name] / seen['whole'][name]:.4f}" for name in seen["whole"])
        print(f"{dtype} ratios, sampled / whole: {ratios}")
    print(f"({ROWS}, {CLASSES}), one thread; {environment.cpu_model()}, Python {platform.python_version()}")


def ask(way: str, dtype: str) -> dict[str, float]:
    """Return what one way costs, measured in a process of its own."""
    command = [sys.executable, __file__, way, dtype]
    done = subprocess.run(command, env=os.environ | THREADS, capture_output=True, text=True, check=True)  # noqa: S603 - this file
    cost: dict[str, float] = json.loads(done.stdout)
    return cost


def measure(way: str, dtype: str) -> None:
    """Solve one problem and judge the right answer to it; print what that cost as JSON."""
    import torch  # noqa: PLC0415 - as above
    from torch.nn import functional  # noqa: PLC0415 - as above

    from xentbench import inputs, parity, problems  # noqa: PLC0415 - as above
    from xentbench.posing import Question  # noqa: PLC0415 - as above
    from xentbench.spec import Description, Problem, Source  # noqa: PLC0415 - as above

    if way == "whole":
        problems.SAMPLED_ELEMENTS = 2**62  # type: ignore[misc]
    problem = Problem(batch_size=ROWS, num_classes=CLASSES, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, CLASSES, generator=generator).to(getattr(torch, dtype)).requires_grad_()
    target = torch.randint(CLASSES, (ROWS,), generator=generator)
    loss = functional.cross_entropy(logits, target)
    loss.backward()  # type: ignore[no-untyped-call]
    result = loss.detach()
    answers = inputs.Answers(result, result, result, logits.grad, None)
    given = inputs.Inputs(logits.detach(), target, None, torch.ones((), dtype=logits.dtype))
    declared = Description("candidate", Source("object", "here:candidate"), "here:candidate")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # begins a new peak, see proc(5)
    before_bytes = status_bytes("VmRSS")
    start_s = time.perf_counter()
    question = Question.of(problem, given, 0)
    solved_s = time.perf_counter()
    verdict = parity.judge(question, answers, declared)
    judged_s = time.perf_counter()
    peak_bytes = status_bytes("VmHWM") - before_bytes
    assert not verdict.is_wrong, verdict.reason
    print(json.dumps({"solve_s": solved_s - start_s, "judge_s": judged_s - solved_s, "peak_bytes": peak_bytes}))


def status_bytes(name: str) -> int:
    """Return an entry of this process's memory: `VmRSS` now, `VmHWM` at its peak (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    measure(*sys.argv[1:]) if len(sys.argv) > 1 else main()
