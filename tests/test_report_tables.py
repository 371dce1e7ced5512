import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_run import SyntheticRun, make_run

from xentbench.report import tables

HOSTILE = "=cmd|' /C calc'!A0 <script>alert(1)</script> [red]x[/red] | `$\\frac{$` @everyone \x1b[31m\nrow"


def hostile_run() -> SyntheticRun:
    run = make_run(names={"naive": HOSTILE})
    return replace(run, cells=run.cells.assign(reason=HOSTILE), verdicts=run.verdicts.assign(reason=HOSTILE))


def shown(run: SyntheticRun, width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False)
    for table in tables.terminal(run, width):
        console.print(table)
    return out.getvalue()


def test_the_summary_has_a_speedup_or_a_word_for_every_pair() -> None:
    frame = tables.summary(make_run())
    assert frame.shape == (13, 6)
    assert frame.notna().all().all()
    assert frame.loc["naive", "text (128, 8192)"] == "wrong-value"
    assert frame.loc["compiled-from-scratch", "(32, 32000)"] == pytest.approx(1.69, abs=0.01)


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("grid", ["smoke", "default", "small"])
def test_the_terminal_table_fits_and_holds_every_problem(grid: str, width: int) -> None:
    run = make_run(grid)
    text = shown(run, width)
    assert max(map(len, text.splitlines())) <= width
    for label in run.cells["size_label"].unique():
        assert label.rpartition("(")[2] in text
    assert "unsupported" in text


def test_the_default_grid_is_one_table_at_120_columns() -> None:
    assert len(tables.terminal(make_run(), 120)) == 1


def test_a_terminal_entry_has_sign_speedup_and_interval() -> None:
    assert "+ 1.69x [1.64, 1.73]" in shown(make_run(), 200)


def test_markup_and_escape_codes_in_names_do_nothing() -> None:
    text = shown(hostile_run(), 200)
    assert "\x1b" not in text
    assert "[red]" in shown(make_run(names={"naive": "[red]x[/red]"}), 200)


def test_csv_has_every_cell_and_no_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(tables.csv(hostile_run()))))
    assert len(rows) == 13 * 6 * 4
    texts = [value for row in rows for value in (row["implementation"], row["reason"])]
    assert not any(text.startswith(("=", "+", "-", "@")) for text in texts)
    assert rows[0]["batch_size"] == "1024"
    assert float(rows[0]["latency_s"]) > 0


def test_memory_is_told_as_what_was_held_at_once_and_what_was_saved() -> None:
    rows = [row for row in csv.DictReader(io.StringIO(tables.csv(make_run()))) if "C=8192" in row["problem"]]
    told = {row["phase"]: row for row in rows if row["implementation"] == "from-scratch"}
    assert int(told["forward"]["saved_bytes"]) == 2 * 128 * 8192 * 4
    assert told["forward"]["peak_resident_bytes"] == told["forward-no-grad"]["saved_bytes"] == ""
    line = next(line for line in tables.markdown(make_run()).splitlines() if line.startswith("| `from-scratch` |"))
    assert "| 3.20x | 2.00x |" in line


def test_markdown_begins_with_the_answer_and_shows_every_cell() -> None:
    lines = tables.markdown(make_run()).partition("## Accuracy")[0].splitlines()
    assert "10 are right on all 6 problems" in lines[2]
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) == 13
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_markdown_shows_failures_with_their_reproduction() -> None:
    text = tables.markdown(make_run())
    assert "xentbench parity --implementation naive --problem 'cross_entropy:N=128,C=8192" in text
    assert "`one-hot` on `(32, 32000)`, `backward`: `timed-out`" in text


def test_markdown_keeps_strangers_words_within_code() -> None:
    lines = tables.markdown(hostile_run()).splitlines()
    for rows in tables.markdown(hostile_run()).split("## Accuracy"):
        assert len({line.count("|") for line in rows.splitlines() if line.startswith("|")}) == 1
    for line in lines:
        if "<script>" in line:
            before = line.partition("<script>")[0]
            assert "``" in before, "the name holds a backtick, so that its fence has two"


def test_broken_cells_leave_out_what_the_judge_found() -> None:
    view = tables.View.of(make_run())
    assert set(tables.broken_cells(view)["status"]) == {"timed-out"}
    assert list(tables.failures(view)["implementation"]) == ["naive"]


def test_an_empty_run_gives_every_table() -> None:
    empty = SyntheticRun(Path(), "none")
    assert tables.summary(empty).empty
    assert tables.csv(empty).startswith("implementation,")
    assert "Nothing was run." in tables.markdown(empty)
    assert len(tables.terminal(empty)) == 1
