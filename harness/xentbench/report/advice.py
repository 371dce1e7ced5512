"""What would make a run quieter or tell more: only what its own record and the clock's trials show to matter."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xentbench.report.text import plain
from xentbench.spec import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xentbench.report.view import View

REASONS: Final = {
    "half-width": "too few rounds to narrow the interval: a larger --budget, or fewer implementations and phases",
    "rounds": "fewer than 8 rounds were kept: a larger --budget",
    "worker spread": "processes differ more than rounds within one: --workers 5",
    "canary": "the same code was seen as different: something else was running, repeat it on a quiet machine",
    "CPU share": "less than a fifth of the time was ours: end what else runs on the measuring core",
    "page faults": "page faults cost more than 5 % of a call: --allocator warm, or call it part of the result",
    "wall and CPU time disagree": "work outside of the thread, or waiting: look at what it waits for",
    "baseline": "it was slower in these processes than beside others: repeat it, the candidate may be the cause",
}
"""What helps against each reason of an inconclusive cell; docs/timing.md tells what the reasons mean."""
FEWEST_CORES: Final = 2


@dataclass(frozen=True, slots=True)
class Advice:
    """Attributes: what was seen; what would help."""

    seen: str
    helps: str


def advice(view: View) -> list[Advice]:
    """Return what would make the run quieter: by its environment first, then by why cells are inconclusive."""
    return [*_of_settings(view), *_of_cores(view), *_of_cells(view)]


def _of_settings(view: View) -> Iterator[Advice]:
    governor, threads = view.fact("governor"), _number(view.fact("threads"))
    if governor not in ("", "unknown", "performance"):
        yield Advice(f"governor {governor}", "the clock rate follows the load: set it to performance")
    if view.fact("pinned") in ("False", "no") and threads == 1:
        yield Advice("workers were not pinned", "they move between cores: run where a process may choose its core")
    if threads is not None and threads > 1:
        helps = "threads wait for each other, and wall time decides: --threads 1, unless threads are the question"
        yield Advice(f"{threads:.0f} threads", helps)
    if not view.info.get("clock_trial"):
        helps = "xentbench selftest clock takes two minutes, and is kept for the runs that follow"
        yield Advice("the clock was not tried here", helps)


def _of_cores(view: View) -> Iterator[Advice]:
    cores, quota = _number(view.fact("cores")), _number(view.fact("container_cores"))
    if cores is not None and cores < FEWEST_CORES:
        yield Advice("one core", "the harness and all else share the core that is measured: two cores or more")
    if quota is not None and cores is not None and quota < cores:
        helps = "a quota stops everything for a part of each period: give the container whole cores instead"
        yield Advice(f"a quota of {quota:g} of {cores:.0f} cores", helps)
    if view.fact("smt") == "on":
        helps = "what runs on the other thread of the measuring core slows it: leave that idle, or turn SMT off"
        yield Advice("two threads share a core", helps)


def _of_cells(view: View) -> Iterator[Advice]:
    open_ended = view.cells[view.cells["verdict"] == "inconclusive"]
    counted = Counter(reason for text in open_ended["reason"] if (reason := _kind(text)))
    for reason, count in counted.most_common():
        yield Advice(f"{count} of {len(view.cells)} cells inconclusive: {reason}", REASONS[reason])
    skipped = view.cells[(view.cells["status"] == Status.SKIPPED) & view.cells["reason"].str.contains("--budget")]
    if len(skipped):
        yield Advice(
            f"{len(skipped)} of {len(view.cells)} cells skipped",
            "the budget was spent before their turn: a larger --budget",
        )


def _kind(reason: str) -> str:
    return next((kind for kind in REASONS if plain(reason).startswith(kind)), "")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
