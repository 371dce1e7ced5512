"""Other projects' rules of parity over the collection of mistakes: `python benchmarks/other_parity_rules.py`.

`parity_rules.RULES` holds what each compares and how exactly. Every wrong loss of `xentbench.mistakes` is put to every
rule, and so is every right one. Where a rule lets a wrong loss pass, this project's own bounds are asked about the same
numbers: either they see it there (then the tolerance let it pass) or they do not either (then it was not asked for). A
second table asks each rule about gradients that are zero, negated, or zero but for the label, at a language model's
size. Ten minutes; one thread a process, two processes, about 3 GB. The tables go to docs/comparison.md.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

import torch
from parity_rules import DEFAULTS, RULES, Case, Rule, Tolerance
from torch.nn import functional

from xentbench import environment, inputs, mistakes, panel, parity
from xentbench.examining import examine_here
from xentbench.posing import Question, Questions
from xentbench.registry import object_source
from xentbench.spec import Description, Implementation, Problem
from xentbench.worker.calls import options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xentbench.inputs import Inputs

    Loss = Callable[..., torch.Tensor]
    Answer = tuple[torch.Tensor, torch.Tensor | None]

OURS: Final = "xentbench"
DECLARED: Final = Description("candidate", object_source("xentbench.mistakes:WRONG"), "benchmark", speaks=True)
HIDDEN: Final = 128
"""Size of the hidden states whose products are the logits of `linear`."""
LARGE: Final = Problem(batch_size=1024, num_classes=32_000, upstream="one")
FAULTS: Final[dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
    "zero": lambda gradient, _: torch.zeros_like(gradient),
    "negated": lambda gradient, _: -gradient,
    "zero but for the label": lambda gradient, target: torch.zeros_like(gradient).scatter(
        1, target[:, None], gradient.gather(1, target[:, None])
    ),
}


def main() -> None:
    """Ask every rule about every loss and print both tables with their conditions."""
    start_s = time.perf_counter()
    names = [OURS, *(rule.name for rule in RULES)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        counted = {}
        for name, counts in zip(names, pool.map(count, names), strict=True):
            counted[name] = counts
            print(f"{name}: {counts} after {time.perf_counter() - start_s:.0f} s", file=sys.stderr, flush=True)
        large = dict(zip(names, pool.map(faults, names), strict=True))
    rights = len(mistakes.RIGHT)
    print(
        "| rule | found | let pass | not asked | right losses failed | of |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for name, (found, passed, unasked, failed, asked) in counted.items():
        print(f"| {name} | {found} | {passed} | {unasked} | {failed} | {asked} |")
    print(f"\n{len(mistakes.WRONG)} wrong losses, {rights} right ones.\n")
    print(f"| rule | {' | '.join(FAULTS)} |\n| --- |{' --- |' * len(FAULTS)}")
    for name, told in large.items():
        print(f"| {name} | {' | '.join(told)} |")
    print(f"\n{conditions()}; {(time.perf_counter() - start_s) / 60:.0f} minutes")


def count(name: str) -> tuple[int, int, int, int, int]:
    """Return how many wrong losses one rule finds, lets pass and does not ask for; right ones failed, and asked."""
    torch.set_num_threads(1)
    if name == OURS:
        return _count_ours()
    rule = next(rule for rule in RULES if rule.name == name)
    found = passed = unasked = 0
    for mistake in mistakes.WRONG.values():
        if accepts(rule, mistake.loss) is False:
            found += 1
        elif shows(rule, mistake.loss):
            passed += 1
        else:
            unasked += 1
    outcomes = [accepts(rule, right.loss) for right in mistakes.RIGHT.values()]
    return found, passed, unasked, outcomes.count(False), len(outcomes) - outcomes.count(None)


def _count_ours() -> tuple[int, int, int, int, int]:
    questions = Questions(int(time.time()), {})

    def is_wrong(loss: Loss) -> bool:
        held = Implementation(name="candidate", function=loss)
        return any(examine_here(held, DECLARED, questions(each)).is_wrong for each in panel.panel("full"))

    found = sum(is_wrong(mistake.loss) for mistake in mistakes.WRONG.values())
    failed = sum(is_wrong(right.loss) for right in mistakes.RIGHT.values())
    return found, len(mistakes.WRONG) - found, 0, failed, len(mistakes.RIGHT)


def accepts(rule: Rule, loss: Loss) -> bool | None:
    """Whether a rule lets a loss pass all of its cases; None where the loss itself declines every one of them."""
    asked = False
    for case in rule.cases:
        given = tensors(case.problem, case.draw)
        try:
            ok = (
                derives(case.problem, given, loss)
                if is_derived(rule, case)
                else are_close(rule, case, called(loss, case, given), given)
            )
        except NotImplementedError:
            continue
        except Exception:  # noqa: BLE001 - a wrong loss may raise anything
            return False
        if not ok:
            return False
        asked = True
    return True if asked else None


def is_derived(rule: Rule, case: Case) -> bool:
    """Whether a case is put to gradcheck rather than to a comparison."""
    return rule.derived and case.problem.dtype == "float64"


def are_close(rule: Rule, case: Case, got: Answer, given: Inputs) -> bool:
    """Whether an answer is as close to the reference as the rule asks."""
    if rule.finite and not torch.isfinite(got[0]).all():
        return False
    same, exact = references(case, given)
    expected = same if rule.reference == "same" else exact
    for mine, theirs, torchs, tolerance in zip(got, expected, same, (case.loss, case.gradient), strict=True):
        if tolerance is None:
            continue
        if mine is None or mine.shape != theirs.shape:
            return False
        if rule.reference == "beside torch":
            allowed = (torchs.double() - theirs.double()).abs() + tolerance.atol
            close = bool(((mine.double() - theirs.double()).abs() <= allowed).all())
        else:
            close = torch.allclose(mine, theirs.to(mine.dtype), tolerance.rtol, tolerance.atol, equal_nan=True)
        if not close:
            return False
    return True


def called(loss: Loss, case: Case, given: Inputs) -> Answer:
    """Return loss and gradient (None where the case does not look at it) of one call on copies of its arguments."""
    logits = given.logits.clone().requires_grad_(case.gradient is not None)
    weight = None if given.weight is None else given.weight.clone()
    result = loss(logits, given.target.clone(), **options_of(case.problem, weight))
    if case.gradient is None:
        return result.detach(), None
    (gradient,) = torch.autograd.grad(result, logits, given.upstream.to(result.dtype))
    return result.detach(), gradient


@functools.cache
def _references(case: Case) -> tuple[Answer, Answer]:
    given = tensors(case.problem, case.draw)

    def wide(logits: torch.Tensor, target: torch.Tensor, **options: object) -> torch.Tensor:
        if isinstance(options["weight"], torch.Tensor):
            options["weight"] = options["weight"].float()
        return functional.cross_entropy(
            logits.float(), target if target.dtype == torch.int64 else target.float(), **options
        )  # type: ignore[arg-type]

    return called(functional.cross_entropy, case, given), called(wide, case, given)


def references(case: Case, given: Inputs) -> tuple[Answer, Answer]:
    """Return what `F.cross_entropy` answers in the same dtype, and in float32."""
    assert given is tensors(case.problem, case.draw)
    return _references(case)


def derives(problem: Problem, given: Inputs, loss: Loss) -> bool:
    """Whether gradcheck and gradgradcheck pass; a second derivative that is refused by an exception is no fault."""
    chosen = functools.partial(loss, target=given.target, **options_of(problem, given.weight))
    logits = given.logits.clone().requires_grad_()
    options = {"raise_exception": False}
    if not torch.autograd.gradcheck(chosen, logits, **options):  # type: ignore[arg-type]
        return False
    try:
        return bool(torch.autograd.gradgradcheck(chosen, logits, **options))  # type: ignore[arg-type]
    except RuntimeError:
        return True


def shows(rule: Rule, loss: Loss) -> bool:
    """Whether this project's bounds see a mistake in the very numbers that a rule looked at and let pass."""
    return any(is_seen(case, loss) for case in sorted(rule.cases, key=lambda case: case.problem.elements))


def is_seen(case: Case, loss: Loss) -> bool:
    """Whether the judge finds loss or gradient of one call wrong; nothing else is asked."""
    given = tensors(case.problem, case.draw)
    try:
        result, gradient = called(loss, case, given)
    except NotImplementedError:
        return False
    return judged_wrong(case.problem, case.draw, result, gradient)


def judged_wrong(problem: Problem, draw: str, result: torch.Tensor, gradient: torch.Tensor | None) -> bool:
    """Whether the judge objects to a loss and, where there is one, its gradient."""
    question = posed(problem, draw, with_gradient=gradient is not None)
    answers = inputs.Answers(result, result, result, gradient, None)
    return parity.judge(question, answers, DECLARED).is_wrong


@functools.lru_cache(maxsize=64)
def posed(problem: Problem, draw: str, *, with_gradient: bool) -> Question:
    """Return the question, with its truth; without a gradient it is one of the forward pass alone."""
    asked = problem if with_gradient else dataclasses.replace(problem, mode="no-grad")
    return Question.of(asked, tensors(problem, draw))


@functools.lru_cache(maxsize=64)
def tensors(problem: Problem, draw: str) -> Inputs:
    """Return the arguments of a case, drawn as the other project draws them."""
    generator = torch.Generator().manual_seed(problem.seed)
    dtype, shape = getattr(torch, problem.dtype), problem.logits_shape
    draws = {"rand": torch.rand, "linear": lambda *_, generator: _products(problem, generator)}
    logits = draws.get(draw, torch.randn)(*shape, generator=generator) * (0.1 if draw == "0.1 randn" else 1.0)
    if problem.has_index_target:
        target = torch.randint(problem.num_classes, problem.row_shape, generator=generator)
        out = torch.rand(problem.row_shape, generator=generator) < problem.ignored
        target = torch.where(out, problem.ignore_index, target)
    else:
        target = torch.randn(shape, generator=generator).softmax(1).to(dtype)
    weight = torch.rand(problem.num_classes, generator=generator).to(dtype) if problem.weight != "none" else None
    upstream = torch.ones(problem.loss_shape, dtype=dtype)
    if problem.upstream == "random":
        upstream = torch.randn(problem.loss_shape, generator=generator).to(dtype)
    return inputs.Inputs(logits.to(dtype), target, weight, upstream)


def _products(problem: Problem, generator: torch.Generator) -> torch.Tensor:
    """Return products of hidden states and weights, half of the rows' weights being their own states."""
    rows, classes = problem.rows, problem.num_classes
    states = torch.randn(rows, HIDDEN, generator=generator) / HIDDEN**0.5
    weights = torch.randn(classes, HIDDEN, generator=generator)
    half = min(rows, classes) // 2
    weights[:half] = states[:half]
    return states @ weights.T


def faults(name: str) -> list[str]:
    """Return what one rule says of each faulty gradient at a language model's size."""
    torch.set_num_threads(1)
    if name == OURS:
        case = Case(LARGE, DEFAULTS["float32"], DEFAULTS["float32"])
        return [_told(not judged_wrong(LARGE, "randn", *answer)) for answer in _faulty(case)]
    rule = next(rule for rule in RULES if rule.name == name)
    if all(case.gradient is None for case in rule.cases):
        return ["not looked at"] * len(FAULTS)
    case = max(rule.cases, key=lambda case: (case.gradient or Tolerance(0.0, 0.0)).atol)
    large = _at_large(rule, case)
    return [_told(are_close(rule, large, answer, tensors(large.problem, large.draw))) for answer in _faulty(large)]


def _at_large(rule: Rule, case: Case) -> Case:
    """Return the case with the shape of `LARGE`, in its own dtype: of a mean, where the rule is ever asked of one."""
    tolerance = case.gradient or case.loss
    tolerance = Tolerance(tolerance.rtol, rule.atol_per_class * LARGE.num_classes or tolerance.atol)
    meant = any(one.problem.reduction == "mean" for one in rule.cases)
    axes = {} if meant else {"reduction": case.problem.reduction, "upstream": case.problem.upstream}
    problem = dataclasses.replace(LARGE, dtype=case.problem.dtype, **axes)
    return Case(problem, tolerance, tolerance, "0.1 randn" if case.draw == "0.1 randn" else "randn")


def _faulty(case: Case) -> Iterator[Answer]:
    """Yield answers whose loss is right and whose gradient has a fault, in the order of `FAULTS`."""
    given = tensors(case.problem, case.draw)
    loss, gradient = called(functional.cross_entropy, case, given)
    assert gradient is not None
    for fault in FAULTS.values():
        yield loss, fault(gradient, given.target)


def _told(passes: bool) -> str:  # noqa: FBT001 - what it says
    return "**passes**" if passes else "found"


def conditions() -> str:
    """Return machine, versions and date as the table's foot tells them."""
    versions = f"python {platform.python_version()}, torch {torch.__version__}"
    return f"{environment.cpu_model()}, {versions}; {dt.datetime.now(dt.UTC).date()}"


if __name__ == "__main__":
    main()
