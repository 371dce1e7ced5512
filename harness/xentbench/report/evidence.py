"""What is known of the clock that measured a run: its trial on this machine, if there was one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xentbench.report.text import percent, plain

if TYPE_CHECKING:
    from xentbench.report.view import View

NAMES: Final = {
    "twins": "twins",
    "plus_2": "slower by 2 %",
    "plus_5": "slower by 5 %",
    "plus_10": "slower by 10 %",
}


@dataclass(frozen=True, slots=True)
class Tried:
    """The duels of one pair at one size, as a table shows them."""

    pair: str
    problem: str
    duels: int
    different: str
    same: int
    inconclusive: int
    seen: str


def clock_trial(view: View) -> list[Tried]:
    """Return a row for each pair that `xentbench selftest clock` tried under this run's conditions; none, no trial."""
    record = view.info.get("clock_trial")
    rows = record.get("trials") if isinstance(record, dict) else None
    return [_tried(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _tried(row: dict[str, Any]) -> Tried:
    pair, bound = plain(row.get("pair")), row.get("different_upper_bound")
    different = f"{row.get('different', 0):.0f}"
    if pair == "twins" and isinstance(bound, float):
        different += f" (rate below {percent(bound)})"
    return Tried(
        NAMES.get(pair, pair),
        plain(row.get("problem")),
        int(row.get("duels", 0)),
        different,
        int(row.get("same", 0)),
        int(row.get("inconclusive", 0)),
        f"{row.get('median_ratio', float('nan')) - 1:+.1%}",
    )
