"""The kept heap beside the default allocator, and the pairs whose order depends on which of the two is timed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xentbench.report.text import interval, times

if TYPE_CHECKING:
    from xentbench.report.view import View

BASELINE: Final = "F.cross_entropy"
WIDTHS: Final = ("half-width", "worker spread")
"""Reasons of an interval that is merely wide."""


@dataclass(frozen=True, slots=True)
class Beside:
    """One cell in both regimes; speed-ups over the baseline in the same regime.

    Attributes:
        implementation: name.
        problem: as tables name it.
        phase: that was timed.
        warm: speed-up with the heap kept, and `warm_interval`.
        cold: speed-up with the default allocator, and `cold_interval`.
        faults: page faults of a typical call with it.
        reason: what qualifies the cold comparison.
    """

    implementation: str
    problem: str
    phase: str
    warm: float
    warm_interval: str
    cold: float
    cold_interval: str
    faults: float
    reason: str


def beside(view: View) -> list[Beside]:
    """Return every cell that was timed in both regimes, in plan order."""
    return [
        Beside(
            row["implementation"],
            view.problems["name"][row["problem"]],
            row["phase"],
            row["speedup"],
            interval(row["speedup_low"], row["speedup_high"]),
            1 / row["cold_ratio"],
            interval(1 / row["cold_high"], 1 / row["cold_low"]) if row["cold_low"] > 0 else "",
            row["cold_minor_faults"],
            row["cold_reason"],
        )
        for row in _both(view)
    ]


def reversals(view: View) -> list[str]:
    """Return a sentence for each pair that one regime puts in one order and the other in the opposite one.

    Only where the intervals of the two lie apart in both regimes, and nothing but their width kept any of them from a
    verdict; the baseline is one of those compared.
    """
    groups: dict[tuple[str, str], list[dict[Any, Any]]] = {}
    for row in filter(_is_undisturbed, _both(view)):
        groups.setdefault((row["problem"], row["phase"]), []).append(row)
    none = dict.fromkeys(("ratio", "ratio_low", "ratio_high", "cold_ratio", "cold_low", "cold_high"), 1.0)
    return [
        _sentence(view, problem, phase, one, other)
        for (problem, phase), rows in groups.items()
        for one, other in itertools.combinations([{**none, "implementation": BASELINE}, *rows], 2)
        if _apart(one, other, ("ratio_low", "ratio_high")) * _apart(one, other, ("cold_low", "cold_high")) < 0
    ]


def _is_undisturbed(row: dict[Any, Any]) -> bool:
    return all(not row[name] or row[name].startswith(WIDTHS) for name in ("reason", "cold_reason"))


def _both(view: View) -> list[dict[Any, Any]]:
    return view.cells[view.cells["cold_ratio"].notna() & view.cells["ratio"].notna()].to_dict("records")


def _apart(one: dict[Any, Any], other: dict[Any, Any], ends: tuple[str, str]) -> int:
    """Return -1 where the first takes less time beyond both intervals, 1 where the other does, else 0."""
    low, high = ends
    return int(one[low] > other[high]) - int(one[high] < other[low])


def _sentence(view: View, problem: str, phase: str, one: dict[Any, Any], other: dict[Any, Any]) -> str:
    faster, slower = (one, other) if one["ratio"] < other["ratio"] else (other, one)
    warm, cold = (slower[name] / faster[name] for name in ("ratio", "cold_ratio"))
    return (
        f"{view.problems['name'][problem]}, {phase}: {faster['implementation']} is {times(warm)} as fast as "
        f"{slower['implementation']} with the heap kept, and {times(cold)} as fast with the default allocator, "
        "page faults included"
    )
