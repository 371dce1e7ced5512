"""The harness judged on the user's own machine: does its judge find planted faults, does its clock tell twins apart."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional

from xentbench import environment, panel, statistics, timing
from xentbench.crews import Crew
from xentbench.examining import examine_here
from xentbench.posing import Questions
from xentbench.registry import object_source
from xentbench.spec import Comparison, Description, Implementation, Phase, Problem
from xentbench.timing import Budget, Lane
from xentbench.workers import WARM_HEAP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Loss = Callable[..., torch.Tensor]

DUELS: Final = 30
"""A/A duels a problem: 0 false alarms in 60 bound their rate below 5 % (one-sided, 95 %)."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One line of a self-test: what was tried, what was expected, what was seen."""

    name: str
    expected: str
    seen: str
    passed: bool

    def record(self) -> dict[str, Any]:
        """Return the line as JSON can hold it."""
        return {"name": self.name, "expected": self.expected, "seen": self.seen, "passed": self.passed}


def _scaled(by: float) -> Loss:
    return lambda logits, target, **options: functional.cross_entropy(logits, target, **options) * by


def _all_rows(logits: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:  # noqa: ANN401
    """Divide a mean by all rows where ignored ones should not count."""
    each = functional.cross_entropy(logits, target, **{**options, "reduction": "none"})
    if options["reduction"] == "none":
        return each
    return each.mean() if options["reduction"] == "mean" else each.sum()


def _unshifted(logits: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:  # noqa: ANN401
    return functional.nll_loss(
        torch.log(logits.exp() / logits.exp().sum(1, keepdim=True)),
        target,
        weight=options["weight"],
        ignore_index=options["ignore_index"],
        reduction=options["reduction"],
    )


class _IgnoresUpstream(torch.autograd.Function):
    """Saves the gradient for an upstream of one and returns it whatever comes."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, target: torch.Tensor, options: Any) -> torch.Tensor:  # noqa: ANN401
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            loss = functional.cross_entropy(leaf, target, **options)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        ctx.save_for_backward(gradient)
        return loss.detach()

    @staticmethod
    def backward(ctx: Any, *_upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return gradient, None, None


def _ignores_upstream(logits: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:  # noqa: ANN401
    result: torch.Tensor = _IgnoresUpstream.apply(logits, target, options)  # type: ignore[no-untyped-call]
    return result


WRONG: Final[Mapping[str, Loss]] = {
    "negated": _scaled(-1.0),
    "biased by 1e-4": _scaled(1.0001),
    "mean over all rows": _all_rows,
    "unshifted exponent": _unshifted,
    "ignores the upstream gradient": _ignores_upstream,
}
RIGHT: Final[Mapping[str, Loss]] = {
    "F.cross_entropy": functional.cross_entropy,
    "float64 inside": lambda logits, target, weight=None, **options: functional.cross_entropy(
        logits.double(), target, weight=None if weight is None else weight.double(), **options
    ).to(logits.dtype),
}


def judge(seed: int) -> list[Scored]:
    """Put planted faults and right losses before the judge, in this process, on the quick panel's labelled problems."""
    problems = [problem for problem in panel.panel("quick") if problem.is_plain]
    lines = []
    for name, loss in WRONG.items():
        hits = _failures(name, loss, problems, seed)
        lines.append(Scored(name, "found", f"wrong on {hits} of {len(problems)} problems", hits > 0))
    for name, loss in RIGHT.items():
        hits = _failures(name, loss, problems, seed)
        lines.append(Scored(name, "no objection", f"wrong on {hits} of {len(problems)} problems", hits == 0))
    return lines


def _failures(name: str, loss: Loss, problems: list[Problem], seed: int) -> int:
    entry = Implementation(name="planted", function=loss)
    declared = Description(name, object_source("torch.nn.functional:cross_entropy"), "selftest")
    questions = Questions(seed, {})
    return sum(examine_here(entry, declared, questions(problem)).is_wrong for problem in problems)


def clock(seed: int) -> list[Scored]:
    """Duel `F.cross_entropy` with itself, time and again: how often are twins called different?"""
    source = object_source("torch.nn.functional:cross_entropy")
    entry = Description("cross_entropy", source, "torch")
    order, core = random.Random(seed), environment.measuring_core()  # noqa: S311 - replayable
    lines = []
    with Crew(entry, 1, WARM_HEAP, 1, core) as crew:
        for problem in (Problem(batch_size=8, num_classes=10), Problem(batch_size=128, num_classes=1000)):
            crew.start()
            if error := crew.set_up(problem.key, seed, [Phase.FORWARD], None):
                lines.append(Scored(problem.label, "measured", str(error), passed=False))
                continue
            alarms, width = 0, []
            for _ in range(DUELS):
                lane = Lane("twin", crew.workers[0])
                seen = timing.duel([lane], Phase.FORWARD, Budget(0.25, 0.01), order, time.monotonic)["twin"]
                alarms += seen.verdict in (Comparison.FASTER, Comparison.SLOWER)
                width.append(statistics.median_interval(lane.logs(timing.CANDIDATE)).half_width)
            middle = sorted(width)[len(width) // 2]
            told = f"{alarms} false alarms, median half-width ±{middle:.2%}"
            lines.append(Scored(f"{DUELS} duels of twins at {problem.label}", "0 false alarms", told, alarms == 0))
    return lines
