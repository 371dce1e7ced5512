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
    "half-width": "rounds were too few to narrow the interval: a larger --budget, or fewer --implementation and --phase",
    "rounds": "fewer than 8 rounds were kept: a larger --budget",
    "worker spread": "processes differ more than rounds within one: --workers 5",
    "canary": "the same code was seen as different: something else was running, repeat it on a quiet machine",
    "CPU share": "less than a fifth of the time was ours: end what else runs on the measuring core",
    "page faults": "page faults cost more than 5 % of a call: --allocator warm, or call it part of the result",
    "wall and CPU time disagree": "work outside of the thread, or waiting: name --threads, or look at what it waits for",
    "baseline": "the baseline was slower in these processes than beside others: repeat it, it may be the candidate's doing",
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
    return [*_of_environment(view), *_of_cells(view)]


def _of_environment(view: View) -> Iterator[Advice]:
    governor, cores = view.fact("governor"), view.fact("cores")
    if governor not in ("", "unknown", "performance"):
        yield Advice(f"governor {governor}", "the clock rate follows the load: set the governor to performance")
    if view.fact("pinned") in ("False", "no") and view.fact("threads") == "1":
        yield Advice(
            "workers were not pinned", "they move between cores: run where a process may choose its core (Linux)"
        )
    if (threads := view.fact("threads")).isdigit() and int(threads) > 1:
        helps = "threads wait for each other and wall time decides: --threads 1, unless threads are the question"
        yield Advice(f"{threads} threads", helps)
    if cores.isdigit() and int(cores) < FEWEST_CORES:
        yield Advice("one core", "the harness and everything else share the measuring core: two cores or more")
    if (quota := _number(view.fact("container_cores"))) is not None and quota < (_number(cores) or quota):
        helps = "a quota stops all threads for a part of each period: give the container whole cores (a cpuset) and no quota"
        yield Advice(f"a quota of {quota:g} of {cores} cores", helps)
    if view.fact("smt") == "on":
        yield Advice(
            "two threads share a core",
            "what runs on the sibling slows the measuring one: leave it idle or turn SMT off",
        )
    if not view.info.get("clock_trial"):
        yield Advice(
            "the clock was not tried here", "xentbench selftest clock: two minutes, kept for the runs that follow"
        )


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
