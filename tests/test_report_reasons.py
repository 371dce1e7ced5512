from __future__ import annotations

from dataclasses import replace

from synthetic_run import SyntheticRun, make_run

from xentbench import report
from xentbench.report import digest
from xentbench.report.reasons import KINDS, unanswered
from xentbench.report.view import View


def ended(*reasons: str, status: str = "passed", verdict: str = "inconclusive") -> SyntheticRun:
    """Return a run whose first cells ended with these reasons; all others are right, and the same."""
    run = make_run("smoke")
    whole = run.cells.assign(status="passed", verdict="same", reason="")
    for place, reason in enumerate(reasons):
        whole.loc[place, ["status", "verdict", "reason"]] = [status, verdict, reason]
    return replace(run, cells=whole)


def test_cells_without_an_answer_are_counted_by_kind_of_reason() -> None:
    slow = "baseline: 2.1 times as slow as beside the others"
    run = ended("rounds: 6 kept, 8 needed", slow, "rounds: 0 kept, 8 needed")
    line = (
        f"3 cells inconclusive: rounds: 6 kept, 8 needed (2); {slow} (1): a new run with more time decides (--budget)"
    )
    assert report.notes(run)[0] == line


def test_to_a_lone_worker_that_never_shows_same_more_of_them_are_advised() -> None:
    lone = "half-width: ±1.5% (one worker never shows 'same')"
    line = f"1 cell inconclusive: {lone} (1): a new run with more workers decides (--workers 3)"
    assert report.notes(ended(lone))[0] == line


def test_more_time_is_advised_only_where_it_helps() -> None:
    assert unanswered(View.of(ended("canary: identical code measured 1.043"))) == [
        "1 cell inconclusive: canary: identical code measured 1.043 (1)"
    ]


def test_skipped_cells_have_a_line_of_their_own() -> None:
    reason = "the budget of 10 s, less what its report needs, left no time for it: raise --budget"
    assert unanswered(View.of(ended(reason, reason, status="skipped", verdict=""))) == [
        f"2 cells skipped: {reason} (2)"
    ]


def test_what_is_wrong_is_told_with_its_first_reason_unless_it_was_declared() -> None:
    run = ended("RuntimeError: no kernel for 3 bits", status="raised", verdict="")
    first = run.cells.iloc[0]
    (line,) = unanswered(View.of(run))
    assert line == f"{first['implementation']} is raised at (8, 10): RuntimeError: no kernel for 3 bits"
    declared = run.verdicts.assign(deviations=[("overflow",)] * len(run.verdicts))
    assert unanswered(View.of(replace(run, verdicts=declared))) == []


def test_whoever_offers_nothing_is_told_with_the_reason_and_others_are_not() -> None:
    run = ended("only two classes", status="unsupported", verdict="")
    assert unanswered(View.of(run)) == []
    name, reason = run.cells.loc[0, "implementation"], "needs the package 'triton': pip install triton"
    cells = run.cells.assign(status=run.cells["status"].mask(run.cells["implementation"] == name, "unsupported"))
    cells.loc[cells["implementation"] == name, ["verdict", "reason"]] = ["", reason]
    (line,) = unanswered(View.of(replace(run, cells=cells)))
    count = (cells["implementation"] == name).sum()
    assert line == f"{count} cells unsupported: {reason} ({count})"


def test_where_every_cell_has_an_answer_nothing_is_said() -> None:
    assert unanswered(View.of(ended())) == []


def test_many_kinds_are_cut_to_the_most_frequent() -> None:
    (line,) = unanswered(View.of(ended(*"abcdef", "f", status="skipped", verdict="")))
    assert line.startswith("7 cells skipped: f (2); ")
    assert line.count("(1)") == KINDS - 1
    assert line.endswith("and 2 other reasons")


def test_the_summary_holds_the_same_with_every_reason_as_code() -> None:
    text = digest.compact(ended("<img src=x> | \x1b[31m\n# head", status="skipped", verdict=""))
    (line,) = (line for line in text.splitlines() if "cell skipped" in line)
    assert line.startswith("1 cell skipped: `<img src=x> ¦")
