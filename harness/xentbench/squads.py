"""Everybody who is timed together: the crews of many implementations, in one regime of the allocator or in two.

All workers of a problem and phase take turns, burst by burst; the default allocator, where it is timed beside the kept
heap, has workers of its own and its own turns right after.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from xentbench import timing
from xentbench.challenge import Challenge
from xentbench.inputs import timed_seed
from xentbench.lanes import Lane
from xentbench.measured import beside_others
from xentbench.spec import Problem
from xentbench.witness import Witness
from xentbench.workers import WorkerError, stoppable

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import TracebackType

    from xentbench.crews import Crew
    from xentbench.inputs import Inputs, Recorded
    from xentbench.measured import Measured, Regime
    from xentbench.spec import Phase
    from xentbench.timing import Budget

PARALLEL: Final = 2
"""Workers that may be busy at once while nothing is timed."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One cell as it was timed: what was measured, the lanes with every raw time, and the same with a cold heap."""

    measured: Measured
    lanes: tuple[Lane, ...]
    cold: Measured | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields as the journal takes them."""
        if self.cold is None:
            return self.measured.fields()
        cold = self.cold.fields()
        names = {"ratio": "ratio", "ratio_low": "low", "ratio_high": "high", "latency_s": "latency_s"}
        names |= {"minor_faults": "minor_faults", "reason": "reason"}
        return {**self.measured.fields(), **{f"cold_{short}": cold[name] for name, short in names.items()}}


class Squad:
    """Crews by regime of the allocator; the first regime is the run's own, a second one is shown beside it."""

    def __init__(self, crews: Mapping[str, Sequence[Crew]]) -> None:
        self._own, *self._beside = (list(several) for several in crews.values())
        self._challenge: Challenge | None = None

    @property
    def _all(self) -> list[Crew]:
        return [*self._own, *(crew for several in self._beside for crew in several)]

    def start(self) -> None:
        """Start and load all workers; one that cannot load says so again, as an error, when its first problem comes."""

        def load(crew: Crew) -> None:
            with contextlib.suppress(WorkerError):
                crew.load()

        for crew in self._all:
            crew.start()
        with stoppable(PARALLEL) as pool:
            list(pool.map(load, self._all))

    def set_up(
        self, names: Collection[str], key: str, seed: int, phases: Sequence[Phase], recorded: Recorded | None
    ) -> dict[str, WorkerError]:
        """Set a problem up in every worker of the named implementations; return who failed, and how."""
        crews = [crew for crew in self._all if crew.entry.name in names]
        self._challenge = Challenge(Problem.parse(key), timed_seed(seed), recorded)
        for crew in crews:
            crew.start()
        with stoppable(PARALLEL) as pool:
            errors = list(pool.map(lambda crew: crew.set_up(key, seed, phases, recorded), crews))
        return {crew.entry.name: error for crew, error in zip(crews, errors, strict=True) if error is not None}

    def duel(
        self,
        names: Collection[str],
        phase: Phase,
        budget: Budget,
        order: random.Random,
        now_s: Callable[[], float],
        regime: Regime,
    ) -> dict[str, Timed]:
        """Time one phase of the named implementations in each regime of the allocator; arguments as `timing.duel`."""
        lanes = self._lanes(self._own, names, phase, regime)
        measured = beside_others(timing.duel(lanes, phase, budget, order, now_s, regime))
        cold: dict[str, Measured] = {}
        for crews in self._beside:
            faulting = dataclasses.replace(regime, kept_heap=False)
            cold_lanes = self._lanes(crews, names, phase, faulting)
            cold = beside_others(timing.duel(cold_lanes, phase, budget, order, now_s, faulting))
        mine = {name: tuple(lane for lane in lanes if lane.name == name) for name in measured}
        return {name: Timed(measured[name], mine[name], cold.get(name)) for name in measured}

    @property
    def inputs(self) -> Inputs | None:
        """What is timed, once a problem was set up."""
        return self._challenge.given if self._challenge else None

    def _lanes(self, crews: Sequence[Crew], names: Collection[str], phase: Phase, regime: Regime) -> list[Lane]:
        named = [crew for crew in crews if crew.entry.name in names]
        return [
            Lane(crew.entry.name, worker, self._witness(crew, phase, regime))
            for crew in named
            for worker in crew.workers
        ]

    def _witness(self, crew: Crew, phase: Phase, regime: Regime) -> Witness | None:
        if self._challenge is None:
            return None
        # On a device the cache is overwritten, and there is no pool.
        pool_bytes = regime.pool_bytes if self._challenge.problem.device == "cpu" else 0
        return Witness(self._challenge, phase, pool_bytes, may_overflow=bool(crew.entry.deviations))

    def free(self) -> None:
        """Let every worker drop the problem's tensors."""
        for crew in self._all:
            crew.free()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for crew in self._all:
            crew.__exit__(kind, error, trace)
