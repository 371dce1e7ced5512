"""What holds of every row of a large gradient: each law finds the mistake that nothing else sees."""

import pytest
from hypothesis import given, settings
from large_fixtures import LARGE, gradient_with, judge, nothing_is_small, unsampled
from test_panel import OPTIONS

from xentbench import bounds, inputs, oracle, rows, sampling
from xentbench.spec import Problem, Status

__all__ = ["nothing_is_small"]


def scaled(gradient):
    gradient *= 1.001


def shifted_one_class(gradient):
    gradient.copy_(gradient.roll(1, 1))


def last_rows_unwritten(gradient):
    gradient[-3:] = 0.0


@pytest.mark.parametrize("tamper", [scaled, shifted_one_class, last_rows_unwritten])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_gradients_wrong_in_many_rows_are_found(tamper, reduction):
    problem = Problem(batch_size=300, num_classes=40, reduction=reduction)
    assert judge(gradient_with(tamper), problem).status is Status.WRONG_GRADIENT


def test_label_entry_of_one_row_in_the_middle_is_found_by_its_law():
    (row,) = unsampled(LARGE)
    label = int(inputs.make(LARGE, 0).target[row])

    def tamper(gradient):
        gradient[row, label] *= 1.0001

    verdict = judge(gradient_with(tamper), LARGE)
    assert verdict.status is Status.WRONG_GRADIENT
    assert verdict.reason.startswith(f"gradient[{row}, {label}] is ")
    assert f"1 of {LARGE.rows} numbers are wrong" in verdict.reason


def test_sum_of_one_row_is_found_off():
    (row,) = unsampled(LARGE)
    label = int(inputs.make(LARGE, 0).target[row])

    def tamper(gradient):
        gradient[row, (label + 1) % LARGE.num_classes] += 0.01

    assert judge(gradient_with(tamper), LARGE).reason.startswith(f"sum over classes of gradient[{row}] is 0.0")


def test_swapped_classes_that_no_sum_sees_are_found_by_the_secret_signs():
    chosen = unsampled(LARGE, 30)
    target = inputs.make(LARGE, 0).target

    def tamper(gradient):
        for row in chosen:
            others = [c for c in range(LARGE.num_classes) if c != target[row]]
            gradient[row, others] = gradient[row, others].flip(0)

    assert judge(gradient_with(tamper), LARGE).reason.startswith("sum over classes, with secret signs, of gradient[")


def test_ignored_row_that_gets_a_gradient_is_found():
    places, _ = sampling.draw(LARGE, 0)
    ignored = (inputs.make(LARGE, 0).target == LARGE.ignore_index).nonzero().reshape(-1).tolist()
    row = next(row for row in ignored if row not in places)

    def tamper(gradient):
        gradient[row, 3], gradient[row, 4] = 1e-5, -1e-5

    verdict = judge(gradient_with(tamper), LARGE)
    assert verdict.reason.startswith(f"largest entry of ignored gradient[{row}] is 9.99")


@settings(max_examples=100, deadline=None)
@given(problem=OPTIONS)
def test_allowance_of_a_row_sum_covers_all_its_entries(problem):
    given_ = inputs.make(problem, 0)
    truth = oracle.solve(problem, given_)
    model = bounds.worst_case(rows.COMPUTE_DTYPE[problem.dtype])
    if truth.divisor == 0.0:
        return
    total = bounds.row_sum_error(problem, truth, model)
    for block in rows.blocks(problem, given_):
        entries = bounds.gradient_error(problem, truth, block, model, stored=True).sum(axis=1)
        assert (entries <= total[block.where] * (1.0 + 1e-9)).all()
