"""Rates of false and missed alarms of `xentbench compare` of two runs, by simulation: Welch's test, and the moderated.

A worker's log ratio is drawn about its cell's; spreads differ among cells. Holm's adjustment and the 2 % margin follow
in both. Run it as it stands; it takes under a minute. The figures are in docs/timing.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from xentbench import statistics
from xentbench.compare import ALARM, RUN_MARGIN

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

TRIALS = 400
OUTLIERS = 0.1


@dataclass(frozen=True, slots=True)
class World:
    """How workers' log ratios come about.

    Attributes:
        spread: `alike` 1 to 2 % over cells, `unlike` 0.5 to 5 %, `outliers` 1.5 % and in a tenth of the cells 6 %.
        shared: share of a worker's variance that all its cells have in common.
        factor: spread of the second run over the first's.
    """

    spread: str = "alike"
    shared: float = 0.0
    factor: float = 1.0

    def draw(self, source: np.random.Generator, cells: int, sizes: tuple[int, int]) -> list[Floats]:
        """Return the log ratios of two runs of the same code: (cells, workers) each."""
        spreads = {
            "alike": source.uniform(0.01, 0.02, cells),
            "unlike": np.exp(source.uniform(math.log(0.005), math.log(0.05), cells)),
            "outliers": np.where(source.random(cells) < OUTLIERS, 0.06, 0.015),
        }[self.spread][:, None]
        return [
            spreads
            * factor
            * (
                math.sqrt(self.shared) * source.normal(size=(1, workers))
                + math.sqrt(1 - self.shared) * source.normal(size=(cells, workers))
            )
            for workers, factor in zip(sizes, (1.0, self.factor), strict=True)
        ]


def called(first: Floats, second: Floats, *, moderated: bool) -> npt.NDArray[np.bool_]:
    """Return which cells are called different."""
    p = (
        [shift.p for shift in statistics.shifts(list(zip(first, second, strict=True)))]
        if moderated
        else stats.ttest_ind(second, first, axis=1, equal_var=False).pvalue
    )
    small = np.array(statistics.holm(p)) < ALARM
    moved = np.abs(second.mean(axis=1) - first.mean(axis=1)) > math.log1p(RUN_MARGIN)
    return small & moved


def rates(world: World, cells: int, sizes: tuple[int, int], ratio: float, changed: int, *, moderated: bool) -> str:
    """Return the share of runs with a false alarm, of cells falsely alarmed, and of changed cells that are seen."""
    source = np.random.default_rng(1)
    is_changed = np.arange(cells) < changed
    seen = []
    for _ in range(TRIALS):
        first, second = world.draw(source, cells, sizes)
        seen.append(called(first, second + math.log(ratio) * is_changed[:, None], moderated=moderated))
    found = np.array(seen)
    if changed:
        return f"{found[:, is_changed].mean():7.1%} seen"
    return f"{found.any(axis=1).mean():6.1%} of runs, {found.mean():.2%} of cells"


def main() -> None:
    """Print one line a situation: Welch, moderated."""
    worlds = [World(), World("unlike"), World("outliers"), World(shared=0.5), World(shared=0.9), World(factor=3.0)]
    situations = [(world, cells, (3, 3), 1.0, 0) for world in worlds for cells in (1, 20, 100)]
    situations += [(World(), cells, (5, 5), 1.0, 0) for cells in (1, 20, 100)]
    situations += [(World(factor=factor), 100, (3, 5), 1.0, 0) for factor in (1.0, 1 / 3, 3.0)]
    for sizes in ((3, 3), (5, 5)):
        for ratio in (1.05, 1.10):
            changes = [(cells, changed) for cells in (1, 20, 100) for changed in {1, cells}]
            situations += [(World(), cells, sizes, ratio, changed) for cells, changed in changes]
    for situation in situations:
        told = [rates(*situation, moderated=moderated) for moderated in (False, True)]
        print(*situation, "|", " | ".join(told), flush=True)


if __name__ == "__main__":
    main()
