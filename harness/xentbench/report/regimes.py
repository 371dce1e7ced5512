"""The kept heap beside the default allocator, and the pairs whose order depends on which of the two is timed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xentbench.report.picks import KEPT
from xentbench.report.standing import BASELINE
from xentbench.report.text import interval, times

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xentbench.report.view import View

REFERENCE: Final = "F.cross_entropy"
REASONS: Final = ((KEPT, "reason"), ("default", "cold_reason"))
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
        reason: what qualifies either comparison, and which.
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
            "; ".join(f"{title}: {row[name]}" for title, name in REASONS if row[name]),
        )
        for row in _both(view)
    ]


def reversals(view: View) -> list[str]:
    """Return a sentence for each pair that one regime puts in one order and the other in the opposite one.

    Only where the intervals of the two lie apart in both regimes, and nothing but their width kept any of them from a
    verdict; the baseline is one of those compared.
    """
    pairs = _pairs(filter(_is_undisturbed, _both(view)))
    return [_sentence(view, one, other) for one, other in pairs if _orders(one, other) < 0]


def is_settled(view: View) -> bool:
    """Return whether the order of every pair is known in both regimes: only then is no reversal shown a finding."""
    rows = _both(view)
    return all(map(_is_undisturbed, rows)) and all(_orders(one, other) for one, other in _pairs(rows))


def has_faults(view: View) -> bool:
    """Return whether any call with the default allocator was seen to fault."""
    return bool((view.cells["cold_minor_faults"] > 0).any())


def _pairs(rows: Iterable[dict[Any, Any]]) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    """Return every two of one problem and phase; the baseline is one of those compared, and comes first.

    The entrant that is the baseline under its own name is left out: each of its pairs would be told twice.
    """
    groups: dict[tuple[str, str], list[dict[Any, Any]]] = {}
    for row in rows:
        if row["implementation"] == BASELINE:
            continue
        groups.setdefault((row["problem"], row["phase"]), []).append(row)
    none = dict.fromkeys(("ratio", "ratio_low", "ratio_high", "cold_ratio", "cold_low", "cold_high"), 1.0)
    baseline = {**none, "implementation": REFERENCE, "cold_minor_faults": 0.0}
    return [pair for group in groups.values() for pair in itertools.combinations([baseline, *group], 2)]


def _orders(one: dict[Any, Any], other: dict[Any, Any]) -> int:
    """Return 1 where both regimes put two in one order, -1 where in opposite ones, 0 where one of them cannot tell."""
    return _apart(one, other, ("ratio_low", "ratio_high")) * _apart(one, other, ("cold_low", "cold_high"))


def _is_undisturbed(row: dict[Any, Any]) -> bool:
    return all(not row[name] or row[name].startswith(WIDTHS) for name in ("reason", "cold_reason"))


def _both(view: View) -> list[dict[Any, Any]]:
    return view.cells[view.cells["cold_ratio"].notna() & view.cells["ratio"].notna()].to_dict("records")


def _apart(one: dict[Any, Any], other: dict[Any, Any], ends: tuple[str, str]) -> int:
    """Return -1 where the first takes less time beyond both intervals, 1 where the other does, else 0."""
    low, high = ends
    return int(one[low] > other[high]) - int(one[high] < other[low])


def _sentence(view: View, one: dict[Any, Any], other: dict[Any, Any]) -> str:
    """Return it; the second of a pair is never the baseline, which belongs to no problem."""
    faster, slower = (one, other) if one["ratio"] < other["ratio"] else (other, one)
    warm, cold = (slower[name] / faster[name] for name in ("ratio", "cold_ratio"))
    faults = ", page faults included" if any(row["cold_minor_faults"] > 0 for row in (one, other)) else ""
    place = f"{view.problems['name'][other['problem']]}, {other['phase']}"
    return (
        f"{place}: {faster['implementation']} is {times(warm)} as fast as "
        f"{slower['implementation']} with the heap kept, and {times(cold)} as fast with the default allocator"
        f"{faults}"
    )
