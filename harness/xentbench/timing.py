"""The duel seen from the parent: bursts of all workers in random order -> samples -> ratio, interval and verdict.

Interleaving short bursts lets drift of the machine fall on all workers alike. A worker ends when its interval is narrow
enough at one of five looks, or its budget is spent; never because a difference was seen.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xentbench import statistics
from xentbench.measured import Measured, Regime, deciding, summarise
from xentbench.replies import Reply
from xentbench.spec import Phase
from xentbench.worker.visits import CANDIDATE, SLOTS
from xentbench.workers import WorkerError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from xentbench.lanes import Lane
    from xentbench.witness import Witness


PLANTED: Final = 0.25
"""Share of the bursts in which a worker's watch is tried: it has to tell of a change that is made up. Once at least."""
REPEATED: Final = 0.25
"""Share of the bursts after which two calls of the candidate are made side by side; once at least."""
BURST: Final = {"budget_s": 0.025, "least_rounds": 4, "most_rounds": 20_000}
"""Length of a burst: shorter ones interleave better, and spend more of the time on setting themselves up."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one worker may spend on one cell.

    Attributes:
        seconds: of bursts, on the parent's clock.
        half_width: at which a worker's interval is narrow enough to stop (0.01 is 1 %).
        warm_calls: untimed calls of each arm before the first burst.
        warm_s: at which warming ends even so.
    """

    seconds: float
    half_width: float
    warm_calls: int = 200
    warm_s: float = 0.005


def duel(
    lanes: Sequence[Lane],
    phase: Phase,
    budget: Budget,
    order: random.Random,
    now_s: Callable[[], float],
    regime: Regime | None = None,
) -> dict[str, Measured]:
    """Measure one group: every implementation's cell of one problem and phase, their bursts interleaved at random.

    Args:
        lanes: one for each worker of each implementation, already set up for the problem.
        phase: what is timed.
        budget: of each lane.
        order: source of the order and of the bursts' seeds.
        now_s: the parent's clock.
        regime: conditions of the group; hot caches, one thread and a kept heap unless given.
    """
    regime = regime or Regime()
    warming = {"warm_calls": budget.warm_calls, "warm_s": budget.warm_s, "pool_bytes": regime.pool_bytes}
    for lane in lanes:
        if answer := _ask(lane, "begin", {"phase": phase, **warming}):
            lane.began(answer[0])
    while active := [lane for lane in lanes if not lane.done]:
        for lane in order.sample(active, len(active)):
            _burst(lane, phase, order, now_s)
            _look(lane, budget, regime)
            if lane.error is not None:  # the cell has ended: its other workers need not go on
                for other in lanes:
                    other.done |= other.name == lane.name
    for lane in lanes:
        lane.settle()
        _listen(lane)
    names = dict.fromkeys(lane.name for lane in lanes)
    return {name: summarise([lane for lane in lanes if lane.name == name], regime) for name in names}


def _listen(lane: Lane) -> None:
    """End a lane whose worker has written what nobody asked for."""
    try:
        if lane.error is None:
            lane.worker.check_silence("burst")
    except WorkerError as error:
        lane.end(error)


def _burst(lane: Lane, phase: Phase, order: random.Random, now_s: Callable[[], float]) -> None:
    """Ask for one burst, and judge what was answered: the next one's seed is not drawn before that is known."""
    seed, worked_s, start_s, asked_ns = order.getrandbits(63), lane.worker.cpu_s(), now_s(), time.perf_counter_ns()
    repeat, plant = lane.is_enough or order.random() < REPEATED, lane.is_enough or order.random() < PLANTED
    planted = f"planted {order.getrandbits(32)}" if plant else ""
    lane.repeated, lane.planted = lane.repeated or repeat, lane.planted or plant
    answer = _ask(lane, "burst", {"seed": seed, "repeat": repeat, "planted": planted, **BURST})
    lane.spent_s += now_s() - start_s
    lane.system_s += lane.worker.cpu_s() - worked_s
    if answer is None:
        return
    try:
        reply = Reply.read(*answer)
        lane.take(reply)
        reply.check(planted, asked_ns)
        if lane.witness is not None:
            _judge(lane, lane.witness, phase, seed, order.randrange(SLOTS))
    except WorkerError as error:
        lane.end(error)


def _judge(lane: Lane, witness: Witness, phase: Phase, seed: int, slot: int) -> None:
    """Hold what the last burst answered against what it had to be; raises WorkerError."""
    witness.losses(seed, lane.bursts[-1].losses)
    if phase in (Phase.BACKWARD, Phase.FORWARD_BACKWARD):
        _, kept = lane.worker.ask("gradient", {"slot": slot})
        rows = kept.get("gradient")
        witness.gradient(seed, slot, None if rows is None else rows.double().numpy())


def _ask(lane: Lane, verb: str, record: dict[str, Any]) -> Any:  # noqa: ANN401 - a reply, or None after an error
    try:
        return lane.worker.ask(verb, record)
    except WorkerError as error:
        lane.end(error)
        return None


def _look(lane: Lane, budget: Budget, regime: Regime) -> None:
    """End the lane when its budget is spent, or when its interval is narrow enough at one of the looks."""
    spent = lane.spent_s / budget.seconds if budget.seconds > 0 else 1.0
    looks = statistics.next_look(spent, lane.looks)
    if lane.done:
        return
    if looks is not None:
        lane.looks = looks
        logs = lane.logs(CANDIDATE, deciding([lane], regime))
        narrow = statistics.median_interval(np.concatenate(logs)).half_width <= budget.half_width
        lane.is_enough |= spent >= 1.0 or narrow
    # On a busy machine a cell may have two bursts: what chance left out comes in one more.
    lane.done = lane.is_enough and lane.repeated and lane.planted
