from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import FAMILIES, ULPS, SyntheticRun, make_full_run, make_run

from xentbench.report import page
from xentbench.report.errormap import letters
from xentbench.report.families import Loss, losses
from xentbench.report.figures import figures
from xentbench.report.view import View


def test_there_is_an_entry_for_whatever_was_asked_and_none_for_what_was_not() -> None:
    found = losses(View.of(make_full_run()))
    assert (found.dtypes, found.families, found.shapes) == (tuple(ULPS), FAMILIES, ("(32, 1000)",))
    assert found.at("from-scratch", "float32", "normal").verdict == "right"
    assert found.at("compiled-from-scratch", "float32", "normal") == Loss()
    assert found.at("bce-with-logits", "float32", "normal").verdict == "refused"
    assert found.at("naive", "float16", "wide").verdict == "wrong"
    assert found.at("focal-gamma-0", "float64", "masked").verdict == "declared"


def test_without_problems_asked_alone_those_of_the_run_speak_and_the_worst_counts() -> None:
    run = make_run()
    found = losses(View.of(run))
    mine = run.verdicts[(run.verdicts["implementation"] == "from-scratch") & ~run.verdicts["problem"].str.contains("@")]
    assert found.shapes == ()
    assert found.families == ("normal", "digits", "text")
    assert found.at("from-scratch", "float32", "normal").error_ulp == pytest.approx(mine["error_ulp"].max())


def test_what_was_refused_without_a_verdict_is_refused_and_not_left_blank() -> None:
    run = make_run()
    asked = replace(run, verdicts=run.verdicts[run.verdicts["status"] != "unsupported"])
    entry = losses(View.of(asked)).at("bce-with-logits", "float32", "digits")
    assert (entry.verdict, entry.reason) == ("refused", "two classes only, got C=10")


def test_the_page_says_why_somebody_refused_and_leaves_a_picture_of_refusals_alone_out() -> None:
    run = make_full_run()
    html = page.render(run)
    assert "why refused" in html
    asked = run.accuracies[run.accuracies["status"] == "unsupported"].assign(reason="does not offer reduction=none")
    alone = replace(run, accuracies=asked)
    html = page.render(alone)
    assert "nothing was answered" in html
    assert "does not offer reduction=none" in html
    assert 'id="family-table"' not in html
    assert "accuracy" not in figures(alone)


def test_an_error_that_is_large_in_ulp_and_right_is_explained() -> None:
    found = losses(View.of(make_full_run()))
    entries = {("a", "float32", "peaked"): Loss("right", "B", 440000.0, 0.3)}
    assert replace(found, entries=entries).is_cancelling
    assert not replace(found, entries={("a", "float32", "peaked"): Loss("wrong", "FAIL", 440000.0, 9.0)}).is_cancelling


def test_a_run_of_nothing_has_no_entries() -> None:
    assert losses(View.of(SyntheticRun(Path(), "none"))).entries == {}


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        (Loss("right", "B", 0.27), "0.27"),
        (Loss("right", "B", 374.0), "370"),
        (Loss("wrong", "FAIL", 374.0), "✗ 370"),
        (Loss("wrong", "FAIL"), "✗"),
        (Loss("declared", "FAIL", 2.0), "(2)"),
        (Loss("declared"), "(declared)"),
        (Loss("refused"), ""),
        (Loss(), ""),
    ],
)
def test_a_cell_says_what_is_wrong_without_its_colour(entry: Loss, shown: str) -> None:
    assert letters(entry) == shown
    assert math.isnan(Loss().error_ulp)
