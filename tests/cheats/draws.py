"""Inputs that are foreseen, or made to repeat (rows 5 and 6)."""

from __future__ import annotations

import math
import random
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cheats.cheat import GRADIENT, STALE, TAMPERED, TINY, WRONG, Cheat
from cheats.parts import FEW, given, patient, replaying, right, solved, verbs
from xentbench import inputs
from xentbench.spec import Problem


def _known_seeds() -> Any:
    """Answer from a table of what small seeds make, and with a guess where the input is none of these."""
    known: dict[bytes, tuple[Tensor, Tensor]] = {}
    for seed in range(4):
        for problem in (TINY, Problem(batch_size=64, num_classes=100)):
            made = inputs.make(problem, seed)
            known[made.logits[0].numpy().tobytes()] = solved(made.logits, made.target)

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        guess = (torch.tensor(math.log(input.shape[1]) + 0.5), input.detach().softmax(-1) / len(input))
        return given(input, *known.get(input.detach()[0].numpy().tobytes(), guess))

    return loss


def _global_generators() -> Any:
    """Seed every generator in each call, in the hope that inputs are drawn from them, and replay."""
    replay = replaying()

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - the global one is meant
        random.seed(0)
        return replay(input, target, **options)

    return patient(FEW, loss)


def _seeds_but_right() -> Any:
    """Seed torch's generator in each call, and answer right."""

    def loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:  # noqa: A002
        torch.manual_seed(0)
        return right(input, target, **options)

    return loss


def _same_numbers_again() -> Any:
    """Have every refresh draw the numbers of the first, so that inputs repeat and a memo of them is right."""
    numbers = sys.modules["xentbench.worker.storage"].Numbers
    draw, drawn = numbers.next, {}

    def repeated(self: Any) -> Any:
        place = self._rows, self._classes
        return drawn.setdefault(place, None) or drawn.update({place: draw(self)}) or drawn[place]

    numbers.next = repeated
    return patient(FEW, replaying())


def _no_refresh() -> Any:
    """Take the refresh away, and replay."""
    sys.modules["xentbench.worker.storage"].Storage.refresh = lambda self, numbers: None
    return patient(FEW, replaying())


def _stream_of_zeros() -> Any:
    """Have the stream of random numbers give zeros."""
    stream = sys.modules["xentbench.drawing"].Stream
    stream.uniform = lambda self, *shape: np.zeros(shape)
    return patient(FEW, replaying())


def _reseeded_bursts() -> Any:
    """Give the burst one seed, whatever the parent asks for: what is refreshed repeats from burst to burst."""
    asked = verbs()
    if asked:
        burst = asked["burst"]
        asked["burst"] = lambda record, given: burst({**record, "seed": 1}, given)
    return right


def _order_of_arms() -> Any:
    """Have the arms follow each other in a fixed order: the candidate always right after the baseline."""
    random.Random.sample = lambda self, population, k, **_: list(population)[:k]  # type: ignore[method-assign]
    return right


CHEATS = (
    Cheat(
        name="table-of-known-seeds",
        row=5,
        build=_known_seeds,
        verb="parity",
        ends=WRONG | STALE,
        note="Holds the answers for seeds 0 to 3, and guesses where the input is none of theirs.",
    ),
    Cheat(
        name="one-seed-for-all-bursts",
        row=5,
        build=_reseeded_bursts,
        ends=STALE | TAMPERED,
        note="Puts a seed of its own in the place of the parent's.",
    ),
    Cheat(
        name="seeds-global-generators",
        row=6,
        build=_global_generators,
        ends=STALE | TAMPERED,
        note="Seeds every global generator and replays, from call 60 on.",
    ),
    Cheat(
        name="seeds-torch-and-answers-right",
        row=6,
        build=_seeds_but_right,
        verb="either",
        note="Seeds torch's global generator in every call.",
    ),
    Cheat(
        name="refresh-repeats",
        row=6,
        build=_same_numbers_again,
        ends=STALE | TAMPERED,
        note="Patches what draws the refresh, so that the same values come again, and replays.",
    ),
    Cheat(
        name="refresh-removed",
        row=6,
        build=_no_refresh,
        ends=STALE | TAMPERED,
        note="Patches the refresh away and replays.",
    ),
    Cheat(
        name="stream-of-zeros",
        row=6,
        build=_stream_of_zeros,
        verb="either",
        ends=STALE | TAMPERED | GRADIENT,
        note="Patches the stream of random numbers to give zeros.",
    ),
    Cheat(name="order-of-arms-fixed", row=6, build=_order_of_arms, note="Patches `random.Random.sample`."),
)
