"""How far apart right losses train: what the baseline's training is, and what others may come to.

Several trainings of one lesson are made here: by `F.cross_entropy`, by losses that are right in another way, and by
ones whose every gradient is off by as much as the judge puts down to rounding. What is allowed is `FACTOR` times the
largest distance of any of these from the baseline's, and what float32 cannot tell apart: docs/training.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn import functional

from xentbench import bounds, inputs, oracle
from xentbench.inputs import Recorded
from xentbench.rows import blocks
from xentbench.spec import UNIT_ROUNDOFF, Grade, Problem
from xentbench.worker.training import Progress, train

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from xentbench.models import Lesson
    from xentbench.trained import Course
    from xentbench.worker.calls import Loss

    Array = npt.NDArray[np.float64]
    Push = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

FACTOR: Final = 2.0
"""Times what the trainings made here come to; some twenty losses that are right use a tenth of it."""
FLOOR: Final = 4.0 * UNIT_ROUNDOFF["float32"]
"""Of a loss or a weight relative to its size: float32 cannot tell these apart."""
ROWS: Final = 16
"""Of a batch, from which the rounding error of its gradient is taken."""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a training is from the baseline's.

    Attributes:
        losses: of every step, the difference of the true losses, `(steps,)`.
        weights: of every weight, the Euclidean norm of the difference at the end.
    """

    losses: Array
    weights: Array


@dataclass(frozen=True, slots=True)
class Rounding:
    """How far a step may be off by rounding alone: its loss, and its gradient's entries in units of `(p + y) / N`."""

    loss: float
    gradient: float


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The baseline's training, and what others may be apart from it.

    Attributes:
        course: what is trained.
        baseline: by `F.cross_entropy`.
        allowed: distance that passes.
        reporting: how far the loss that is reported may be from the true one, `(steps,)`.
        seen: largest distance in loss, and in weights relative to the way they went, of each training made here.
    """

    course: Course
    baseline: Progress
    allowed: Distance
    reporting: Array
    seen: Mapping[str, tuple[float, float]]

    @property
    def problem(self) -> Problem:
        """The loss of one step, as a problem."""
        return problem_of(self.course.lesson)

    @property
    def band(self) -> tuple[Array, Array]:
        """Lower and upper end of what a curve may come to."""
        losses = self.baseline.losses.numpy()
        return losses - self.allowed.losses, losses + self.allowed.losses

    def ratios(self, progress: Progress) -> tuple[Array, Array]:
        """Return a training's distance in units of what is allowed: of every step, of every weight; inf for NaN."""
        far = distance(progress, self.baseline)
        return _ratio(far.losses, self.allowed.losses), _ratio(far.weights, self.allowed.weights)

    def misreports(self, progress: Progress) -> Array:
        """Return how far each reported loss is from the true one of its step, in units of what is allowed."""
        return _ratio(np.abs(progress.reported.numpy() - progress.losses.numpy()), self.reporting)

    def held_out(self, weights: Sequence[torch.Tensor]) -> tuple[float, float]:
        """Return loss and accuracy of a model with these weights on rows that it was not trained on."""
        with torch.no_grad():
            logits = self.course.lesson.model(weights, self.course.held_inputs).double()
            loss = functional.cross_entropy(logits, self.course.held_target)
            right = logits.argmax(1) == self.course.held_target
        return float(loss), float(right.double().mean())


def problem_of(lesson: Lesson) -> Problem:
    """Return the loss of one step, as a problem."""
    rows, classes = lesson.logits(lesson.weights, 0).shape
    return Problem(batch_size=rows, num_classes=classes)


def distance(progress: Progress, baseline: Progress) -> Distance:
    """Return how far a training is from another one of the same lesson."""
    pairs = zip(progress.weights, baseline.weights, strict=True)
    return Distance(
        np.abs(progress.losses.numpy() - baseline.losses.numpy()),
        np.array([_norm(one.double() - other.double()) for one, other in pairs]),
    )


def baseline(lesson: Lesson) -> Progress:
    """Return the training by `F.cross_entropy`."""
    return train(lesson, functional.cross_entropy)


def members(lesson: Lesson, by: Progress) -> dict[str, Loss]:
    """Return the other losses that a lesson is trained by here, right ones and those that are off by rounding.

    Args:
        lesson: to be trained.
        by: the baseline's training of it.
    """
    share = rounding(lesson, by).gradient
    classes = lesson.logits(lesson.weights, 0).shape[1]
    generator = torch.Generator().manual_seed(0)
    tilt = torch.randint(2, (classes,), generator=generator) * 2.0 - 1.0

    def scattered(gradient: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        return gradient + size * (torch.randint(2, size.shape, generator=generator) * 2.0 - 1.0)

    return {
        "float64": lambda logits, target: functional.cross_entropy(logits.double(), target).float(),
        "logsumexp": lambda logits, target: (logits.logsumexp(1) - logits.gather(1, target[:, None])[:, 0]).mean(),
        "grown": pushed(share, lambda gradient, size: gradient + size * gradient.sign()),
        "tilted": pushed(share, lambda gradient, size: gradient + size * tilt),
        "scattered": pushed(share, scattered),
    }


def pushed(share: float, push: Push) -> Loss:
    """Return the baseline with its gradient `(p - y) / N` replaced by `push(gradient, share (p + y) / N)`."""

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        size = logits.detach().softmax(1)
        size[torch.arange(len(target)), target] += 1.0
        size *= share / len(target)
        logits.register_hook(lambda gradient: push(gradient, size))  # type: ignore[no-untyped-call]
        return functional.cross_entropy(logits, target)

    return loss


def rounding(lesson: Lesson, by: Progress) -> Rounding:
    """Return how far the judge lets loss and gradient of a step be off, by grade B-.

    That is what float32 accumulation explains, a log-sum-exp that is stored before it is subtracted included; taken
    from the first batch at the first weights and from the last one at the last, the larger of the two.
    """
    ends = (_rounding(lesson, lesson.weights, 0), _rounding(lesson, by.weights, lesson.steps - 1))
    return Rounding(max(end.loss for end in ends), max(end.gradient for end in ends))


def _rounding(lesson: Lesson, weights: Sequence[torch.Tensor], step: int) -> Rounding:
    logits, target = lesson.logits(weights, step)[:ROWS], lesson.target[step][:ROWS]
    problem = Problem(batch_size=len(logits), num_classes=logits.shape[1], logits=lesson.name, upstream="one")
    given = inputs.make(problem, 0, Recorded(logits, target, None, ""))
    truth, share = oracle.solve(problem, given), 0.0
    for block in blocks(problem, given):
        lines = bounds.gradient_lines(problem, truth, block, truth.gradient.masked[block.span])
        size = block.exponentials / (1.0 + block.others[:, None]) + block.target
        share = max(share, float((lines[Grade.B_MINUS] * len(logits) / size).max()))
    return Rounding(float(bounds.loss_lines(problem, truth)[Grade.B_MINUS].max()), share)


def tolerance(course: Course, by: Progress, others: Mapping[str, Progress]) -> Tolerance:
    """Return what may be apart from the baseline's training, given the other ones."""
    far = {name: distance(progress, by) for name, progress in others.items()}
    # What was apart once may be apart later: a curve that crosses the baseline's is not near it.
    losses = np.maximum.accumulate(np.max([one.losses for one in far.values()], axis=0))
    weights = np.max([one.weights for one in far.values()], axis=0)
    size, floor = np.array([_norm(weight) for weight in by.weights]), FLOOR * (1.0 + by.losses.numpy())
    pairs = zip(by.weights, course.lesson.weights, strict=True)
    way = np.array([_norm(one.double() - other.double()) for one, other in pairs])
    return Tolerance(
        course,
        by,
        allowed=Distance(FACTOR * losses + floor, FACTOR * weights + FLOOR * size),
        reporting=FACTOR * rounding(course.lesson, by).loss + floor,
        seen={name: (float(one.losses.max()), float((one.weights / way).max())) for name, one in far.items()},
    )


def _ratio(far: Array, allowed: Array) -> Array:
    """Return a distance in units of what is allowed; inf for NaN, which is near nothing."""
    ratio: Array = np.where(np.isfinite(far), far / allowed, np.inf)
    return ratio


def _norm(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.double()))
