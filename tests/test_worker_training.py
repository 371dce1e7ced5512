"""The loop that trains with a loss: what it computes, what it notices, what it leaves alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from training_fixtures import STEPS, small_course

from xentbench.worker.training import call_once, train


@pytest.fixture(scope="module")
def lesson():
    return small_course().lesson


def test_the_model_learns_and_the_lesson_stays_as_it_was(lesson):
    before = [weight.clone() for weight in lesson.weights]
    progress = train(lesson, functional.cross_entropy)
    assert progress.losses[-5:].mean() < 0.3 * progress.losses[:5].mean()
    assert torch.allclose(progress.losses, progress.reported, atol=1e-6)
    assert all(map(torch.equal, lesson.weights, before))
    assert not any(map(torch.equal, progress.weights, before))
    assert progress.changed == ()


def test_the_same_lesson_comes_to_the_same_bytes(lesson):
    one, other = (train(lesson, functional.cross_entropy) for _ in range(2))
    assert torch.equal(one.losses, other.losses)
    assert all(map(torch.equal, one.weights, other.weights))


@settings(deadline=None, max_examples=10)
@given(st.integers(-3, 2))
def test_a_factor_on_the_gradient_is_a_factor_on_the_rate(power: int):
    lesson, factor = small_course(seed=power).lesson, 2.0**power
    scaled = train(lesson, lambda logits, target: factor * functional.cross_entropy(logits, target))
    faster = train(dataclasses.replace(lesson, rate=lesson.rate * factor), functional.cross_entropy)
    assert torch.equal(scaled.losses, faster.losses)
    assert torch.equal(scaled.reported, factor * faster.reported)


def test_it_goes_downhill_as_torchs_own_optimiser_does(lesson):
    weights = [weight.clone().requires_grad_() for weight in lesson.weights]
    optimiser = torch.optim.SGD(weights, lr=lesson.rate, momentum=lesson.momentum)
    for step in range(lesson.steps):
        optimiser.param_groups[0]["lr"] = lesson.rate * (1.0 - step / lesson.steps)
        optimiser.zero_grad()
        functional.cross_entropy(lesson.logits(weights, step), lesson.target[step]).backward()
        optimiser.step()
    progress = train(lesson, functional.cross_entropy)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(weights, progress.weights, strict=True))


def test_the_curve_tells_the_true_loss_whatever_is_reported(lesson):
    right = train(lesson, functional.cross_entropy)
    shifted = train(lesson, lambda logits, target: functional.cross_entropy(logits, target) + 7.0)
    assert torch.equal(shifted.losses, right.losses)
    assert torch.allclose(shifted.reported, right.reported + 7.0)


def test_what_a_loss_writes_to_is_named_with_the_first_step(lesson):
    calls = iter(range(STEPS))

    def tramples(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss, step = functional.cross_entropy(logits, target), next(calls)
        if step >= 3:
            target.data[0] = 0
        if step >= 5:
            logits.data.zero_()
        return loss

    assert set(train(lesson, tramples).changed) == {"target at step 3", "logits at step 5"}


def test_a_nan_that_was_there_before_is_no_change(lesson):
    poisoned = dataclasses.replace(lesson, weights=(lesson.weights[0] * torch.nan, *lesson.weights[1:]))
    progress = train(poisoned, functional.cross_entropy)
    assert progress.changed == ()
    assert progress.losses.isnan().all()


def test_no_step_begins_when_the_time_is_over(lesson):
    progress = train(lesson, functional.cross_entropy, budget_s=-1.0)
    assert len(progress.losses) == len(progress.reported) == 0
    assert all(map(torch.equal, progress.weights, lesson.weights))


def test_the_call_before_it_is_one_forward_and_backward_of_the_first_batch(lesson):
    shapes = []

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        shapes.append((tuple(logits.shape), tuple(target.shape), logits.requires_grad))
        return functional.cross_entropy(logits, target)

    call_once(lesson, loss)
    train(lesson, loss)
    assert len(shapes) == STEPS + 1
    assert len(set(shapes)) == 1
