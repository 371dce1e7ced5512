from dataclasses import replace
from pathlib import Path

import pandas as pd
from synthetic_run import SyntheticRun, make_run

from xentbench.report.standing import DECLARED, RIGHT, UNTESTED, WRONG, answer, standings
from xentbench.report.view import View


def told(run: SyntheticRun) -> str:
    view = View.of(run)
    return answer(view, standings(view))


def stand(run: SyntheticRun, name: str):
    return next(entry for entry in standings(View.of(run)) if entry.name == name)


def test_outcomes_tell_right_declared_wrong_and_untested_apart() -> None:
    run = make_run()
    assert stand(run, "from-scratch").count(RIGHT) == 6
    assert stand(run, "naive").count(DECLARED) == 1
    assert stand(run, "one-hot").count(WRONG) == 1
    assert stand(run, "bce-with-logits").count(UNTESTED) == 5


def test_a_failure_that_nobody_declared_is_wrong() -> None:
    run = make_run()
    accused = replace(run, verdicts=run.verdicts.assign(deviations=""))
    assert stand(accused, "naive").count(WRONG) == 1
    assert stand(accused, "naive").grade == "FAIL"
    assert stand(run, "naive").grade == "B"


def test_the_answer_names_who_is_right_and_who_is_fastest() -> None:
    sentence = told(make_run())
    assert sentence.startswith("Of 13 implementations 10 are right on all 6 problems")
    assert "deviating as declared: naive" in sentence
    assert "wrong or failing somewhere: one-hot" in sentence
    assert "Fastest forward+backward at text (128, 8192): compiled-from-scratch, 1.70x" in sentence


def test_overlapping_intervals_forbid_a_single_winner() -> None:
    run = make_run()
    wide = run.cells.assign(ratio_low=run.cells["ratio"] * 0.8, ratio_high=run.cells["ratio"] * 1.2)
    assert "not told apart from compiled-f-cross-entropy" in told(replace(run, cells=wide))


def test_nobody_is_called_fastest_where_nobody_is_shown_to_be_faster() -> None:
    run = make_run()
    sentence = told(replace(run, cells=run.cells.assign(verdict="inconclusive")))
    assert "None is shown to be faster than F.cross_entropy" in sentence
    assert "Fastest" not in sentence


def test_where_all_are_shown_to_be_slower_the_answer_says_so_and_names_the_nearest() -> None:
    run = make_run()
    twin = run.cells["implementation"] == "f-cross-entropy"
    ratios = run.cells["ratio"].where(twin, 1.25)
    cells = run.cells.assign(ratio=ratios, ratio_low=ratios * 0.98, ratio_high=ratios * 1.02, verdict="slower")
    cells.loc[twin, "verdict"] = "same"
    cells.loc[cells["implementation"] == "naive", ["ratio", "ratio_low", "ratio_high"]] = [1.2, 1.18, 1.25]
    right = cells.assign(status="passed", reason="")
    sentence = told(replace(run, cells=right))
    assert "All are slower than F.cross_entropy, forward+backward at text (128, 8192): the nearest is naive" in sentence
    assert "0.83x [0.80, 0.85]" in sentence
    assert "None is shown" not in sentence
    assert "None is shown" in told(replace(run, cells=right.assign(verdict="inconclusive")))


def test_where_nothing_was_judged_nobody_is_called_wrong() -> None:
    run = make_run()
    cells = run.cells.assign(status="skipped", verdict="", ratio=None, reason="the budget was spent")
    sentence = told(replace(run, cells=cells, verdicts=run.verdicts.iloc[:0]))
    assert sentence.startswith("Of 13 implementations none was judged on all 6 problems; not tested")


def test_parity_without_timing_still_has_entries() -> None:
    run = replace(make_run(), cells=pd.DataFrame())
    entries = stand(run, "naive").entries
    assert {entry.text for entry in entries.values()} == {"right", "wrong-value"}
    assert "Fastest" not in told(run)


def test_an_empty_run_says_so() -> None:
    assert told(SyntheticRun(Path(), "none")) == "Nothing was run."
