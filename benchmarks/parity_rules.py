"""How other projects decide that a cross-entropy is right: their published shapes, options and tolerances.

Numbers were read in the tests of each at the commit that `Rule.source` names, in November 2026, and are applied here
by code of our own: nothing of theirs is run. Where a test has more rows than two cores can ask 221 losses about, there
are fewer here; `docs/comparison.md` says what that leaves out.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from xentbench.spec import Problem


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What two numbers may differ by: `atol + rtol * |expected|`."""

    rtol: float
    atol: float


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison that a test makes.

    Attributes:
        problem: shapes, dtype and options; its axis `logits` says nothing here.
        loss: tolerance of the loss.
        gradient: tolerance of the gradient, or None where nobody looks at it.
        draw: how logits are drawn: `randn`, `0.1 randn`, `rand`, or `linear` (products of hidden states and weights).
    """

    problem: Problem
    loss: Tolerance
    gradient: Tolerance | None
    draw: str = "randn"


@dataclass(frozen=True, slots=True)
class Rule:
    """How one project decides.

    Attributes:
        name: of the project, with what tells its rules apart.
        source: repository and commit in which the numbers were read.
        cases: what is compared.
        reference: `same` (`F.cross_entropy` in the same dtype), `float32`, or `beside torch` (the error may be
            that of `F.cross_entropy` in the same dtype and the tolerance).
        finite: whether a result that is inf or NaN fails, whatever is expected.
        atol_per_class: absolute tolerance by the number of classes, where a rule has one; already in its cases.
        derived: whether float64 cases go through `torch.autograd.gradcheck` and `gradgradcheck`.
    """

    name: str
    source: str
    cases: tuple[Case, ...]
    reference: str = "same"
    finite: bool = False
    atol_per_class: float = 0.0
    derived: bool = False


DEFAULTS: Final = {
    "float64": Tolerance(1e-7, 1e-7),
    "float32": Tolerance(1.3e-6, 1e-5),
    "bfloat16": Tolerance(1.6e-2, 1e-5),
    "float16": Tolerance(1e-3, 1e-5),
}
"""Of `torch.testing.assert_close`."""


def problem(rows: int | None, classes: int, **axes: Any) -> Problem:  # noqa: ANN401 - the problem's axes
    """Return a problem whose upstream gradient is one unless said otherwise."""
    return Problem(batch_size=rows, num_classes=classes, **{"upstream": "one", **axes})


def both(problems: list[Problem], tolerance: Tolerance, draw: str = "randn") -> tuple[Case, ...]:
    """Return cases whose loss and gradient have the same tolerance."""
    return tuple(Case(one, tolerance, tolerance, draw) for one in problems)


def forward(problems: list[Problem], tolerance: Tolerance, draw: str = "randn") -> tuple[Case, ...]:
    """Return cases of which nobody looks at the gradient."""
    return tuple(Case(one, tolerance, None, draw) for one in problems)


def by_default(problems: list[Problem], draw: str = "randn") -> tuple[Case, ...]:
    """Return cases with the tolerances of `torch.testing.assert_close`."""
    return tuple(Case(one, DEFAULTS[one.dtype], DEFAULTS[one.dtype], draw) for one in problems)


def in_dtypes(problems: list[Problem], *dtypes: str) -> list[Problem]:
    """Return every problem in every dtype."""
    return [dataclasses.replace(one, dtype=dtype) for dtype in dtypes for one in problems]


REDUCTIONS: Final = ("mean", "sum", "none")

OPINFO: Final = [
    *(problem(2, 3, dims=dims, reduction=way) for dims in ((), (1,), (1, 2), (1, 2, 3)) for way in REDUCTIONS),
    *(problem(2, 3, dims=dims, weight="random") for dims in ((), (1,), (1, 2), (1, 2, 3))),
    *(problem(2, 3, dims=dims, ignore_index=1) for dims in ((), (1,), (1, 2), (1, 2, 3))),
    *(problem(2, 3, dims=dims, target="soft", reduction=way) for dims in ((), (1,), (1, 2)) for way in REDUCTIONS),
    problem(None, 3),
]
"""Samples like those of `nn.functional.cross_entropy` in torch's OpInfo: label smoothing is not among them."""

LIGER: Final = [
    *(problem(9, 32_000, reduction=way) for way in REDUCTIONS),
    *(problem(9, 32_000, ignore_index=k, ignored=0.3, reduction=w) for k in (2, -123) for w in REDUCTIONS),
    problem(9, 32_000, label_smoothing=0.1),
    *(problem(9, 32_000, label_smoothing=share, ignore_index=k, ignored=0.3) for share, k in ((0.1, 1), (0.2, -300))),
    *(problem(9, 32_000, weight="random", ignored=0.3, reduction=way) for way in REDUCTIONS),
    problem(9, 32_000, weight="random", ignored=0.3, label_smoothing=0.1),
    problem(141, 32_000),
]

LIGER_HALF: Final = [one for one in LIGER if one.weight == "none" and not one.label_smoothing and one.rows < 141]  # noqa: PLR2004
"""Without those in which `F.cross_entropy` on a CPU, the reference, is itself farther off in bfloat16 than the rule."""

QUACK: Final = [
    *(
        problem(m, n, upstream="random", reduction=way)
        for m, n in ((1, 192), (77, 668), (289, 1024), (7, 1128), (7, 4096), (7, 32_768), (1, 128_256))
        for way in ("none", "mean")
    ),
    *(
        problem(13, 1128, upstream="random", weight=w, ignored=0.3, reduction=r)
        for w in ("none", "random")
        for r in REDUCTIONS
    ),
]

CCE: Final = [
    problem(256, classes, reduction=way, ignored=share)
    for classes in (512, 507)
    for way in REDUCTIONS
    for share in (0.0, 0.2)
]

FLAGGEMS: Final = [
    *(
        problem(n, c, label_smoothing=s, ignore_index=k, weight="random", reduction=way)
        for n, c in ((1, 2), (512, 256))
        for s, k in ((0.0, 1), (0.1, 200), (1.0, -100))
        for way in REDUCTIONS
    ),
    *(problem(512, 256, label_smoothing=s, target="soft", weight="random", reduction="mean") for s in (0.0, 0.1)),
    problem(1, 40_999, dims=(3,), reduction="mean", ignored=0.2),
]

RULES: Final = (
    Rule(
        "KernelBench, 1e-2",
        "ScalingIntelligence/KernelBench, v0.1",
        forward([problem(2048, 4096, seed=seed) for seed in range(2)], Tolerance(1e-2, 1e-2), "rand"),
    ),
    Rule(
        "KernelBench, 1e-4",
        "ScalingIntelligence/KernelBench@423217d",
        forward([problem(2048, 4096, seed=seed) for seed in range(2)], Tolerance(1e-4, 1e-4), "rand"),
    ),
    Rule(
        "BackendBench",
        "meta-pytorch/BackendBench@66e0dbc",
        forward(in_dtypes(OPINFO, "float32", "bfloat16"), Tolerance(1e-2, 1e-2)),
    ),
    Rule(
        "flashinfer-bench",
        "flashinfer-ai/flashinfer-bench@40e6ca7",
        forward(in_dtypes([problem(16, 32_000)], "bfloat16", "float32"), Tolerance(1e-2, 1e-2)),
        finite=True,
    ),
    Rule(
        "tritonbench",
        "meta-pytorch/tritonbench@db2155c",
        forward([problem(128, 4096), problem(16, 32_768), problem(4, 131_072)], DEFAULTS["float32"]),
    ),
    Rule(
        "genai_layers",
        "pytorch/pytorch, benchmarks/dynamo/genai_layers@41c269c",
        by_default(
            [
                problem(n, c, dtype="bfloat16", reduction="none", upstream="random")
                for n, c in ((1024, 256), (256, 1024), (32, 8192), (4, 131_072))
            ],
            "0.1 randn",
        ),
    ),
    Rule(
        "OpInfo and gradcheck",
        "pytorch/pytorch, torch 2.13.0",
        by_default(in_dtypes(OPINFO, "float32", "float64")),
        derived=True,
    ),
    Rule("Liger, fp32", "linkedin/Liger-Kernel@ead96b61", both(LIGER, Tolerance(1e-6, 1e-8))),
    Rule(
        "Liger, bf16",
        "linkedin/Liger-Kernel@ead96b61",
        both(in_dtypes(LIGER_HALF, "bfloat16"), Tolerance(5e-2, 1e-8)),
    ),
    Rule(
        "quack, fp32",
        "Dao-AILab/quack@c8ec317",
        both(QUACK, Tolerance(1e-5, 5e-5), "0.1 randn"),
        reference="float32",
    ),
    Rule(
        "CCE, bf16 and fp16",
        "apple/ml-cross-entropy@d42911f",
        tuple(
            Case(one, Tolerance(0.0, atol), Tolerance(0.0, atol), "linear")
            for dtype, atol in (("bfloat16", 1e-2), ("float16", 1e-3))
            for one in in_dtypes(CCE, dtype)
        ),
        reference="beside torch",
    ),
    Rule(
        "FlagGems",
        "flagos-ai/FlagGems@ed2508b",
        tuple(
            Case(one, tolerance, tolerance)
            for one in in_dtypes(FLAGGEMS, "float32", "bfloat16")
            for tolerance in (Tolerance(DEFAULTS[one.dtype].rtol, 1e-4 * one.num_classes),)
        ),
        atol_per_class=1e-4,
    ),
    Rule(
        "gpu-mode, princeton",
        "gpu-mode/reference-kernels@f83cb92",
        both(
            [
                problem(n, c, dtype="bfloat16", reduction="none", upstream="random")
                for n, c in ((16, 32_000), (16, 50_264), (8, 128_256))
            ],
            Tolerance(1e-2, 1e-3),
        ),
        reference="float32",
    ),
)
