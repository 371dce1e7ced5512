from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic_run import SyntheticRun, make_full_run, make_run

from xentbench.report.picker import data, lines
from xentbench.report.picks import DEFAULT, KEPT, MAX_SIZES, Pick, cold, first, narrowed, regimes, spread
from xentbench.report.standing import standings
from xentbench.report.view import View


def test_of_many_sizes_an_even_choice_with_both_ends_is_shown_first() -> None:
    view = View.of(make_run("mixed"))
    chosen = view.problems.loc[[*first(view).problems]]
    assert len(chosen) == MAX_SIZES < len(view.problems)
    ends = (view.problems["elements"].min(), view.problems["elements"].max())
    assert (chosen["elements"].min(), chosen["elements"].max()) == ends
    assert list(spread(view.problems, 100).index) == list(view.problems.index)


def test_a_view_is_narrowed_to_what_is_picked() -> None:
    view = View.of(make_run())
    keys = tuple(view.problems.index[:2])
    part = narrowed(view, Pick(keys, "forward"))
    assert set(part.cells["problem"]) == set(part.verdicts["problem"]) == set(keys)
    assert (part.headline, len(part.cells)) == ("forward", 2 * 13)


def test_the_default_allocator_is_picked_where_it_was_timed() -> None:
    view = View.of(make_full_run())
    assert regimes(view) == (KEPT, DEFAULT)
    assert regimes(View.of(make_run())) == (KEPT,)
    row = narrowed(view, Pick(tuple(view.problems.index), "forward", DEFAULT)).cells.dropna(subset=["speedup"]).iloc[0]
    assert row["speedup"] == pytest.approx(1 / row["cold_ratio"])
    assert row["speedup_low"] < row["speedup"] < row["speedup_high"]
    assert row["latency_s"] == row["cold_latency_s"]


@pytest.mark.parametrize(
    ("low", "high", "reason", "verdict"),
    [
        (0.5, 0.9, "", "faster"),
        (1.2, 1.3, "", "slower"),
        (0.995, 1.005, "", "same"),
        (0.985, 0.995, "", "same"),
        (0.5, 0.9, "half-width: ±12%", "inconclusive"),
        (np.nan, np.nan, "", "inconclusive"),
    ],
)
def test_a_verdict_with_the_default_allocator_follows_the_clocks_rule(
    low: float, high: float, reason: str, verdict: str
) -> None:
    cells = View.of(make_full_run("smoke")).cells.iloc[:1]
    assert cold(cells.assign(cold_low=low, cold_high=high, cold_reason=reason))["verdict"].iloc[0] == verdict


def test_every_entry_of_every_pick_is_in_the_data_once() -> None:
    view = View.of(make_full_run())
    told = data(view, standings(view))
    assert np.array(told["entries"]).shape == (2, 4, 13, 6, len(told["fields"]))
    assert len(told["texts"]) == len(set(told["texts"]))
    assert max(np.array(told["entries"]).ravel()) < len(told["texts"])
    assert [told["sizes"][place] for place in told["bySize"]][-1] == "text (128,\N{NO-BREAK SPACE}8192)"


def test_how_many_are_right_is_told_of_the_whole_run_whatever_is_picked() -> None:
    view = View.of(make_run("mixed"))
    shown = {line.name: line for line in lines(view, standings(view))}
    assert shown["from-scratch"].right == "21/21"
    assert len(shown["from-scratch"].entries) == 6
    assert all(anchor.startswith("cell-") for anchor in shown["from-scratch"].anchors)


def test_a_run_of_nothing_has_nothing_to_pick() -> None:
    view = View.of(SyntheticRun(Path(), "none"))
    assert first(view) == Pick((), "")
    assert lines(view, ()) == []
    assert data(view, ())["entries"] == [[[]]]
