"""How each implementation stands: one entry a problem, one record an implementation, and the answer in a sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xentbench.report.text import factor_or_bytes, interval, listing, times
from xentbench.report.view import MISSING, View, is_wrong
from xentbench.spec import Grade, Status, counted

if TYPE_CHECKING:
    import pandas as pd

RIGHT: Final = "right"
DECLARED: Final = "declared"
WRONG: Final = "wrong"
UNTESTED: Final = "untested"
BASELINE: Final = "f-cross-entropy"
"""The implementation that is what everybody is compared with."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One implementation on one problem, as a table shows it.

    Attributes:
        text: the speed-up, `right` where it was judged and not timed, or the word for why there is none.
        interval: of the speed-up, e.g. `[1.28, 1.37]`.
        verdict: faster, slower, same or inconclusive; empty where nothing was timed.
        kind: the verdict, or right, declared, wrong, untested.
        grade: of its accuracy.
        reason: one line for who asks why.
        speedup: baseline's time over its own, NaN where nothing was timed.
        shown: how much of it is shown: of its interval what is nearest to 1.
        labels: what is honest but must be known.
    """

    text: str
    interval: str = ""
    verdict: str = ""
    kind: str = UNTESTED
    grade: str = ""
    reason: str = ""
    speedup: float = np.nan
    shown: float = np.nan
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """One implementation over all problems.

    Attributes:
        name: of the implementation.
        entries: problem key to what a table shows, for the headline phase.
        outcomes: problem key to right, declared, wrong or untested, over all phases.
        grades: problem key to the grade there; empty where nothing was judged or a declared deviation explains it.
        grade: worst of these.
        setup_s: longest set-up, in seconds.
        memory_ratio: largest peak memory over the analytic minimum, in the headline phase; NaN where no minimum
            is worth a factor.
        peak_bytes: largest peak memory in the headline phase.
        saved_ratio: largest memory saved for the backward over the same minimum.
        reached_ratio: largest share of the machine's limit, in the headline phase.
        labels: all that must be known of it.
    """

    name: str
    entries: dict[str, Entry] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    grades: dict[str, str] = field(default_factory=dict)
    grade: str = ""
    setup_s: float = np.nan
    memory_ratio: float = np.nan
    peak_bytes: float = np.nan
    saved_ratio: float = np.nan
    reached_ratio: float = np.nan
    labels: tuple[str, ...] = ()

    def count(self, outcome: str) -> int:
        """Return on how many problems it ended so."""
        return list(self.outcomes.values()).count(outcome)

    @property
    def right(self) -> str:
        """How many of the problems it is right on, e.g. `5/6`."""
        return f"{self.count(RIGHT)}/{len(self.outcomes)}"

    @property
    def memory(self) -> str:
        """Peak memory over the minimum, or in bytes where no factor of it would mean anything."""
        return factor_or_bytes(self.memory_ratio, self.peak_bytes)


def standings(view: View) -> tuple[Standing, ...]:
    """Return how every implementation stands, in plan order."""
    judged = {(row["implementation"], row["problem"]): row for row in view.verdicts.to_dict("records")}
    timed = {(str(row["implementation"]), str(row["problem"])): row for row in _headline(view)}
    statuses: dict[tuple[str, str], list[str]] = {}
    for row in view.cells[["implementation", "problem", "status"]].to_dict("records"):
        statuses.setdefault((row["implementation"], row["problem"]), []).append(row["status"])
    return tuple(_standing(view, name, judged, timed, statuses) for name in view.implementations)


def _headline(view: View) -> list[dict[Any, Any]]:
    return view.cells[view.cells["phase"] == view.headline].to_dict("records")


def _standing(
    view: View,
    name: str,
    judged: dict[tuple[str, str], dict[Any, Any]],
    timed: dict[tuple[str, str], dict[Any, Any]],
    statuses: dict[tuple[str, str], list[str]],
) -> Standing:
    keys = [(name, str(problem)) for problem in view.problems.index]
    outcomes = {key[1]: _outcome(judged.get(key, {}), statuses.get(key, [])) for key in keys}
    own = view.cells[view.cells["implementation"] == name]
    headline = own[own["phase"] == view.headline]
    return Standing(
        name=name,
        entries={key[1]: _entry(timed.get(key, {}), judged.get(key, {}), outcomes[key[1]]) for key in keys},
        outcomes=outcomes,
        grades=(grades := {key[1]: _grade(judged.get(key), timed.get(key)) for key in keys}),
        grade=worst_grade([{"grade": grade} for grade in grades.values()]),
        setup_s=float(own["setup_s"].max()),
        memory_ratio=float(headline["memory_ratio"].max()),
        peak_bytes=float(headline["peak_bytes"].max()),
        saved_ratio=float(headline["saved_ratio"].max()),
        reached_ratio=float(headline["reached_ratio"].max()),
        labels=_labels(own["labels"], [judged[key]["labels"] for key in keys if key in judged]),
    )


def _outcome(verdict: dict[Any, Any], statuses: list[str]) -> str:
    if verdict.get("deviations"):
        return DECLARED
    if is_wrong(verdict.get("status", "")) or any(is_wrong(status) for status in statuses):
        return WRONG
    seen = [status for status in [verdict.get("status", ""), *statuses] if status not in ("", MISSING)]
    return RIGHT if Status.PASSED in seen else UNTESTED


def _entry(cell: dict[Any, Any], verdict: dict[Any, Any], outcome: str) -> Entry:
    status = cell.get("status") or verdict.get("status") or MISSING
    if status == MISSING and verdict.get("status"):
        status = verdict["status"]
    grade = cell.get("grade") or verdict.get("grade") or ""
    reason = cell.get("reason") or verdict.get("reason") or ""
    speedup = cell.get("speedup", np.nan)
    labels = _labels([row["labels"] for row in (cell, verdict) if "labels" in row])
    if status != Status.PASSED:
        kind = outcome if is_wrong(status) and outcome in (WRONG, DECLARED) else UNTESTED
        return Entry(status, kind=kind, grade=grade, reason=reason, labels=labels)
    if not np.isfinite(speedup):
        return Entry(RIGHT, kind=RIGHT, grade=grade, reason=reason, labels=labels)
    low, high = cell["speedup_low"], cell["speedup_high"]
    said = cell["verdict"] or "inconclusive"
    shown = float(np.clip(1.0, low, high)) if low <= high else 1.0  # an infinite end is kept as NaN
    return Entry(times(speedup), interval(low, high), said, said, grade, reason, float(speedup), shown, labels)


def _grade(verdict: dict[Any, Any] | None, cell: dict[Any, Any] | None) -> str:
    return worst_grade([row for row in (verdict or cell,) if row])


def worst_grade(rows: list[dict[Any, Any]]) -> str:
    """Return the worst grade among verdicts that no declared deviation explains, empty where there is none."""
    known = set(Grade)
    held = [Grade(row["grade"]) for row in rows if not row.get("deviations") and row.get("grade") in known]
    return str(Grade.worst(held) or "")


def _labels(*columns: pd.Series[Any] | list[str]) -> tuple[str, ...]:
    words = [word.strip() for column in columns for text in column for word in str(text).split(",")]
    return tuple(dict.fromkeys(filter(None, words)))


def answer(view: View, stands: tuple[Standing, ...]) -> str:
    """Return the run's result in one or two sentences: who is right, and who is fastest on the largest problem."""
    if not stands:
        return "Nothing was run."
    return " ".join(filter(None, [who_is_right(stands, len(view.problems)), who_is_fastest(view)]))


def who_is_right(stands: tuple[Standing, ...], problems: int) -> str:
    """Return in one sentence which implementations are right on all, and how the others ended."""
    groups: dict[str, list[str]] = {}
    for stand in stands:
        groups.setdefault(_summing_up(stand), []).append(stand.name)
    everywhere = len(groups.pop(RIGHT, []))
    of_problems = "the one problem" if problems == 1 else f"all {problems} problems"
    outcome = "right" if set(groups) - {UNTESTED} or everywhere else "judged"
    verb = "was" if outcome == "judged" else "is" if everywhere <= 1 else "are"
    clauses = [f"{everywhere or 'none'} {verb} {outcome} on {of_problems}"]
    said = {
        "partly": "right on what they support: {}",
        DECLARED: "deviating as declared: {}",
        WRONG: "wrong or failing somewhere: {}",
        UNTESTED: "not tested (unsupported or skipped): {}",
    }
    clauses += [said[key].format(listing(groups[key])) for key in said if key in groups]
    return f"Of {counted(len(stands), 'implementation')} {'; '.join(clauses)}."


def _summing_up(stand: Standing) -> str:
    for outcome in (WRONG, DECLARED):
        if stand.count(outcome):
            return outcome
    if not stand.count(RIGHT):
        return UNTESTED
    return "partly" if stand.count(UNTESTED) else RIGHT


def who_is_fastest(view: View) -> str:
    """Return who is fastest in the headline phase on the largest problem that was timed, in one sentence."""
    told = fastest(view)
    by_size = view.problems["elements"].sort_values(kind="stable", na_position="first").index
    return next((told[key] for key in reversed(by_size) if told[key]), "")


def fastest(view: View) -> dict[str, str]:
    """Return who is fastest in the headline phase on each problem, in one sentence; empty where nobody was timed."""
    rows: dict[str, list[dict[Any, Any]]] = {str(key): [] for key in view.problems.index}
    for row in _headline(view):
        if np.isfinite(row["speedup"]):
            rows[row["problem"]].append(row)
    return {key: _fastest(timed, f"{view.headline} at {view.problems['name'][key]}") for key, timed in rows.items()}


def _fastest(timed: list[dict[Any, Any]], place: str) -> str:
    if not timed:
        return ""
    there = sorted(timed, key=lambda row: -row["speedup"])
    best = next((row for row in there if row["verdict"] == "faster"), None)
    others = [row for row in there if row["implementation"] != BASELINE] or there
    if all(row["verdict"] == "slower" for row in others):
        nearest = others[0]
        told = f"{nearest['implementation']}, {times(nearest['speedup'])}"
        bounds = interval(nearest["speedup_low"], nearest["speedup_high"])
        return f"All are slower than F.cross_entropy, {place}: the nearest is {told} {bounds}".rstrip() + "."
    if best is None:
        return f"None is shown to be faster than F.cross_entropy, {place}."
    # Overlapping intervals do not prove equality; they only forbid naming one winner.
    near = [row["implementation"] for row in there if row is not best and row["speedup_high"] >= best["speedup_low"]]
    bounds = interval(best["speedup_low"], best["speedup_high"])
    close = f" (not told apart from {listing(near)})" if near else ""
    speed = f"{times(best['speedup'])} {bounds} the speed of F.cross_entropy"
    return f"Fastest {place}: {best['implementation']}, {speed}{close}."
