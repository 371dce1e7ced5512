"""The smallest counter-example: it still fails, is never larger than the start, and is found in bounded work."""

from __future__ import annotations

import functools
import itertools
import statistics
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis import strategies as st
from test_panel import OPTIONS, QUICK, RIGHT, WRONG, judge_answers

from xentbench import inputs
from xentbench.shrinking import Budget, shrink
from xentbench.simplifying import Case, complexity
from xentbench.spec import Problem, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

UNTIMED = Budget(now_s=lambda: 0.0)
PLANTED = [
    "negated",
    "exponent not shifted",
    "mean over all rows",
    "smoothing ignored",
    "weight ignored",
    "wrong shape",
]


def asker(loss) -> Callable[[Problem, inputs.Inputs], Verdict]:
    return lambda problem, given: judge_answers(loss, problem, given)


def first_failure(name: str):
    """Return problem, inputs and quantity of the first failure on the quick panel."""
    for problem in QUICK:
        given = inputs.make(problem, seed=0)
        verdict = asker(WRONG[name])(problem, given)
        if verdict.is_wrong:
            return problem, given, verdict.failures[0].quantity
    raise AssertionError(name)


def shrunk(name: str, budget: Budget = UNTIMED):
    return shrink(*first_failure(name), asker(WRONG[name]), budget)


@functools.cache
def smallest(name: str):
    return shrunk(name)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(problem=OPTIONS, name=st.sampled_from(PLANTED))
def test_what_is_left_still_fails_and_is_never_larger_than_the_start(problem: Problem, name: str):
    fails, given = asker(WRONG[name]), inputs.make(problem, seed=0)
    verdict = fails(problem, given)
    hypothesis.assume(verdict.is_wrong)
    quantity = verdict.failures[0].quantity
    found = shrink(problem, given, quantity, fails, UNTIMED)
    assert found is not None
    assert found.questions <= UNTIMED.questions
    again = fails(found.problem, found.inputs)
    assert again.status == verdict.status
    assert repr(found.failure) in map(repr, again.failures)  # NaN differs from itself
    assert found.failure.quantity == quantity
    assert complexity(Case(found.problem, found.inputs)) <= complexity(Case.of(problem, given))
    assert Problem.parse(found.problem.key) == found.problem


@pytest.mark.parametrize("name", PLANTED)
def test_it_is_deterministic(name: str):
    first, second = smallest(name), shrunk(name)
    assert (first.problem, first.questions) == (second.problem, second.questions)
    assert repr(first.inputs) == repr(second.inputs)


def test_planted_mistakes_shrink_to_a_few_logits():
    sizes = [smallest(name).problem.elements for name in WRONG]
    assert statistics.median(sizes) <= 2
    assert max(sizes) <= 16


def test_a_wrong_sign_is_seen_at_two_equal_logits():
    found = smallest("negated")
    assert found.problem.key == "cross_entropy:N=1,C=2"
    assert (found.inputs.logits.tolist(), found.inputs.target.tolist()) == ([[0.0, 0.0]], [0])
    assert found.failure.expected == pytest.approx(0.693147)
    assert found.failure.got == pytest.approx(-0.693147)


@pytest.mark.parametrize(
    ("name", "kept"), [("smoothing ignored", "label-smoothing=0.1"), ("weight ignored", "weight=")]
)
def test_the_option_that_is_at_fault_stays(name: str, kept: str):
    assert kept in smallest(name).problem.key


@pytest.mark.parametrize("questions", [1, 2, 7])
def test_no_more_questions_are_asked_than_allowed(questions: int):
    asked = itertools.count()
    problem, given, quantity = first_failure("negated")

    def fails(*question):
        next(asked)
        return asker(WRONG["negated"])(*question)

    found = shrink(problem, given, quantity, fails, Budget(questions, now_s=lambda: 0.0))
    assert found.questions == next(asked) == questions


def test_it_ends_when_its_time_is_up():
    clock = itertools.count()
    assert shrunk("negated", Budget(wall_s=5.0, now_s=lambda: float(next(clock)))).questions <= 5


def test_what_does_not_fail_again_has_no_counter_example():
    problem, given, quantity = first_failure("negated")
    assert shrink(problem, given, quantity, asker(RIGHT["F.cross_entropy"]), UNTIMED) is None
    assert shrink(problem, given, quantity, lambda *_: None, UNTIMED) is None


def test_inf_and_nan_among_the_logits_are_no_obstacle():
    problem = Problem(batch_size=3, num_classes=5, reduction="none")
    given = inputs.make(problem, seed=0)
    given.logits[0, 1], given.logits[1, 2], given.logits[2, 3] = float("inf"), float("nan"), -float("inf")
    found = shrink(problem, given, "value", asker(WRONG["always NaN"]), UNTIMED)
    assert found.problem.elements == 1
