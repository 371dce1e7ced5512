from __future__ import annotations

from dataclasses import replace
from typing import Any

from synthetic_run import make_run

from xentbench.report import page
from xentbench.report.evidence import Tried, clock_trial
from xentbench.report.view import View

ROW = {
    "problem": "(8, 10)",
    "pair": "twins",
    "duels": 100,
    "different": 0,
    "different_upper_bound": 0.0295,
    "same": 97,
    "inconclusive": 3,
    "median_ratio": 1.0004,
}


def view(trial: Any) -> View:
    run = make_run("smoke")
    return View.of(replace(run, info={**run.info, "clock_trial": trial}))


def test_a_trial_is_told_with_its_exact_bound() -> None:
    (row,) = clock_trial(view({"trials": [ROW]}))
    assert row == Tried("twins", "(8, 10)", 100, "0 (rate below 2.9 %)", 97, 3, "+0.0%")
    slowed = {**ROW, "pair": "plus_5", "different": 98, "different_upper_bound": 0.99, "median_ratio": 1.047}
    (row,) = clock_trial(view({"trials": [slowed]}))
    assert (row.pair, row.different, row.seen) == ("slower by 5 %", "98", "+4.7%")


def test_the_page_says_whether_the_clock_was_tried() -> None:
    assert "rate below 2.9 %" in page.render(view({"trials": [ROW]}))
    for nothing in (None, {}, {"trials": None}, {"trials": ["?"]}):
        assert "Not tried on this machine" in page.render(view(nothing))
