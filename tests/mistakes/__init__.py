"""Losses that are wrong on purpose and losses that are right: by them the judge itself is judged.

`WRONG` holds at least three implementations of each of 25 classes of bugs that implementations of this loss have had;
`RIGHT` holds correct ones of very different style. All take the arguments of `torch.nn.functional.cross_entropy`.
A wrong one is right outside its bug, every option included, so that nothing but its bug can give it away.

The classes: 1 mean denominator, 2 degenerate reduction, 3 output contract, 4 upstream gradient, 5 ignore_index,
6 input validation, 7 label smoothing, 8 class weights, 9 probability targets, 10 class axis and memory layout,
11 unstable softmax, 12 cancellation, 13 low-precision accumulation, 14 silent downcast or wrong constant, 15 forward
and backward disagree, 16 block handling, 17 index width, 18 index bounds, 19 ties, 20 non-finite values, 21 side
effects, 22 hidden state, 23 repeatability, 24 second backward and double backward, 25 sign, double softmax, reduction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xentbench.mistakes import (
    blocks,
    denominators,
    gradients,
    graphs,
    layouts,
    outputs,
    precision,
    right,
    smoothing,
    softmaxes,
    states,
    targets,
    validation,
)
from xentbench.mistakes.mistake import Mistake, Right

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RIGHT", "WRONG", "Mistake", "Right"]

_THEMES = (
    denominators,
    outputs,
    gradients,
    targets,
    validation,
    smoothing,
    layouts,
    softmaxes,
    precision,
    blocks,
    states,
    graphs,
)

WRONG: Final[Mapping[str, Mistake]] = {mistake.name: mistake for theme in _THEMES for mistake in theme.MISTAKES}
"""Every mistake by its name."""
RIGHT: Final[Mapping[str, Right]] = {entry.name: entry for entry in right.RIGHT}
"""Every right loss by its name."""
