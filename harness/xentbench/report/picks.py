"""What a reader picks: sizes, a phase, one of two allocators; and the run as far as it is picked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from xentbench.report.view import View

KEPT: Final = "heap kept"
DEFAULT: Final = "default allocator"
MAX_SIZES: Final = 6
"""Columns of sizes that fit a window of 1280 pixels."""
MARGIN: Final = 0.01
"""`faster` and `slower` lie wholly beyond this distance from 1: the clock's own rule."""


@dataclass(frozen=True, slots=True)
class Pick:
    """Attributes: keys of problems in plan order; the phase, empty where none was run; `KEPT` or `DEFAULT`."""

    problems: tuple[str, ...]
    phase: str
    regime: str = KEPT


def first(view: View) -> Pick:
    """Return what is shown before anybody picked: the headline phase, and of many sizes an even choice."""
    return Pick(tuple(map(str, spread(view.problems, MAX_SIZES).index)), view.headline)


def spread(problems: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Return at most `limit` problems in plan order, evenly from few logits to many, both ends included."""
    if len(problems) <= limit:
        return problems
    order = problems.reset_index()["elements"].sort_values(kind="stable").index
    return problems.iloc[sorted(order[np.linspace(0, len(problems) - 1, limit).round().astype(int)])]


def regimes(view: View) -> tuple[str, ...]:
    """Return which allocators the run's cells were timed with."""
    return (KEPT, DEFAULT) if view.cells["cold_ratio"].notna().any() else (KEPT,)


def narrowed(view: View, pick: Pick) -> View:
    """Return the view as far as it is picked; with the default allocator its times stand where the others stood."""
    cells = view.cells[view.cells["problem"].isin(pick.problems) & (view.cells["phase"] == pick.phase)]
    return replace(
        view,
        cells=cold(cells) if pick.regime == DEFAULT else cells,
        verdicts=view.verdicts[view.verdicts["problem"].isin(pick.problems)],
        problems=view.problems.loc[[*pick.problems]],
        phases=(pick.phase,) if pick.phase else (),
    )


def cold(cells: pd.DataFrame) -> pd.DataFrame:
    """Return cells whose times, speed-ups, verdicts and reasons are those with the default allocator."""
    ends = zip(cells["cold_low"], cells["cold_high"], cells["cold_reason"], strict=True)
    ratios = cells[["cold_ratio", "cold_low", "cold_high"]].where(lambda frame: frame > 0)
    return cells.assign(
        ratio=ratios["cold_ratio"],
        speedup=1 / ratios["cold_ratio"],
        speedup_low=1 / ratios["cold_high"],
        speedup_high=1 / ratios["cold_low"],
        verdict=[_verdict(low, high, reason) for low, high, reason in ends],
        reason=np.where(cells["cold_ratio"].notna(), cells["cold_reason"], cells["reason"]),
        latency_s=cells["cold_latency_s"],
        latency_p05_s=np.nan,
        latency_p95_s=np.nan,
        reached_ratio=np.nan,
    )


def _verdict(low: float, high: float, reason: str) -> str:
    """Return the verdict of an interval of time over the baseline's; whatever qualifies it makes it inconclusive."""
    if reason or not low <= high:
        return "inconclusive"
    return "faster" if high < 1 / (1 + MARGIN) else "slower" if low > 1 + MARGIN else "same"
