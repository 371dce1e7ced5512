from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import SyntheticRun, make_run

from xentbench.report.pareto import Rival, rivals, unbeaten
from xentbench.report.view import View


def rival(speedup: float = 1.0, error_ulp: float = 1.0, peak: float = 1.0, width: float = 0.01) -> Rival:
    return Rival("a", speedup, speedup * (1 - width), speedup * (1 + width), error_ulp, peak, peak)


numbers = st.integers(1, 5).map(float)
anybody = st.builds(rival, numbers, numbers, numbers, st.sampled_from([0.01, 0.5]))


@given(st.lists(anybody, min_size=1, max_size=8))
def test_somebody_is_always_unbeaten_and_whoever_is_beaten_is_beaten_by_somebody(these: list[Rival]) -> None:
    frontier = unbeaten(these)
    assert frontier
    for one in these:
        assert (one in frontier) != any(other.beats(one) for other in these if other is not one)


@given(anybody, anybody)
def test_two_never_beat_each_other(one: Rival, other: Rival) -> None:
    assert not (one.beats(other) and other.beats(one))
    assert not one.beats(one)


def test_a_speed_that_intervals_do_not_tell_apart_beats_nobody_by_itself() -> None:
    assert not rival(1.05, width=0.1).beats(rival(1.0, width=0.1))
    assert rival(1.5, width=0.1).beats(rival(1.0, width=0.1))


def test_more_memory_or_a_larger_error_beats_nobody() -> None:
    assert not rival(9.0, error_ulp=2.0).beats(rival())
    assert not rival(9.0, peak=2.0).beats(rival())
    assert rival(1.0, peak=0.5).beats(rival())


def test_only_what_is_right_and_timed_is_a_rival() -> None:
    run = make_run()
    found = rivals(View.of(run))
    text = next(key for key in found if "text" in key)
    assert "naive" not in {one.name for one in found[text]}
    assert len(found[text]) == 11
    assert rivals(View.of(replace(run, verdicts=run.verdicts.iloc[:0]))) == {}
    assert rivals(View.of(SyntheticRun(Path(), "none"))) == {}
