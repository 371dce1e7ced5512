"""A course that takes a fraction of a second, for tests of everything that trains."""

from __future__ import annotations

import torch

from xentbench.models import Lesson
from xentbench.trained import Course

STEPS, ROWS, WIDTH, HIDDEN, CLASSES = 40, 16, 8, 12, 5


def small_course(name: str = "digits", seed: int = 0) -> Course:
    """Return a classifier's course on drawn numbers: points around the corners of a cube, one corner a class."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randn(CLASSES, WIDTH, generator=generator)
    target = torch.randint(CLASSES, (STEPS, ROWS), generator=generator)
    inputs = corners[target] + 0.5 * torch.randn(STEPS, ROWS, WIDTH, generator=generator)
    weights = (
        torch.randn(WIDTH, HIDDEN, generator=generator) * 0.3,
        torch.randn(HIDDEN, CLASSES, generator=generator) * 0.3,
        torch.zeros(HIDDEN),
        torch.zeros(CLASSES),
    )
    lesson = Lesson("digits", weights, inputs, target, rate=0.1, momentum=0.9)
    return Course(lesson, inputs[0], target[0])
