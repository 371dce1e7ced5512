"""What a person sees on the terminal at the end of a verb. Text of strangers is shown as text, never as markup."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from xentbench import environment, offers
from xentbench.console import errors, printable
from xentbench.foremost import foremost
from xentbench.spec import Outcome, Side, counted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from xentbench.checking import Checked
    from xentbench.compare import Difference
    from xentbench.judging import Judged
    from xentbench.ordering import Order
    from xentbench.planning import Plan
    from xentbench.results import Run
    from xentbench.selftest import Scored
    from xentbench.spec import Description
    from xentbench.training import Trained

_SHOWN_REASONS = 5
_PIPE_WIDTH = 140
NOTHING: Final = "nothing to compare with"


def _out() -> Console:
    """Return the console for results; a pipe has no width of its own, so it gets one that tables fit into."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def implementations(found: Sequence[Description]) -> None:
    """Print the table of `list`."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("name", "origin", "status", "what it is"):
        table.add_column(title, overflow="fold")
    for entry in found:
        status = "ok" if entry.status == "passed" else f"{entry.status}: {entry.reason}"
        table.add_row(*map(printable, (entry.name, entry.origin, status, entry.summary)))
    _out().print(table)


def listed(entry: Description) -> dict[str, Any]:
    """Return the entry of `list --json`."""
    return {"name": entry.name, "origin": entry.origin, "status": entry.status, "reason": entry.reason}


def judged(told: Judged) -> None:
    """Print what `parity` found: accuracy, refusals, failures with what reproduces them, the baseline, the seed."""
    out = _out()
    out.print(_accuracies(told.checked))
    for entry in told.checked:
        _remarks(out, entry)
    if told.trained:
        out.print(_trainings(told.trained))
    for entry in told.checked:
        _failures(out, entry)
    for one in told.trained:
        if one.reason:
            out.print(f"{printable(one.implementation)} on {one.workload}: {printable(one.reason)}", soft_wrap=True)
    for failure in told.replayed:
        out.print(f"found before, and wrong: {printable(failure['implementation'])}", soft_wrap=True)
        _failure(out, failure)
    for key, reason in told.posed.skipped.items():
        out.print(f"skipped {printable(key)}: {printable(reason)}", soft_wrap=True)
    unjudged = (told.unjudged,) if told.unjudged else ()
    for message in (*unjudged, *told.required, *(change.message for change in told.changes if change.fails)):
        out.print(f"[red]fails[/red] {printable(message)}", soft_wrap=True)
    for message in (*(change.message for change in told.changes if not change.fails), *told.notes):
        out.print(f"[yellow]note[/yellow] {printable(message)}", soft_wrap=True)
    out.print(f"seed {told.seed} replays this run", style="dim")


def _accuracies(entries: Sequence[Checked]) -> Table:
    """Return a row for each implementation and dtype; the verdict stands in the first row of each implementation."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("implementation", "verdict", "dtype", "grade", "error/bound", "ulp", "checks"):
        table.add_column(title, overflow="fold")
    for entry in entries:
        head = (entry.entry.name, entry.verdict)
        for dtype, one in entry.dtypes.items():
            errors_ = ["" if error is None else f"{error:.2g}" for error in (one.bound_ratio, one.error_ulp)]
            table.add_row(*map(printable, (*head, dtype, one.grade or "", *errors_, str(one.checks))))
            head = ("", "")
        if not entry.dtypes:
            table.add_row(*map(printable, head))
    return table


def _trainings(trained: Sequence[Trained]) -> Table:
    """Return a row for each implementation and workload; distances in units of what rounding explains."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("trained with", "on", "verdict", "curve/bound", "weights/bound", "held-out loss", "right", "time"):
        table.add_column(title, overflow="fold")
    for one in trained:
        far = ["" if ratio is None else f"{ratio:.2g}" for ratio in (one.curve_ratio, one.weights_ratio)]
        loss = "" if one.held_out_loss is None else f"{one.held_out_loss:.4f}"
        right = "" if one.held_out_accuracy is None else f"{one.held_out_accuracy:.1%}"
        took = "" if one.wall_s is None else f"{one.wall_s:.1f} s"
        table.add_row(*map(printable, (one.implementation, one.workload, one.status, *far, loss, right, took)))
    return table


def _remarks(out: Console, entry: Checked) -> None:
    """Print labels and what was refused, by option, else by reason: refused is not passed."""
    name = printable(entry.entry.name)
    if entry.labels:
        out.print(f"{name}: {printable(', '.join(entry.labels))}", style="dim", soft_wrap=True)
    for option, text in entry.entry.other_defaults.items():
        out.print(f"{name}: {printable(offers.default_told(option, text))}", soft_wrap=True)
    if entry.nothing_judged:
        out.print(f"{name}: nothing was judged: {printable(entry.nothing_judged)}", soft_wrap=True)
    if not entry.refused:
        return
    out.print(f"{name} {_unasked(entry.refused.values())}:", style="dim", soft_wrap=True)
    reasons = Counter(reason.partition("=")[0].partition(": ")[0] for reason in entry.refused.values())
    by_reason: dict[str, list[str]] = {}
    for option, reason in entry.not_offered.items():
        by_reason.setdefault(reason, []).append(option)
    told = [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]
    told = told or [f"{reason} ({count})" for reason, count in reasons.most_common(_SHOWN_REASONS)]
    for line in told:
        out.print(f"  {printable(line)}", style="dim", soft_wrap=True)


def _unasked(reasons: Collection[str]) -> str:
    """Return how many problems were refused, and how many its signature tells that need not be asked."""
    lacking = sum(map(offers.of_signature, reasons))
    refused = f"refused {counted(len(reasons) - lacking, 'problem')}" if len(reasons) > lacking else ""
    told = f"was not asked {counted(lacking, 'problem')} with options that its signature does not have"
    return " and ".join(filter(None, (refused, told if lacking else "")))


def _failures(out: Console, entry: Checked) -> None:
    if not entry.failures:
        return
    name, count = printable(entry.entry.name), len(entry.failures)
    pattern = f"; {printable(entry.pattern)}" if entry.pattern else ""
    out.print(f"\n[bold]{name}[/bold]: {counted(count, 'failure')}{pattern}", soft_wrap=True)
    shown = foremost(entry.failures)
    for failure in shown:
        _failure(out, failure)
    if count > len(shown):
        more = f"  … and {count - len(shown)} more (--json FILE holds all, and code that reproduces them)"
        out.print(more, style="dim", soft_wrap=True)


def _failure(out: Console, failure: Mapping[str, str]) -> None:
    out.print(f"  {printable(failure['quantity'])}: {printable(failure['message'])}", soft_wrap=True)
    if failure["counterexample"]:
        out.print(f"    {printable(failure['counterexample'])}", soft_wrap=True)
    if failure["reproduce"]:
        out.print(f"    {printable(failure['reproduce'])}", style="dim", soft_wrap=True)


def plan(made: Plan) -> None:
    """Print cells, bytes and estimated time before the work starts."""
    minutes = made.estimate_s(environment.usable_cores()) / 60
    dtypes = " and ".join(dict.fromkeys(problem.dtype for problem in made.problems))
    errors().print(
        f"{counted(made.cells, 'cell')}: {counted(len(made.implementations), 'implementation')} x "
        f"{counted(len(made.problems), 'problem')} ({dtypes}) x {counted(len(made.phases), 'phase')}; "
        f"at most {made.largest_bytes / 2**20:.0f} MiB of tensors a worker; "
        f"about {minutes:.1f} min (budget {made.preset.budget_s / 60:.1f})",
        soft_wrap=True,
    )
    for text in (*made.warnings, *(f"skipped {key}: {reason}" for key, reason in made.skipped.items())):
        errors().print(f"[yellow]note[/yellow] {printable(text)}", soft_wrap=True)


def order(placed: Order) -> None:
    """Print what one process is to do of a run, and what was done before."""
    plan(placed.plan)
    if placed.finished:
        told = f"{len(placed.finished)} of {placed.whole.cells} cells are finished, {placed.missing} are missing here"
        errors().print(f"goes on with run {printable(placed.journal.run)}: {told}", soft_wrap=True)


def bench(run: Run, folder: Path | None = None, *, complete: bool = True) -> None:
    """Print the table of a run and where its report is, or how to make one where cells are missing."""
    from xentbench import report  # noqa: PLC0415 - matplotlib: only where there is a run to show

    out = _out()
    for table in report.terminal(run, out.width):
        out.print(table)
    for note in (*report.notes(run), *run.damage):
        out.print(printable(note), style="yellow", soft_wrap=True)
    sittings = run.info.get("sittings") or []
    if (seed := run.info.get("seed")) is not None:
        out.print(f"seed {printable(str(seed))} replays this run: its numbers and its order", style="dim")
    elif len(sittings) > 1:
        out.print(f"made in {len(sittings)} sittings, each with a seed of its own: run.json holds them", style="dim")
    if not complete:
        told = f"xentbench report {run.path} shows all of them, once the other shards have ended"
        out.print(f"{len(run.cells)} cells are there so far: {printable(told)}", soft_wrap=True)
        return
    out.print(f"report: {printable(str((folder or run.path) / 'report.html'))}", soft_wrap=True)


def differences(found: Sequence[Difference], first: str, second: str, margin: float | None = None) -> None:
    """Print the table of `compare`."""
    out = _out()
    out.print(printable(f"first: {first}, second: {second}"), soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("implementation", "problem", "phase", "time of second over first", "outcome", "reason"):
        table.add_column(title, overflow="fold")
    for entry in found:
        problem = entry.problem.partition(":")[2]
        forced = f"unlike environments: {', '.join(entry.unlike)}" if entry.unlike else ""
        reason = "; ".join(filter(None, (forced, _reason(entry))))
        table.add_row(
            *map(printable, (entry.implementation, problem, entry.phase, _ratio(entry), entry.outcome, reason))
        )
    out.print(table)
    for remark in _remarks_of(found):
        out.print(printable(remark), style="yellow", soft_wrap=True)
    if told := margin_told(margin, found):
        out.print(told, style="dim", soft_wrap=True)


def differences_markdown(found: Sequence[Difference], first: str, second: str, margin: float | None) -> str:
    """Return the table of `compare` as Markdown, fit for a job's summary; strangers' text is code in it."""
    from xentbench.report.text import code_span  # noqa: PLC0415 - only where it is asked for

    rows = [("problem", "phase", "time of second over first", "outcome", "reason"), (":--", ":--", "--:", ":-:", ":--")]
    for entry in found:
        cells = (code_span(entry.problem.partition(":")[2]), code_span(entry.phase), _ratio(entry))
        mark = f"**{entry.outcome}**" if entry.outcome is Outcome.WORSE else str(entry.outcome)
        rows.append((*cells, mark, code_span(_reason(entry))))
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    head = f"### Is {code_span(_short(second))} slower than {code_span(_short(first))}?"
    remarks = [code_span(remark) for remark in _remarks_of(found)]
    return "\n\n".join(filter(None, [head, table, *remarks, margin_told(margin, found)])) + "\n\n"


def _short(name: str) -> str:
    """Return a name with the full hash of a commit cut to ten digits."""
    return re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}\b", r"\1", name)


def _reason(entry: Difference) -> str:
    """Return what a table says of an outcome; why one of the two is not right stands below it, once."""
    told = {Side.FIRST: NOTHING, Side.SECOND: "SECOND is wrong", None: entry.reason}
    return told[entry.wrong]


def _remarks_of(found: Sequence[Difference]) -> list[str]:
    """Return a line on each reason for which one of the two could not be timed."""
    kinds = dict.fromkeys((entry.wrong, entry.reason.removeprefix(f"{NOTHING}: ")) for entry in found if entry.wrong)
    return [
        f"FIRST is not right here: {reason}: there is {NOTHING}"
        if wrong is Side.FIRST
        else f"SECOND is wrong: {reason}"
        for wrong, reason in kinds
    ]


def margin_told(margin: float | None, found: Sequence[Difference]) -> str:
    """Return, in one sentence, what a margin means; '' without one, and where nothing was timed."""
    if margin is None or all(entry.wrong for entry in found):
        return ""
    return f"Worse: the whole interval lies beyond +{100 * margin:g} %. All intervals hold together at 99 %."


def _ratio(entry: Difference) -> str:
    return "" if entry.ratio is None else f"{entry.ratio:.3f} [{entry.ratio_low:.3f}, {entry.ratio_high:.3f}]"


def difference(entry: Difference) -> dict[str, Any]:
    """Return the entry of `compare --json`."""
    return dataclasses.asdict(entry)


def comparison_exit(found: Sequence[Difference], *, inconclusive_passes: bool) -> int:
    """Return the exit code of `compare`: 1 where anything is worse, 3 where something stays inconclusive, else 0."""
    outcomes = {entry.outcome for entry in found}
    if Outcome.WORSE in outcomes:
        cells = [f"{one.problem.partition(':')[2]} {one.phase}" for one in found if one.outcome is Outcome.WORSE]
        errors().print(printable(f"worse: {'; '.join(cells)}"), soft_wrap=True)
        return 1
    if Outcome.INCONCLUSIVE in outcomes or not outcomes:
        told = "nothing could be compared" if not outcomes else "some cells stay inconclusive"
        # No time makes FIRST right.
        hopeless = outcomes and all(one.wrong for one in found if one.outcome is Outcome.INCONCLUSIVE)
        more = "" if hopeless else "spend more (--workers) or "
        errors().print(f"{told}: {more}accept it (--inconclusive pass)")
        return 0 if inconclusive_passes else 3
    return 0


def scores(lines: Sequence[Scored], seed: int) -> None:
    """Print the table of `selftest`."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("", "tried", "expected", "seen"):
        table.add_column(title)
    for line in lines:
        table.add_row("ok" if line.passed else "WRONG", line.name, line.expected, line.seen)
    _out().print(table)
    _out().print(f"seed {seed} replays this", style="dim")
