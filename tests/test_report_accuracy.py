"""What was found of each implementation in each dtype, summed up from the verdicts."""

from pathlib import Path

import pytest
from synthetic_run import SyntheticRun, make_run

from xentbench.report.accuracy import Accuracy, accuracy
from xentbench.report.view import View


def row(run: SyntheticRun, name: str, dtype: str = "float32") -> Accuracy:
    return next(entry for entry in accuracy(View.of(run)) if (entry.name, entry.dtype) == (name, dtype))


def test_there_is_a_row_for_every_implementation_and_dtype() -> None:
    rows = accuracy(View.of(make_run("mixed")))
    assert {entry.dtype for entry in rows} == {"float32", "bfloat16"}
    assert len({(entry.name, entry.dtype) for entry in rows}) == len(rows) == 2 * 13


def test_numbers_are_the_worst_of_what_is_not_declared() -> None:
    run = make_run()
    mine = run.verdicts[(run.verdicts["implementation"] == "naive") & (run.verdicts["deviations"] == "")]
    found = row(run, "naive")
    assert found.verdict == "declared"
    assert found.bound_ratio == pytest.approx(mine["bound_ratio"].max())
    assert found.error_ulp == pytest.approx(mine["error_ulp"].max())
    assert found.grade == "B"


def test_refusals_are_counted_by_their_reason() -> None:
    found = row(make_run(), "bce-with-logits")
    assert found.refused
    assert found.refused.count("(") >= 1
    assert row(make_run(), "from-scratch").refused == ""


def test_a_failure_that_nobody_declared_is_wrong() -> None:
    run = make_run()
    accused = SyntheticRun(run.path, run.id, run.info, run.cells, run.verdicts.assign(deviations=""))
    assert row(accused, "naive").verdict == "wrong"
    assert row(accused, "naive").grade == "FAIL"


def test_an_empty_run_has_no_rows() -> None:
    assert accuracy(View.of(SyntheticRun(Path(), "none"))) == ()
