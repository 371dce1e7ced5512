"""The first table for whatever a reader picks: every entry that it may show, once, for the page's script.

Texts are made here and nowhere else; the script only chooses among them. `lines` is the same table as the page shows it
before anybody picked, and to readers without a script.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, Any

from xentbench.report.picks import Pick, first, narrowed, regimes
from xentbench.report.standing import DECLARED, Standing, fastest, standings
from xentbench.report.text import SIGNS, count_bytes, factor_or_bytes, seconds, unbroken
from xentbench.spec import Grade

if TYPE_CHECKING:
    from xentbench.report.view import View


@dataclass(frozen=True, slots=True)
class Shown:
    """One implementation on one size, in one phase, with one allocator, as texts that the table shows.

    Attributes:
        text: speed-up with its sign, or the word for why there is none.
        below: its interval, or that it was declared.
        kind: class of the cell: the verdict, or right, declared, wrong, untested.
        reason: for who asks why.
        grade: there; empty where nothing was judged, or as declared.
        labels: what is honest but must be known, comma-separated.
        memory: peak over the least possible, or in bytes where no factor of it would mean anything.
        peak: peak memory.
        latency: median time.
        spread: from the 5th to the 95th percentile.
    """

    text: str
    below: str
    kind: str
    reason: str
    grade: str
    labels: str
    memory: str
    peak: str
    latency: str
    spread: str


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table before anybody picked.

    Attributes:
        name: of the implementation.
        grade: the worst of the sizes shown.
        right: on how many problems of the whole run it is right, e.g. `5/6`, whatever is picked.
        entries: by size.
        anchors: of the cells' own rows, by size.
        memory: the largest of the sizes shown.
        labels: of the sizes shown.
    """

    name: str
    grade: str
    right: str
    entries: tuple[Shown, ...]
    anchors: tuple[str, ...]
    memory: str
    labels: str


def anchor(view: View, implementation: int, problem: int, phase: int) -> str:
    """Return the identifier of a cell's row: cells are in the order of implementations, problems and phases."""
    return f"cell-{(implementation * len(view.problems) + problem) * len(view.phases) + phase}"


def lines(view: View, stands: tuple[Standing, ...]) -> list[Line]:
    """Return the table before anybody picked; `stands` are those of the whole run."""
    pick = first(view)
    part, sizes, phase = narrowed(view, pick), _places(view, pick), _phase_place(view, pick)
    narrow = standings(part)
    return [
        Line(
            *(stand.name, narrow[place].grade, stand.right, tuple(row)),
            anchors=tuple(anchor(view, place, size, phase) for size in sizes),
            memory=narrow[place].memory,
            labels=", ".join(dict.fromkeys(word for row in narrow[place].entries.values() for word in row.labels)),
        )
        for place, (stand, row) in enumerate(zip(stands, shown(part, narrow), strict=True))
    ]


def data(view: View, stands: tuple[Standing, ...]) -> dict[str, Any]:
    """Return all entries, by allocator, phase, implementation and size, with what the script needs around them.

    Every text of an entry stands once in `texts`; entries hold places in it, in the order of `fields`.
    """
    places: dict[str, int] = {}
    phases, every = view.phases or ("",), tuple(map(str, view.problems.index))
    views = [[narrowed(view, Pick(every, phase, regime)) for phase in phases] for regime in regimes(view)]
    pick = first(view)
    return {
        "implementations": view.implementations,
        "right": [stand.right for stand in stands],
        "sizes": [unbroken(name) for name in view.problems["name"]],
        "bySize": list(map(int, view.problems["elements"].reset_index(drop=True).sort_values(kind="stable").index)),
        "phases": phases,
        "regimes": regimes(view),
        "grades": list(Grade),
        "fields": [field.name for field in fields(Shown)],
        "fastest": [[list(fastest(part).values()) for part in row] for row in views],
        "entries": [[_interned(shown(part, standings(part)), places) for part in row] for row in views],
        "texts": list(places),
        "first": _places(view, pick),
    }


def _places(view: View, pick: Pick) -> list[int]:
    return [place for place, key in enumerate(view.problems.index) if key in pick.problems]


def _phase_place(view: View, pick: Pick) -> int:
    return view.phases.index(pick.phase) if pick.phase in view.phases else 0


def _interned(rows: list[list[Shown]], places: dict[str, int]) -> list[list[list[int]]]:
    """Return entries as places of their texts in `places`, which grows."""
    return [[[places.setdefault(text, len(places)) for text in astuple(entry)] for entry in row] for row in rows]


def shown(view: View, stands: tuple[Standing, ...]) -> list[list[Shown]]:
    """Return the entries of a view of one phase, by implementation and problem; `stands` are those of that view."""
    cells = {(row["implementation"], row["problem"]): row for row in view.cells.to_dict("records")}
    return [[_shown(stand, key, cells.get((stand.name, key), {})) for key in stand.entries] for stand in stands]


def _shown(stand: Standing, key: str, cell: dict[Any, Any]) -> Shown:
    entry = stand.entries[key]
    ends = (seconds(cell.get(name)) for name in ("latency_p05_s", "latency_p95_s"))
    return Shown(
        text=f"{SIGNS.get(entry.verdict, '')} {entry.text}".strip(),
        below=entry.interval or ("(declared)" if entry.kind == DECLARED else ""),
        kind=entry.kind,
        reason=entry.reason,
        grade=stand.grades[key],
        labels=", ".join(entry.labels),
        memory=factor_or_bytes(cell.get("memory_ratio"), cell.get("peak_bytes")),
        peak=count_bytes(cell.get("peak_bytes")),
        latency=seconds(cell.get("latency_s")),
        spread=" to ".join(filter(None, ends)),
    )
