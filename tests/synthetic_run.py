"""An artificial run with the numbers of a plausible one: what the report's tests read instead of measuring."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xentbench.spec import Phase, Problem

# Relative speed: time over the baseline's at small and at large problems, peak memory over the minimum, set-up seconds.
ENTRANTS = {
    "naive": (1.45, 2.6, 2.0, 0.0004),
    "from-scratch": (2.1, 3.4, 3.0, 0.0003),
    "f-cross-entropy": (1.0, 1.0, 1.5, 0.0001),
    "nn-cross-entropy-loss": (1.12, 1.01, 1.5, 0.0006),
    "nll-log-softmax": (1.08, 1.0, 1.5, 0.0002),
    "logsumexp-gather": (1.3, 1.22, 1.75, 0.0002),
    "one-hot": (1.9, 4.4, 4.1, 0.0002),
    "chunked-online": (3.8, 0.86, 1.02, 0.0005),
    "autograd-function": (1.6, 0.71, 1.0, 0.0004),
    "compiled-f-cross-entropy": (1.5, 0.62, 1.0, 3.9),
    "compiled-from-scratch": (1.55, 0.6, 1.0, 4.3),
    "focal-gamma-0": (2.4, 2.9, 3.3, 0.0003),
    "bce-with-logits": (1.7, 1.6, 2.2, 0.0002),
}
PHASES = {Phase.FORWARD_NO_GRAD: 0.42, Phase.FORWARD: 0.5, Phase.BACKWARD: 0.55, Phase.FORWARD_BACKWARD: 1.0}
GRIDS: dict[str, tuple[Problem, ...]] = {
    "smoke": (
        Problem(batch_size=8, num_classes=10),
        Problem(batch_size=128, num_classes=1000),
        Problem(batch_size=512, num_classes=10, logits="digits@0123456789ab"),
    ),
    "default": (
        Problem(batch_size=1024, num_classes=2),
        Problem(batch_size=8, num_classes=10),
        Problem(batch_size=128, num_classes=1000),
        Problem(batch_size=32, num_classes=32000),
        Problem(batch_size=512, num_classes=10, logits="digits@0123456789ab"),
        Problem(batch_size=128, num_classes=8192, logits="text@ba9876543210"),
    ),
    "small": tuple(Problem(batch_size=n, num_classes=c) for n in (32, 256) for c in (10, 100, 1000, 10000)),
    "mixed": (
        *(
            Problem(batch_size=n, num_classes=c, dtype=dtype)
            for n in (32, 256)
            for c in (10, 1000, 32000, 50257, 128256)
            for dtype in ("float32", "bfloat16")
        ),
        Problem(batch_size=512, num_classes=10, logits="digits@0123456789ab"),
    ),
    "curves": tuple(
        Problem(batch_size=n, num_classes=c)
        for n in (8, 32, 128)
        for c in (10, 30, 100, 300, 1000, 3000, 10000, 32000, 50257, 64000, 100000, 128256, 200000)
    ),
}
"""`curves` has 2028 cells: as many as a page must bear."""
BANDWIDTH = 11e9
FAMILIES = ("normal", "peaked", "uniform", "equal", "wide", "masked", "leading-masked", "special")
ULPS = {"float64": 1.0, "float32": 1.2, "bfloat16": 0.6, "float16": 0.7}
STEPS = {"digits": 200, "text": 300}


@dataclass(frozen=True)
class SyntheticRun:
    """What `xentbench.results.Run` offers a report."""

    path: Path
    id: str
    info: dict[str, Any] = field(default_factory=dict)
    cells: pd.DataFrame = field(default_factory=pd.DataFrame)
    verdicts: pd.DataFrame = field(default_factory=pd.DataFrame)
    accuracies: pd.DataFrame = field(default_factory=pd.DataFrame)
    trainings: pd.DataFrame = field(default_factory=pd.DataFrame)


def make_run(grid: str = "default", seed: int = 0, names: dict[str, str] | None = None) -> SyntheticRun:
    """Return a run over a grid; `names` renames implementations, e.g. into something hostile."""
    random = np.random.default_rng(seed)
    problems = GRIDS[grid]
    called = {name: (names or {}).get(name, name) for name in ENTRANTS}
    cells = [
        _cell(random, called[name], name, problem, phase)
        for problem in problems
        for phase in PHASES
        for name in ENTRANTS
    ]
    verdicts = [_verdict(random, called[name], name, problem) for problem in problems for name in ENTRANTS]
    info = _info(list(called.values()), grid)
    return SyntheticRun(Path(), info["run"], info, pd.DataFrame(cells), pd.DataFrame(verdicts))


def make_full_run(grid: str = "default", seed: int = 0, names: dict[str, str] | None = None) -> SyntheticRun:
    """Return a run with all that a run may hold: times with both allocators, accuracies asked alone, trainings."""
    run, random = make_run(grid, seed, names), np.random.default_rng(seed + 1)
    called = {name: (names or {}).get(name, name) for name in ENTRANTS}
    cold = run.cells["ratio"] * random.lognormal(-0.02, 0.06, len(run.cells))
    cells = run.cells.assign(cold_ratio=cold, cold_low=cold * 0.97, cold_high=cold * 1.04, cold_reason="")
    cells["cold_latency_s"], cells["cold_minor_faults"] = cells["latency_s"] * 2.6, 984.0
    accuracies = [
        _accuracy(random, called[name], name, dtype, family)
        for name in ENTRANTS
        if "compiled" not in name
        for dtype in ULPS
        for family in FAMILIES
    ]
    trainings = [_training(called[name], name, workload) for name in ENTRANTS for workload in STEPS]
    return replace(run, cells=cells, accuracies=pd.DataFrame(accuracies), trainings=pd.DataFrame(trainings))


def _accuracy(random: np.random.Generator, called: str, name: str, dtype: str, family: str) -> dict[str, Any]:
    problem = Problem(batch_size=32, num_classes=1000, dtype=dtype, logits=family, reduction="none")
    row = _verdict(random, called, name, problem) | {"dtype": dtype, "logits": family}
    if row["status"] != "passed":
        return row
    if name == "naive" and family in ("wide", "special"):
        return row | {"status": "wrong-value", "grade": "FAIL", "reason": "loss is inf", "error_ulp": None}
    if name == "focal-gamma-0" and family == "masked":
        return row | {"status": "wrong-value", "grade": "FAIL", "error_ulp": 5e4, "deviations": "masked"}
    worse = 400 if name == "one-hot" and family == "wide" else 1
    return row | {"error_ulp": ULPS[dtype] * worse * float(random.lognormal(0, 0.6))}


def _training(called: str, name: str, workload: str) -> dict[str, Any]:
    steps = np.arange(STEPS[workload])
    noise = np.random.default_rng(len(workload)).normal(0, 0.05, len(steps))
    middle = 2.3 * np.exp(-steps / 60) + 0.2 + noise
    width = 1e-6 * (1 + steps / 10)
    apart = 0.02 * steps / len(steps) if name == "naive" else 0.5 * width * np.sin(steps / 9 + len(name))
    low, high = middle - width, middle + width
    wrong = name == "naive"
    return {
        "implementation": called,
        "workload": workload,
        "status": "trains-differently" if wrong else "passed",
        "reason": "the curve leaves the band at step 3" if wrong else "",
        "steps": len(steps),
        "losses": list(middle + apart),
        "losses_low": list(low),
        "losses_high": list(high),
        "curve_ratio": 250.0 if wrong else 0.5,
        "weights_ratio": 90.0 if wrong else 0.4,
        "held_out_loss": 0.31 + 0.01 * wrong,
        "held_out_accuracy": 0.93,
        "wall_s": 1.7,
        "reproduce": f"xentbench parity --train --implementation {name}",
    }


def _status(name: str, problem: Problem, phase: Phase | None) -> tuple[str, str]:
    if name == "bce-with-logits" and problem.num_classes != 2:
        return "unsupported", f"two classes only, got C={problem.num_classes}"
    if name == "naive" and problem.recorded == "text":
        return "wrong-value", "loss is inf, expected 2.7183; looks like exp overflowing: subtract the maximum first"
    if name == "one-hot" and problem.num_classes >= 32000 and phase in (None, Phase.BACKWARD):
        return ("timed-out", "no answer within 30 s") if phase else ("passed", "")
    return "passed", ""


def _cell(random: np.random.Generator, called: str, name: str, problem: Problem, phase: Phase) -> dict[str, Any]:
    status, reason = _status(name, problem, phase)
    small, large, memory, setup = ENTRANTS[name]
    share = min(1.0, problem.elements / 2e5)
    ratio = (small * (1 - share) + large * share) * random.lognormal(0, 0.02)
    baseline = (6e-6 + problem.elements * 9e-9) * PHASES[phase]
    spread = 0.03 if share > 0.1 else 0.015
    low, high = ratio * np.exp(-spread * random.uniform(0.7, 1.3)), ratio * np.exp(spread * random.uniform(0.7, 1.3))
    latency = ratio * baseline
    minimum = problem.logits_bytes if phase in (Phase.BACKWARD, Phase.FORWARD_BACKWARD) else 4
    row = _plan(called, problem, phase) | {"status": status, "reason": reason, "labels": "", "grade": "B"}
    if status != "passed":
        return row | {"grade": "FAIL" if status == "wrong-value" else "", "verdict": ""}
    return row | {
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
        "verdict": "inconclusive" if 0.97 < ratio < 1.03 else "faster" if high < 1 else "slower" if low > 1 else "same",
        "latency_s": latency,
        "latency_p05_s": latency * 0.96,
        "latency_p95_s": latency * random.uniform(1.05, 1.6),
        "baseline_latency_s": baseline,
        "rounds": 64 if share < 1 else 12,
        "workers": 3,
        "cpu_share": 0.99,
        "minor_faults": 0.0,
        "peak_bytes": float(int(problem.logits_bytes * memory) + 64),
        "saved_bytes": None if phase is Phase.FORWARD_NO_GRAD else float(int(problem.logits_bytes * (memory - 1))),
        "peak_resident_bytes": float(int(problem.logits_bytes * memory)) if problem.logits_bytes >= 2**24 else None,
        "minimum_bytes": float(minimum),
        "floor_s": (floor_s := 2 * problem.logits_bytes / BANDWIDTH * PHASES[phase] + 1e-7),
        "limit_s": (limit_s := max(floor_s, 0.0 if phase is Phase.BACKWARD else problem.elements * 2e-10)),
        "limit_by": "exp" if limit_s > floor_s else "bytes",
        "reached_ratio": limit_s / latency,
        "setup_s": setup * random.lognormal(0, 0.1),
    }


def _plan(called: str, problem: Problem, phase: Phase) -> dict[str, Any]:
    return {
        "implementation": called,
        "problem": problem.key,
        "label": problem.label,
        "size_label": problem.size_label,
        "batch_size": problem.batch_size,
        "num_classes": problem.num_classes,
        "elements": problem.elements,
        "dtype": problem.dtype,
        "device": problem.device,
        "logits": problem.logits,
        "reduction": problem.reduction,
        "phase": str(phase),
    }


def _verdict(random: np.random.Generator, called: str, name: str, problem: Problem) -> dict[str, Any]:
    status, reason = _status(name, problem, None)
    wrong = status == "wrong-value"
    return {
        "implementation": called,
        "problem": problem.key,
        "label": problem.label,
        "status": status,
        "grade": "FAIL" if wrong else "" if status == "unsupported" else "A" if "autograd" in name else "B",
        "reason": reason,
        "checks": 0 if status == "unsupported" else 12,
        "bound_ratio": 4e3 if wrong else float(random.uniform(0.05, 0.7)),
        "error_ulp": None if wrong else float(random.uniform(0.5, 3.0)),
        "deviations": "overflow" if wrong else "",
        "labels": "",
        "reproduce": f"xentbench parity --implementation {name} --problem '{problem.key}'" if wrong else "",
        "failures": [dict(FAILURE)] if wrong else [],
    }


FAILURE = {
    "quantity": "value",
    "message": "loss is inf, expected 2.7183; looks like exp overflowing: subtract the maximum first",
    "counterexample": "N=1 C=2, logits [[89, 0]], target [0]: expected 0, got inf",
    "snippet": "import torch\n\nlogits = torch.tensor([[89.0, 0.0]])\nprint(logits.exp().sum().log() - logits[0, 0])\n",
}


def _info(names: list[str], grid: str) -> dict[str, Any]:
    return {
        "run": "2026-03-01T12-00-00-a1b2c3",
        "contract": "cross_entropy",
        "preset": grid,
        "seed": 7,
        "started": "2026-03-01T12:00:00+00:00",
        "wall_s": 412.7,
        "baseline": "F.cross_entropy",
        "grids": [grid],
        "warnings": ["governor is powersave: times may drift; set it to performance for tighter intervals"],
        "implementations": [
            {"name": name, "origin": "built-in", "status": "passed", "reason": "", "summary": f"The loss, as {name}."}
            | {"reference": "https://example.org/paper" if place % 3 == 0 else "textbook, chapter 3"}
            for place, name in enumerate(names)
        ],
        "machine": {
            "cpu": {
                "read_bytes_per_s": {"16777216": 30e9, "65536": 148e9},
                "copy_bytes_per_s": {"65536": 90e9, "16777216": None},
                "exp_per_s": {"float32": 6.4e9},
            }
        },
        "environment": {
            "torch": "2.13.0+cpu",
            "python": "3.11.2",
            "numpy": "2.4.6",
            "device": "cpu",
            "cpu": "Intel(R) Xeon(R) Processor @ 2.90GHz",
            "cores": 2,
            "threads": 1,
            "pinned": "yes",
            "allocator": "glibc, mmap threshold 1 GiB",
            "os": "Linux 6.1",
            "governor": "powersave",
            "container memory limit": "8.0 GB",
        },
    }
