"""How far apart right losses train, found by training: who is within it, and who is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from training_fixtures import small_course

from xentbench import mistakes, tolerances
from xentbench.spec import UNIT_ROUNDOFF
from xentbench.threads import one_thread
from xentbench.tolerances import Tolerance
from xentbench.worker.training import train


def made(seed: int = 0) -> Tolerance:
    course = small_course(seed=seed)
    with one_thread():
        own = tolerances.baseline(course.lesson)
        others = {name: train(course.lesson, loss) for name, loss in tolerances.members(course.lesson, own).items()}
        return tolerances.tolerance(course, own, others)


@pytest.fixture(scope="module")
def tolerance() -> Tolerance:
    return made()


def far(tolerance: Tolerance, loss) -> float:
    """Return the largest distance in units of what is allowed, curve and weights alike."""
    with one_thread():
        losses, weights = tolerance.ratios(train(tolerance.course.lesson, loss))
    return float(max(losses.max(), weights.max()))


def test_the_baseline_is_at_no_distance_from_itself(tolerance: Tolerance):
    assert far(tolerance, functional.cross_entropy) == 0.0
    low, high = tolerance.band
    assert (low < tolerance.baseline.losses.numpy()).all()
    assert (high > tolerance.baseline.losses.numpy()).all()


@pytest.mark.parametrize("name", mistakes.RIGHT)
def test_a_right_loss_of_whatever_style_uses_a_small_part_of_what_is_allowed(tolerance: Tolerance, name: str):
    assert far(tolerance, mistakes.RIGHT[name].loss) < 0.25


def test_the_trainings_that_it_is_made_from_lie_within_half_of_it(tolerance: Tolerance):
    lesson = tolerance.course.lesson
    for loss in tolerances.members(lesson, tolerance.baseline).values():
        assert far(tolerance, loss) <= 1.0 / tolerances.FACTOR


@pytest.mark.parametrize("share", [1e-2, 1e-3, -1e-3])
@pytest.mark.parametrize("seed", range(3))
def test_a_gradient_that_is_a_little_too_large_or_small_is_outside(share: float, seed: int):
    assert far(made(seed), lambda logits, target: functional.cross_entropy(logits, target) * (1.0 + share)) > 2.0


@pytest.mark.parametrize("name", ["sum-for-mean", "gradient-negated", "gradient-zero", "label-0-without-pull"])
def test_known_mistakes_are_outside(tolerance: Tolerance, name: str):
    assert far(tolerance, mistakes.WRONG[name].loss) > 10.0


def test_nan_is_near_nothing(tolerance: Tolerance):
    assert far(tolerance, lambda logits, target: functional.cross_entropy(logits, target) * torch.nan) == np.inf


def test_what_was_allowed_once_is_allowed_later_but_for_the_size_of_the_loss(tolerance: Tolerance):
    floor = tolerances.FLOOR * (1.0 + tolerance.baseline.losses.numpy())
    assert (np.diff(tolerance.allowed.losses - floor) >= -1e-15).all()
    assert (tolerance.allowed.losses >= floor).all()


def test_the_rounding_of_a_gradient_is_that_of_the_judge(tolerance: Tolerance):
    rounding = tolerances.rounding(tolerance.course.lesson, tolerance.baseline)
    unit = UNIT_ROUNDOFF["float32"]
    assert 5 * unit < rounding.gradient < 1000 * unit
    assert unit < rounding.loss < 1000 * unit


def test_a_push_moves_every_entry_by_its_share(tolerance: Tolerance):
    logits = torch.randn(6, 4, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 0, 1])
    (right,) = torch.autograd.grad(functional.cross_entropy(logits, target), logits)
    (moved,) = torch.autograd.grad(tolerances.pushed(1e-2, lambda g, size: g + size)(logits, target), logits)
    size = (logits.softmax(1) + functional.one_hot(target, 4)) / 6
    assert torch.allclose(moved - right, 1e-2 * size, atol=1e-7)


def test_a_loss_that_reports_what_is_not_so_is_seen_though_it_trains_right(tolerance: Tolerance):
    lesson = tolerance.course.lesson
    progress = train(lesson, lambda logits, target: functional.cross_entropy(logits, target) + 1e-3)
    assert max(ratios.max() for ratios in tolerance.ratios(progress)) == 0.0
    assert tolerance.misreports(progress).max() > 10.0
    assert tolerance.misreports(tolerance.baseline).max() < 0.5


def test_held_out_rows_are_looked_at_with_the_weights_that_came_back(tolerance: Tolerance):
    before = tolerance.held_out(tolerance.course.lesson.weights)
    after = tolerance.held_out(tolerance.baseline.weights)
    assert after[0] < before[0]
    assert after[1] > 0.9
