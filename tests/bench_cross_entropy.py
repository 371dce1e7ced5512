"""The pytest-benchmark lane: the built-in implementations on the default grid, for people who live in pytest.

    nox -s pytest-bench                                   times them
    pytest tests/bench_cross_entropy.py --benchmark-enable --benchmark-autosave
    pytest tests/bench_cross_entropy.py --benchmark-enable --benchmark-compare

Groups are one phase of one problem. All entrants share this process, one after the other, on one thread: no isolation,
no interleaving and no baseline beside them, so read small differences from `xentbench bench`. Each is judged before it
is timed. Plain `pytest` disables the clock and runs each once, the compiled ones on the smallest problem alone.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch

from xentbench import parity
from xentbench.inputs import Inputs, make
from xentbench.posing import Question
from xentbench.problems import grid
from xentbench.spec import Description, Phase, Source, Verdict
from xentbench.worker import calls, compiled, loading, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_benchmark.fixture import BenchmarkFixture

    from xentbench import Problem

SEED = 0
SOURCE = Source("built-in", loading.BUILT_IN)
ENTRANTS = {entry.name: (origin, entry) for origin, entry in loading.load(SOURCE).found if not entry.on_request}
PROBLEMS = [problem for problem in grid("default") if problem.recorded is None]
SMALLEST = min(PROBLEMS, key=lambda problem: problem.elements)


def pytest_generate_tests(metafunc: pytest.Metafunc):
    smoke = metafunc.config.getoption("benchmark_disable") and not metafunc.config.getoption("benchmark_enable")
    cells = [
        pytest.param(name, problem, id=f"{name}-{problem.label}")
        for problem in PROBLEMS
        for name, (_, entry) in sorted(ENTRANTS.items())
        if not (smoke and entry.compiles and problem != SMALLEST)
    ]
    metafunc.parametrize(("name", "problem"), cells)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def loss(name: str, problem: Problem) -> Iterator[calls.Loss]:
    """The entrant with the problem's options, judged right, and compiled where it compiles."""
    _, entry = ENTRANTS[name]
    reason = calls.refusal(entry, problem)
    if reason:
        pytest.skip(f"{name} does not support this problem: {reason}")
    inputs = posed(problem)
    compiled.reset()
    bound = calls.bind(entry, problem, inputs.weight)
    verdict = judged(name, problem, bound)
    assert not verdict.is_wrong, verdict.reason
    compiled.check_set_up(must_compile=entry.compiles)
    yield bound
    # Lifts the ban on compiling that check_set_up put in place.
    compiled.reset()


@cache
def posed(problem: Problem) -> Inputs:
    return make(problem, SEED)


@cache
def question(problem: Problem) -> Question:
    return Question.of(problem, posed(problem))


def judged(name: str, problem: Problem, bound: calls.Loss) -> Verdict:
    origin, entry = ENTRANTS[name]
    declared = Description.read(SOURCE, serving.describe(origin, entry, []))
    answers = calls.answer(bound, problem, posed(problem))
    return parity.judge(question(problem), answers, declared)


def forward(bound: calls.Loss, problem: Problem) -> Callable[[], torch.Tensor]:
    logits, target = calls.fresh(problem, posed(problem), Phase.FORWARD)
    return lambda: bound(logits, target)


def forward_backward(bound: calls.Loss, problem: Problem) -> Callable[[], torch.Tensor]:
    logits, target = calls.fresh(problem, posed(problem), Phase.FORWARD_BACKWARD)
    upstream = posed(problem).upstream

    def run() -> torch.Tensor:
        logits.grad = None
        bound(logits, target).backward(upstream)
        return logits.grad

    return run


def test_forward(benchmark: BenchmarkFixture, loss: calls.Loss, problem: Problem):
    benchmark.group = f"{Phase.FORWARD} {problem.label}"
    benchmark.extra_info.update(problem=problem.key, isolation="none: in-process")
    result = benchmark(forward(loss, problem))
    assert result.shape == problem.loss_shape


def test_forward_backward(benchmark: BenchmarkFixture, loss: calls.Loss, problem: Problem):
    benchmark.group = f"{Phase.FORWARD_BACKWARD} {problem.label}"
    benchmark.extra_info.update(problem=problem.key, isolation="none: in-process")
    gradient = benchmark(forward_backward(loss, problem))
    assert gradient.shape == problem.logits_shape
