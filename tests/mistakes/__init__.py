"""Losses that are wrong on purpose and losses that are right: by them the judge itself is judged.

`WRONG` holds at least three implementations of each of 25 classes of bugs that implementations of this loss have had;
`RIGHT` holds correct ones of very different style. All take the arguments of `torch.nn.functional.cross_entropy`.
A wrong one is right outside its bug, every option included, so that nothing but its bug can give it away.
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

__all__ = ["CLASSES", "RIGHT", "WRONG", "Mistake", "Right"]

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

CLASSES: Final[Mapping[int, str]] = dict(
    enumerate(
        (
            "mean denominator",
            "degenerate reduction",
            "output contract",
            "upstream gradient",
            "ignore_index",
            "input validation",
            "label smoothing",
            "class weights",
            "probability targets",
            "class axis and memory layout",
            "unstable softmax",
            "cancellation",
            "low-precision accumulation",
            "silent downcast, wrong constant",
            "forward and backward disagree",
            "block handling",
            "index width",
            "index bounds",
            "ties",
            "non-finite values",
            "side effects",
            "hidden state",
            "repeatability",
            "second and double backward",
            "sign, double softmax, wrong reduction",
        ),
        start=1,
    )
)
"""The classes of bugs by their numbers."""
WRONG: Final[Mapping[str, Mistake]] = {mistake.name: mistake for theme in _THEMES for mistake in theme.MISTAKES}
"""Every mistake by its name."""
RIGHT: Final[Mapping[str, Right]] = {entry.name: entry for entry in right.RIGHT}
"""Every right loss by its name."""
