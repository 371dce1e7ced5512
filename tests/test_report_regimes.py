from __future__ import annotations

from dataclasses import replace

import pandas as pd
from synthetic_run import SyntheticRun, make_run

from xentbench.report import page
from xentbench.report.conditions import allocator, conditions
from xentbench.report.regimes import beside, is_settled, reversals
from xentbench.report.view import View


def run(
    *rows: tuple[str, float, float | None], cold_reason: str = "", reason: str = "", faults: float = 984.0
) -> SyntheticRun:
    """Return a run of one problem and phase, with each implementation's ratio warm and cold, two per cent wide."""
    whole = make_run("smoke")
    first = {**whole.cells.iloc[0], "status": "passed", "reason": reason, "cold_reason": cold_reason}
    cells = pd.DataFrame([{**first, "implementation": name, **_ratios(*r)} for name, *r in rows])
    cells.loc[cells.get("cold_ratio", cells["ratio"]).notna(), "cold_minor_faults"] = faults
    records = [{"name": name, "status": "passed"} for name, *_ in rows]
    verdicts = whole.verdicts.iloc[:0]
    return replace(whole, cells=cells, verdicts=verdicts, info={**whole.info, "implementations": records})


def _ratios(warm: float, cold: float | None) -> dict[str, float | None]:
    told = {"ratio": warm, "ratio_low": warm * 0.99, "ratio_high": warm * 1.01}
    if cold is None:
        return told
    return {**told, "cold_ratio": cold, "cold_low": cold * 0.99, "cold_high": cold * 1.01}


def test_a_pair_that_changes_places_is_told_and_no_other() -> None:
    view = View.of(run(("chunked", 1.13, 0.45), ("logsumexp", 1.42, 1.21)))
    told = reversals(view)
    assert len(told) == 1
    assert "F.cross_entropy is 1.13x as fast as chunked with the heap kept, and 0.45x as fast" in told[0]


def test_two_implementations_can_change_places_among_themselves() -> None:
    (told,) = reversals(View.of(run(("a", 2.0, 3.0), ("b", 3.0, 2.0))))
    assert "a is 1.50x as fast as b with the heap kept, and 0.67x as fast with the default allocator" in told


def test_the_entrant_that_is_the_baseline_is_not_told_apart_from_it() -> None:
    view = View.of(run(("f-cross-entropy", 1.0, 1.0), ("chunked", 1.13, 0.45)))
    assert len(reversals(view)) == 1
    assert is_settled(view)


def test_intervals_that_touch_tell_no_order() -> None:
    assert reversals(View.of(run(("a", 1.005, 0.9)))) == []
    assert reversals(View.of(run(("a", 1.5, 0.995)))) == []


def test_what_was_disturbed_tells_no_order() -> None:
    rows = ("chunked", 1.13, 0.45)
    assert reversals(View.of(run(rows, cold_reason="half-width: ±1.0%")))
    assert not reversals(View.of(run(rows, cold_reason="CPU share: 10% of the time was ours")))


def test_without_a_cold_time_there_is_nothing_beside() -> None:
    view = View.of(run(("a", 1.5, None)))
    assert beside(view) == []
    assert "The allocator" not in page.render(view)


def test_the_page_shows_both_regimes_and_what_changes_places() -> None:
    html = page.render(run(("chunked", 1.25, 0.5)))
    assert "The order depends on the allocator." in html
    assert "2.00x" in html
    assert ">984</td>" in html
    assert "No two implementations change places" in page.render(run(("steady", 1.25, 1.3)))


def test_what_could_not_be_told_is_not_said_to_keep_its_place() -> None:
    for close in (run(("a", 1.5, 0.995)), run(("a", 1.5, 1.4), cold_reason="half-width: ±9.0%", faults=0.0)):
        told = is_settled(View.of(close))
        html = page.render(close)
        assert ("No two implementations change places" in html) == told
        assert ("None is shown to change places" in html) != told
    assert not is_settled(View.of(run(("a", 1.5, 0.995))))


def test_both_reasons_are_given_and_faults_only_where_there_were_some() -> None:
    rows = ("a", 2.0, 3.0), ("b", 3.0, 2.0)
    quiet = run(*rows, reason="half-width: ±2.0%", cold_reason="half-width: ±9.0%", faults=0.0)
    html = page.render(quiet)
    assert "heap kept: half-width: ±2.0%; default: half-width: ±9.0%" in html
    assert "were not seen to fault" in html
    assert "page faults included" not in reversals(View.of(quiet))[0]
    assert reversals(View.of(run(*rows)))[0].endswith("page faults included")


def test_the_conditions_name_both_allocators_where_both_were_timed() -> None:
    for told in (allocator, lambda view: dict(conditions(view))["allocator"]):
        assert told(View.of(run(("a", 1.5, 1.4)))) == "warm and cold"
        assert told(View.of(run(("a", 1.5, None)))) == "glibc, mmap threshold 1 GiB"
