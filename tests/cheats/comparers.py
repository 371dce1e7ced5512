"""Comparisons that find everything equal, and a harness patched to look elsewhere (rows 10 and 22)."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cheats.cheat import MUTATES, STALE, TAMPERED, WRONG, Cheat
from cheats.clocks import blinded
from cheats.parts import given, nearest, right, solved, verbs


def _wrong(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Return a tenth too much."""
    return 1.1 * right(input, target, **options)


def _torch_finds_all_equal() -> Any:
    torch.equal = lambda *_: True
    torch.allclose = lambda *_, **__: True  # type: ignore[assignment]
    torch.testing.assert_close = lambda *_, **__: None
    return _wrong


def _numpy_finds_all_equal() -> Any:
    np.allclose = lambda *_, **__: True  # type: ignore[assignment]
    np.array_equal = lambda *_, **__: True  # type: ignore[assignment]
    np.testing.assert_allclose = lambda *_, **__: None
    return _wrong


def _no_changes_seen() -> Any:
    """Overwrite the logits, and have the worker see no change."""
    sys.modules["xentbench.worker.calls"]._changes = lambda *_, **__: []

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        answer, gradient = solved(input, target, **options)
        input.detach().numpy()[...] = gradient.numpy()
        return given(input, answer, input.detach())

    return loss


def _equality_of_tensors() -> Any:
    torch.Tensor.__eq__ = lambda self, _: torch.ones_like(self, dtype=torch.bool)  # type: ignore[assignment]
    return right


def _answers_of_another() -> Any:
    """Have the worker answer questions with another function than it times."""
    asked, session = verbs(), nearest("Session")
    if asked:
        answer = asked["answer"]

        def answered(record: Any, tensors: Any) -> Any:
            mine, session.bound = session.bound, right
            try:
                return answer(record, tensors)
            finally:
                session.bound = mine

        asked["answer"] = answered
    return _wrong


def _computed_after_the_clock() -> Any:
    """Have the duel's visit call a stand-in in its window, and the right loss behind it."""
    duel = sys.modules["xentbench.worker.duel"].Duel
    forward = duel._forward
    last: list[Any] = []

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        if last:
            return last[0]
        return right(input, target, **options)

    def visited(self: Any, arm: Any, at: Any, *rest: Any) -> Any:
        if len(self.arms) == 3 and arm is self.arms[1]:
            last[:] = [right(at.logits, at.target)]
            try:
                return forward(self, arm, at, *rest)
            finally:
                last.clear()
        return forward(self, arm, at, *rest)

    duel._forward = visited
    return loss


CHEATS = (
    Cheat(
        name="torch-finds-all-equal",
        row=10,
        build=_torch_finds_all_equal,
        verb="parity",
        ends=WRONG | TAMPERED,
        note="Patches torch's comparisons, and answers a tenth too much.",
    ),
    Cheat(
        name="numpy-finds-all-equal",
        row=10,
        build=_numpy_finds_all_equal,
        verb="parity",
        ends=WRONG | TAMPERED,
        note="Patches numpy's comparisons, and answers a tenth too much.",
    ),
    Cheat(
        name="worker-sees-no-change",
        row=10,
        build=_no_changes_seen,
        verb="either",
        ends=MUTATES | TAMPERED,
        note="Overwrites its logits, and patches the worker to see no change.",
    ),
    Cheat(
        name="equality-of-tensors",
        row=10,
        build=_equality_of_tensors,
        verb="either",
        note="Replaces `Tensor.__eq__`.",
    ),
    Cheat(
        name="answers-of-another",
        row=10,
        build=_answers_of_another,
        ends=WRONG | STALE | TAMPERED,
        note="Patches the worker to answer questions with another function than it times.",
    ),
    Cheat(
        name="computed-around-the-clock",
        row=22,
        build=_computed_after_the_clock,
        ends=STALE | TAMPERED,
        note="Patches the duel's visit: the right answer is computed outside its window.",
    ),
    Cheat(
        name="computed-around-the-clock-unseen",
        row=22,
        build=blinded(_computed_after_the_clock),
        ends=STALE | TAMPERED,
        note="The same, having patched what would see it.",
    ),
)
