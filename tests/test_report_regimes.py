from __future__ import annotations

from dataclasses import replace

import pandas as pd
from synthetic_run import SyntheticRun, make_run

from xentbench.report import page
from xentbench.report.regimes import beside, reversals
from xentbench.report.view import View


def run(*rows: tuple[str, float, float | None], cold_reason: str = "") -> SyntheticRun:
    """Return a run of one problem and phase, with each implementation's ratio warm and cold, two per cent wide."""
    whole = make_run("smoke")
    first = {**whole.cells.iloc[0], "status": "passed", "reason": "", "cold_reason": cold_reason}
    cells = pd.DataFrame([{**first, "implementation": name, **_ratios(*r)} for name, *r in rows])
    records = [{"name": name, "status": "passed"} for name, *_ in rows]
    verdicts = whole.verdicts.iloc[:0]
    return replace(whole, cells=cells, verdicts=verdicts, info={**whole.info, "implementations": records})


def _ratios(warm: float, cold: float | None) -> dict[str, float | None]:
    told = {"ratio": warm, "ratio_low": warm * 0.99, "ratio_high": warm * 1.01}
    if cold is None:
        return told
    return {**told, "cold_ratio": cold, "cold_low": cold * 0.99, "cold_high": cold * 1.01, "cold_minor_faults": 984.0}


def test_a_pair_that_changes_places_is_told_and_no_other() -> None:
    view = View.of(run(("chunked", 1.13, 0.45), ("logsumexp", 1.42, 1.21)))
    told = reversals(view)
    assert len(told) == 1
    assert "F.cross_entropy is 1.13x as fast as chunked with the heap kept, and 0.45x as fast" in told[0]


def test_two_implementations_can_change_places_among_themselves() -> None:
    (told,) = reversals(View.of(run(("a", 2.0, 3.0), ("b", 3.0, 2.0))))
    assert "a is 1.50x as fast as b with the heap kept, and 0.67x as fast with the default allocator" in told


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
