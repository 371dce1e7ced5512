from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_run import SyntheticRun, make_run

from xentbench.report.view import MISSING, View, is_wrong


def test_every_implementation_has_a_cell_for_every_problem_and_phase() -> None:
    run = make_run()
    full = View.of(run).cells
    half = View.of(replace(run, cells=run.cells.sample(frac=0.5, random_state=1))).cells
    keys = ["implementation", "problem", "phase"]
    assert len(half) == len(full) == 13 * 6 * 4
    assert not half.duplicated(keys).any()


def test_an_absent_cell_says_that_it_is_missing_and_why() -> None:
    run = make_run()
    cells = View.of(replace(run, cells=run.cells.iloc[1:])).cells
    row = cells.iloc[0]
    assert (row["status"], bool(row["reason"])) == (MISSING, True)
    assert np.isnan(row["latency_s"])


def test_an_implementation_that_could_not_be_imported_is_in_every_cell() -> None:
    run = make_run("smoke")
    record = {"name": "broken", "status": "import-failed", "reason": "No module named 'triton'"}
    view = View.of(replace(run, info={**run.info, "implementations": [*run.info["implementations"], record]}))
    rows = view.cells[view.cells["implementation"] == "broken"]
    assert len(rows) == 3 * 4
    assert set(rows["status"]) == {"import-failed"}
    assert set(rows["reason"]) == {"No module named 'triton'"}


def test_speedup_is_the_inverse_of_the_ratio_with_its_ends_exchanged() -> None:
    cells = View.of(make_run()).cells.dropna(subset=["ratio"])
    assert np.allclose(cells["speedup"] * cells["ratio"], 1)
    assert (cells["speedup_low"] <= cells["speedup"]).all()
    assert (cells["speedup"] <= cells["speedup_high"]).all()


def test_an_empty_run_gives_an_empty_view() -> None:
    view = View.of(SyntheticRun(Path(), "none"))
    assert view.implementations == ()
    assert view.cells.empty
    assert view.headline == ""


def test_problems_of_one_label_get_names_of_their_own() -> None:
    cells = make_run("smoke").cells.assign(label="(8, 10)")
    names = list(View.of(SyntheticRun(Path(), "x", cells=cells)).problems["name"])
    assert len(set(names)) == len(names) == 3


def test_columns_that_are_absent_or_of_another_type_become_empty() -> None:
    cells = pd.DataFrame({"implementation": ["a"], "problem": ["p"], "phase": ["forward"], "latency_s": ["fast"]})
    view = View.of(SyntheticRun(Path(), "x", info={"environment": None, "implementations": "?"}, cells=cells))
    assert np.isnan(view.cells["latency_s"].iloc[0])
    assert view.headline == "forward"
    assert view.facts() == {}


def test_infinite_numbers_are_no_measurements() -> None:
    cells = make_run("smoke").cells.assign(ratio=np.inf, latency_s=-np.inf)
    view = View.of(SyntheticRun(Path(), "x", cells=cells))
    assert view.cells[["ratio", "speedup", "latency_s"]].isna().all().all()


def test_a_status_that_nobody_knows_counts_as_wrong() -> None:
    assert is_wrong("exploded")
    assert is_wrong("wrong-value")
    assert not any(map(is_wrong, ("passed", "unsupported", "skipped", MISSING, "")))


def test_what_the_machine_was_seen_to_do_is_told_with_units() -> None:
    told = View.of(make_run("smoke")).machine()
    assert told["cpu reads"] == "148 GB/s at 65.5 kB, 30.0 GB/s at 16.8 MB"
    assert told["cpu copies"] == "90.0 GB/s at 65.5 kB"
    assert told["cpu exponentiates"] == "6.40 G/s float32"


@pytest.mark.parametrize(
    "machine", [None, [], {"cpu": None}, {"cpu": {"exp_per_s": 3}}, {"cpu": {"exp_per_s": {"\x1b[2J": "fast"}}}]
)
def test_a_machine_of_another_shape_is_left_out(machine: object) -> None:
    run = make_run("smoke")
    assert View.of(replace(run, info={**run.info, "machine": machine})).machine() == {}
