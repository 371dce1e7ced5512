from __future__ import annotations

import io

import pytest
from rich.console import Console

from xentbench.console import Progressing, printable, progressing

CELL = {"implementation": "[red]x", "problem": "cross_entropy:N=8,C=10", "phase": "forward", "status": "passed"}


def test_strangers_text_is_text():
    console = Console(file=io.StringIO(), width=80)
    console.print(printable("[bold]not bold[/bold] \x1b[31m\x07 end"))
    assert "[bold]not bold[/bold]" in console.file.getvalue()
    assert "\x1b" not in console.file.getvalue()


def test_a_pipe_gets_a_line_now_and_then_and_not_one_a_step():
    out, now = io.StringIO(), [0.0]
    with Progressing(Console(file=out, width=100), live=False, now_s=lambda: now[0]) as watch:
        watch.stage("timing", 100)
        for step in range(100):
            now[0] += 0.5
            watch.step(f"cell {step}")
        watch.stage("training", 1)
    lines = out.getvalue().splitlines()
    assert lines.pop() == "training: 1 step"
    assert lines[0] == "timing: 100 steps"
    assert 4 <= len(lines) <= 8
    assert lines[1] == "timing 1/100: cell 0"


def test_a_terminal_shows_the_bar_and_the_cells_as_they_come():
    out = io.StringIO()
    with Progressing(Console(file=out, width=120, force_terminal=True), live=True) as watch:
        watch.stage("timing", 2)
        watch.cell({**CELL, "ratio": 0.5, "verdict": "faster"})
        watch.step("[red]x at (8, 10)")
        shown = out.getvalue()
        watch._live.refresh()
        shown = out.getvalue()
    assert "2.00x" in shown
    assert "[red]x" in shown
    assert "1/2" in shown


@pytest.mark.parametrize("live", [True, False])
def test_the_time_left_is_told_in_minutes_and_seconds(live: bool):
    out = io.StringIO()
    with Progressing(Console(file=out, width=120, force_terminal=live), live=live) as watch:
        watch.stage("timing", 2)
        watch.left(125.4)
        watch.step("naive at (8, 10)")
        if live:
            watch._live.refresh()
    assert "about 2:05 left" in out.getvalue()


@pytest.mark.parametrize(("terminal", "ci", "live"), [(True, "", True), (True, "1", False), (False, "", False)])
def test_plain_lines_in_ci_and_pipes(monkeypatch, terminal: bool, ci: str, live: bool):
    monkeypatch.setenv("CI", ci)
    watch = progressing(Console(file=io.StringIO(), force_terminal=terminal))
    assert (watch._live is not None) == live
