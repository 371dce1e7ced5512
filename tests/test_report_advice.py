from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from synthetic_run import make_run

from xentbench.report.advice import REASONS, advice
from xentbench.report.view import View

QUIET = {"governor": "performance", "pinned": True, "threads": 1, "cores": 2, "smt": "off", "container_cores": None}


def seen(reason: str = "", **facts: Any) -> list[str]:
    run = make_run("smoke")
    info = {**run.info, "environment": {**QUIET, **facts}, "clock_trial": {"trials": []}}
    cells = run.cells.assign(verdict="inconclusive", reason=reason)
    return [item.seen for item in advice(View.of(replace(run, info=info, cells=cells)))]


def test_a_quiet_run_is_given_no_advice() -> None:
    assert seen() == []


@pytest.mark.parametrize(
    ("fact", "value", "told"),
    [
        ("governor", "powersave", "governor powersave"),
        ("pinned", False, "workers were not pinned"),
        ("threads", 4, "4 threads"),
        ("cores", 1, "one core"),
        ("container_cores", 0.5, "a quota of 0.5 of 2 cores"),
        ("smt", "on", "two threads share a core"),
    ],
)
def test_each_fact_that_disturbs_is_told(fact: str, value: Any, told: str) -> None:
    assert seen(**{fact: value}) == [told]


def test_what_is_unknown_is_not_advised_upon() -> None:
    assert seen(governor="unknown", smt="unknown", container_cores=2.0) == []
    assert [item.seen for item in advice(View.of(replace(make_run("smoke"), info={})))] == [
        "the clock was not tried here"
    ]


@pytest.mark.parametrize("reason", REASONS)
def test_reasons_of_inconclusive_cells_are_counted(reason: str) -> None:
    assert seen(f"{reason}: ±12.2%") == [f"156 of 156 cells inconclusive: {reason}"]


def test_skipped_cells_ask_for_a_larger_budget() -> None:
    run = make_run("smoke")
    cells = run.cells.assign(
        status="skipped", verdict="", reason="the budget was spent before its turn: raise --budget"
    )
    told = advice(View.of(replace(run, cells=cells)))
    assert told[-1].seen == "156 of 156 cells skipped"
