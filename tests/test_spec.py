from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xentbench import implementation
from xentbench.spec import DTYPE_BYTES, LAYOUTS, Grade, Implementation, Problem, Status, UsageError, read_axis

problems = st.builds(
    Problem,
    batch_size=st.none() | st.integers(0, 9),
    num_classes=st.integers(1, 9),
    dtype=st.sampled_from(list(DTYPE_BYTES)),
    scale=st.floats(0.001, 1000.0),
    offset=st.floats(-1e6, 1e6),
    labels=st.sampled_from(["uniform", "zipf", "edges"]),
    target=st.sampled_from(["index", "soft"]),
    target_grad=st.booleans(),
    weight=st.sampled_from(["none", "random"]),
    ignore_index=st.integers(-100, 300),
    ignored=st.floats(0, 1),
    label_smoothing=st.floats(0, 1),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    logits_layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 2**31),
)


@given(problems)
def test_a_problem_comes_back_from_its_key(problem: Problem):
    assert Problem.parse(problem.key) == problem


@given(problems, problems)
def test_equal_keys_mean_equal_problems(one: Problem, other: Problem):
    assert (one.key == other.key) == (one == other)


def test_dims_come_back_from_the_key():
    problem = Problem(batch_size=2, num_classes=3, dims=(4, 5))
    assert problem.key == "cross_entropy:N=2,C=3,dims=4x5"
    assert Problem.parse(problem.key) == problem


def test_a_key_may_leave_the_contract_out():
    assert Problem.parse("N=8,C=10") == Problem(batch_size=8, num_classes=10)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("N=8,C=10,dtyp=float32", "did you mean 'dtype'"),
        ("N=8,C=10,dtype=float23", "did you mean 'float32'"),
        ("N=eight,C=10", "N must be a whole number or none, got 'eight'"),
        ("N=-1,C=10", "batch size N must be 0 or more, got -1"),
        ("N=8,C=0", "number of classes C must be 1 or more, got 0"),
        ("N=8,C=10,label-smoothing=2.0", "label-smoothing must lie between 0 and 1"),
        ("N=8,C=10,device=gpu", "device 'gpu' is unknown"),
        ("N=none,C=10,dims=4", "need a batch size"),
        ("N=100000000000000000000,C=10", "at most 2^62"),
        ("N=4000000000,C=4000000000", "at most 2^62 logits"),
        ("N=8,C=10,scale=nan", "finite"),
        ("linear:N=8,C=10", "contract 'linear' is unknown"),
    ],
)
def test_a_key_that_does_not_fit_is_told_in_one_sentence(key: str, told: str):
    with pytest.raises(UsageError) as error:
        Problem.parse(key)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "logits", "rows", "loss"),
    [
        ("N=none,C=5", (5,), (), ()),
        ("N=8,C=5,reduction=none", (8, 5), (8,), (8,)),
        ("N=8,C=5,dims=2x3", (8, 5, 2, 3), (8, 2, 3), ()),
    ],
)
def test_shapes_are_those_of_f_cross_entropy(key: str, logits: tuple[int, ...], rows: tuple[int, ...], loss):
    problem = Problem.parse(key)
    assert (problem.logits_shape, problem.row_shape, problem.loss_shape) == (logits, rows, loss)


def test_labels_name_what_is_not_default():
    assert Problem(batch_size=128, num_classes=1000).label == "(128, 1000)"
    assert Problem(batch_size=8, num_classes=10, dtype="bfloat16").label == "(8, 10) bfloat16"
    assert Problem(batch_size=512, num_classes=10, logits="digits@0123").label == "digits (512, 10)"


def test_the_decorator_returns_a_record_and_keeps_the_function_callable():
    @implementation("mine", deviations=(), min_grade="B")
    def mine(value: int) -> int:
        """Twice."""
        return 2 * value

    assert isinstance(mine, Implementation)
    assert mine.summary == "Twice."
    assert mine.min_grade is Grade.B
    assert mine(4) == 8
    with pytest.raises(dataclasses.FrozenInstanceError):
        mine.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "<b>", "é"])
def test_a_name_of_other_characters_is_refused(name: str):
    with pytest.raises(UsageError, match="must match"):
        implementation(name)(lambda: None)


def test_grades_order_from_best_to_worst():
    assert Grade.worst([Grade.A, Grade.B_MINUS, Grade.B]) is Grade.B_MINUS
    assert Grade.worst([]) is None
    assert [str(grade) for grade in Grade] == ["A", "B", "B-", "H", "C", "FAIL"]


def test_only_three_statuses_are_not_wrong():
    assert {status for status in Status if not status.is_wrong} == {Status.PASSED, Status.UNSUPPORTED, Status.SKIPPED}


def test_an_axis_is_read_from_text():
    assert read_axis("dims", "4x5") == (4, 5)
    assert read_axis("target_grad", "yes") is True
    with pytest.raises(UsageError, match="target-grad must be yes or no, got 'maybe'"):
        read_axis("target_grad", "maybe")
