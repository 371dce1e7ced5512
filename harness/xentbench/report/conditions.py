"""Under which conditions a run was made, as pairs of a name and a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xentbench.report.picks import DEFAULT, regimes
from xentbench.report.text import count_bytes, plain

if TYPE_CHECKING:
    from xentbench.report.view import View


def conditions(view: View) -> list[tuple[str, str]]:
    """Return run, settings, versions, limits and what the machine was seen to do, as far as they are known."""
    info = view.info
    wall = info.get("wall_s")
    rows = [
        *(("run", view.id), ("contract", plain(info.get("contract"))), ("preset", plain(info.get("preset")))),
        *(("grids", ", ".join(view.lines("grids"))), ("seed", plain(info.get("seed")))),
        *(("started", plain(info.get("started"))), ("baseline", plain(info.get("baseline")))),
        ("duration", f"{wall:.0f} s" if isinstance(wall, (int, float)) else ""),
        ("sittings", _sittings(view)),
    ]
    facts = {**view.facts(), "allocator": allocator(view), **view.machine()}.items()
    sized = [
        (key, count_bytes(float(value)) if key.endswith("_bytes") and value.isdigit() else value)
        for key, value in facts
    ]
    return [(key.replace("_", " ").removesuffix(" bytes"), value) for key, value in [*rows, *sized] if value]


def allocator(view: View) -> str:
    """Return which allocators cells were timed with: the record of an environment names one, the first."""
    return "warm and cold" if DEFAULT in regimes(view) else view.fact("allocator")


def _sittings(view: View) -> str:
    """Return how often the run was gone on with, or shared, and the seeds; nothing where it was made at one go."""
    listed = view.info.get("sittings")
    told = [one for one in listed if isinstance(one, dict)] if isinstance(listed, (list, tuple)) else []
    seeds = [plain(one.get("seed")) or "untold (killed)" for one in told]
    return f"{len(told)}; seeds {', '.join(seeds)}" if len(told) > 1 else ""
