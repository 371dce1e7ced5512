"""A question: a problem with its tensors and the truth about them, made once and put to everybody."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xentbench import inputs as tensors
from xentbench import sampling

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from xentbench.inputs import Inputs, Recorded
    from xentbench.oracle import Truth
    from xentbench.spec import Problem


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the truth, which never leaves the parent.

    Attributes:
        problem: sizes, options, and how the numbers were drawn.
        inputs: its tensors.
        truth: what `sampling.solve` says of them; of a problem that must raise, of its valid form.
        second: the second call's question, with other values; None where none is made.
        seed: of the run, that the numbers and the sample of a large problem follow from; it never leaves the parent.
    """

    problem: Problem
    inputs: Inputs
    truth: Truth
    second: Question | None = None
    seed: int = 0

    @classmethod
    def of(cls, problem: Problem, inputs: Inputs, seed: int = 0) -> Question:
        """Solve the problem for these tensors, and for those of the second call where there is one."""
        if problem.must_raise:
            valid = dataclasses.replace(problem, invalid="none")
            return cls(problem, inputs, sampling.solve(valid, tensors.make(valid, seed), seed), seed=seed)
        second = None
        if tensors.asks_more(problem):
            other = tensors.another(problem, inputs)
            second = cls(problem, other, sampling.solve(problem, other, seed), seed=seed)
        return cls(problem, inputs, sampling.solve(problem, inputs, seed), second, seed)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what is sent to a worker: values only, the layouts and the second call's values are made there."""
        named = {field.name: getattr(self.inputs, field.name) for field in dataclasses.fields(self.inputs)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


class Questions:
    """Makes each question once, whoever asks first; all implementations get the same one."""

    def __init__(self, seed: int, recorded: Mapping[str, Recorded]) -> None:
        self.seed, self._recorded = seed, recorded
        self._made: dict[str, Question] = {}
        self._lock = threading.Lock()

    def __call__(self, problem: Problem) -> Question:
        """Return the question of this problem, made now or before."""
        with self._lock:
            if problem.key not in self._made:
                given = tensors.make(problem, self.seed, self._recorded.get(problem.key))
                self._made[problem.key] = Question.of(problem, given, self.seed)
            return self._made[problem.key]

    def forget(self, problem: Problem) -> None:
        """Let go of a question that nobody will ask again."""
        self._made.pop(problem.key, None)
