"""Tables: a DataFrame, a terminal, a Markdown file, a CSV file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd

from xentbench.report import digest
from xentbench.report.accuracy import accuracy
from xentbench.report.conditions import allocator
from xentbench.report.screen import terminal
from xentbench.report.standing import Standing, standings
from xentbench.report.text import code_block, code_span, csv_cell, digits, percent, seconds, times
from xentbench.report.view import NUMBER_COLUMNS, TEXT_COLUMNS, View, is_wrong

if TYPE_CHECKING:
    from xentbench.report.view import RunLike

FACTS: Final = (
    *(("device", "Device"), ("cpu", "Processor"), ("torch", "torch"), ("python", "Python"), ("threads", "Threads")),
    *(("pinned", "Pinned"), ("allocator", "Allocator"), ("governor", "Governor"), ("os", "System")),
)
MAX_FAILURES: Final = 20
__all__ = ["broken_cells", "csv", "failures", "markdown", "summary", "terminal"]

COUNTS: Final = (
    *("batch_size", "num_classes", "elements", "rounds", "workers"),
    *("peak_bytes", "saved_bytes", "peak_resident_bytes", "minimum_bytes"),
)


def summary(run: RunLike | View) -> pd.DataFrame:
    """Return implementations x problems: the speed-up over the baseline as a float, or the status as a word.

    For the phase forward+backward, or the last one that was run; the columns are the problems' labels.
    """
    view = View.of(run)
    rows = {
        stand.name: [entry.speedup if entry.verdict else entry.text for entry in stand.entries.values()]
        for stand in standings(view)
    }
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(view.problems["name"]), dtype=object)
    return frame.rename_axis("implementation")


def csv(run: RunLike | View) -> str:
    """Return every cell as CSV: SI units, empty where nothing was measured, no text that a spreadsheet would run."""
    cells = View.of(run).cells[[*TEXT_COLUMNS, *NUMBER_COLUMNS, "speedup", "speedup_low", "speedup_high"]]
    whole = {name: cells[name].round().astype("Int64") for name in COUNTS}
    safe = cells.assign(**whole, **{name: cells[name].map(csv_cell) for name in TEXT_COLUMNS})
    return str(safe.to_csv(index=False, lineterminator="\n"))


def markdown(run: RunLike | View) -> str:
    """Return `report.md`: the answer, one table of all, accuracy, failures, conditions."""
    view = View.of(run)
    stands = standings(view)
    parts = [
        f"# Cross-entropy in PyTorch\n\n{digest.inert_answer(view, stands)}",
        _markdown_table(view, stands),
        _markdown_accuracy(view),
        _markdown_failures(view),
        _markdown_conditions(view),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _markdown_table(view: View, stands: tuple[Standing, ...]) -> str:
    heads = ["implementation", "grade", "right", *map(code_span, view.problems["name"])]
    heads += ["peak / minimum", "saved / minimum", "limit reached", "set-up"]
    rules = [":--", ":-:", ":-:", *["--:"] * (len(heads) - 3)]
    rows = [
        [
            *(code_span(stand.name), stand.grade, stand.right),
            *(digest.entry(entry) for entry in stand.entries.values()),
            *(stand.memory, times(stand.saved_ratio), percent(stand.reached_ratio)),
            seconds(stand.setup_s),
        ]
        for stand in stands
    ]
    lead = f"Speed-up over `F.cross_entropy`, {view.headline}, with confidence interval: " if view.headline else ""
    lead += "▲ faster, ▼ slower, = same, ? inconclusive." if view.headline else ""
    table = "\n".join(f"| {' | '.join(row)} |" for row in [heads, rules, *rows])
    return "\n\n".join(filter(None, [lead, table]))


def _markdown_accuracy(view: View) -> str:
    heads = ["implementation", "dtype", "verdict", "grade", "error / bound", "ulp", "checks", "refused"]
    rows = [
        [
            *(code_span(row.name), code_span(row.dtype), row.verdict, row.grade),
            *(digits(row.bound_ratio), digits(row.error_ulp), str(row.checks), code_span(row.refused)),
        ]
        for row in accuracy(view)
    ]
    rules = [":--", ":--", ":-:", ":-:", "--:", "--:", "--:", ":--"]
    return "## Accuracy\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in [heads, rules, *rows])


def failures(view: View) -> pd.DataFrame:
    """Return the verdicts that are wrong, those that no declared deviation explains first; `declared` tells which."""
    wrong = view.verdicts[view.verdicts["status"].map(is_wrong).astype(bool)]
    return wrong.assign(declared=wrong["deviations"] != "").sort_values("declared", kind="stable")


def broken_cells(view: View) -> pd.DataFrame:
    """Return the cells that went wrong although their answers were judged right, e.g. by a time-out."""
    judged = set(zip(*(failures(view)[name] for name in ("implementation", "problem")), strict=True))
    pairs = zip(view.cells["implementation"], view.cells["problem"], view.cells["status"], strict=True)
    return view.cells[[is_wrong(status) and (name, problem) not in judged for name, problem, status in pairs]]


def _markdown_failures(view: View) -> str:
    wrong = failures(view)
    parts = []
    for row in wrong.head(MAX_FAILURES).to_dict("records"):
        note = f", declared as {code_span(row['deviations'])}" if row["declared"] else ""
        head = f"- {code_span(row['implementation'])} on {code_span(row['label'] or row['problem'])}: "
        body = f"{code_span(row['status'])}{note}. {code_span(row['reason'])}".rstrip()
        command = f"\n\n{code_block(row['reproduce'], 'sh')}\n" if row["reproduce"] else ""
        parts.append(head + body + command.replace("\n", "\n  ").rstrip(" "))
    for row in broken_cells(view).head(MAX_FAILURES).to_dict("records"):
        place = f"{code_span(row['implementation'])} on {code_span(row['label'])}, {code_span(row['phase'])}"
        parts.append(f"- {place}: {code_span(row['status'])}. {code_span(row['reason'])}".rstrip())
    left = len(wrong) - MAX_FAILURES
    tail = [f"- and {left} more: see the HTML report"] if left > 0 else []
    return "## What failed\n\n" + "\n".join([*parts, *tail]) if parts else ""


def _markdown_conditions(view: View) -> str:
    facts = [f"- Run: {code_span(view.id)}"]
    known = {key: allocator(view) if key == "allocator" else view.fact(key) for key, _ in FACTS}
    facts += [f"- {title}: {code_span(known[key])}" for key, title in FACTS if known[key]]
    facts += [f"- Warning: {code_span(line)}" for line in view.lines("warnings")]
    return "## Conditions\n\n" + "\n".join(facts)
