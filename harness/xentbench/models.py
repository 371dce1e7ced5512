"""The two small models that are trained here, as functions of their weights, and what one is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

Weights = Sequence[torch.Tensor]
Model = Callable[[Weights, torch.Tensor], torch.Tensor]


def classifier(weights: Weights, rows: torch.Tensor) -> torch.Tensor:
    """Return the logits of the classic tutorial's classifier, `d → hidden → C` with ReLU.

    Args:
        weights: first layer `(d, hidden)`, second layer `(hidden, C)`, their shifts `(hidden,)` and `(C,)`.
        rows: floating, `(N, d)`.

    Returns:
        `(N, C)`.
    """
    first, second, *shifts = weights
    return torch.relu(rows @ first + shifts[0]) @ second + shifts[1]


def language_model(weights: Weights, context: torch.Tensor) -> torch.Tensor:
    """Return the logits of the next word, by a network of the preceding ones (Bengio et al. 2003; Press and Wolf 2017).

    Args:
        weights: embedding `(words, width)`, of input and output alike; mixing `(preceding * width, width)`, its shift
            `(width,)`, and a shift for each word, `(words,)`.
        context: numbers of the preceding words, int64 `(N, preceding)`.

    Returns:
        `(N, words)`.
    """
    words, mixing, shift, common = weights
    return torch.tanh(words[context].flatten(1) @ mixing + shift) @ words.T + common


MODELS: Final[Mapping[str, Model]] = {"digits": classifier, "text": language_model}
"""By the name of the workload that each belongs to."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One training, in full: whoever has it draws nothing, so all who train by it differ in their loss alone.

    Attributes:
        name: of the workload, and so of the model.
        weights: that training starts from; never written to.
        inputs: of every step, `(steps, N, …)`.
        target: of every step, int64 `(steps, N)`.
        rate: of the first step; falls linearly to zero.
        momentum: of the gradients.
    """

    name: str
    weights: tuple[torch.Tensor, ...]
    inputs: torch.Tensor
    target: torch.Tensor
    rate: float
    momentum: float

    @property
    def model(self) -> Model:
        """The model, as a function of weights and inputs."""
        return MODELS[self.name]

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.target)

    def logits(self, weights: Weights, step: int) -> torch.Tensor:
        """Return the logits of a step's batch, `(N, C)`."""
        return self.model(weights, self.inputs[step])
