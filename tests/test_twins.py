from __future__ import annotations

import pytest
from scipy import stats

from xentbench import twins
from xentbench.measured import Measured
from xentbench.spec import Comparison, Problem, Status


def measured(
    ratio: float, verdict: Comparison = Comparison.INCONCLUSIVE, width: float = 0.004, reason: str = "half-width: ±0.4%"
):
    return Measured(Status.PASSED, reason, ratio, ratio * (1 - width), ratio * (1 + width), verdict=verdict)


SLOWER, FASTER = measured(1.05, Comparison.SLOWER, reason=""), measured(0.95, Comparison.FASTER, reason="")
SAME, WIDE = measured(1.0), measured(1.0, width=0.1, reason="half-width: ±10.0%")
DISTURBED = measured(1.0, reason="CPU share: 10% of the time was ours")


def test_every_duel_is_different_same_or_inconclusive_and_says_why():
    seen = twins.trial("(8, 10)", "twins", [SLOWER, FASTER, SAME, SAME, WIDE, DISTURBED])
    assert (seen.duels, seen.different, seen.backwards, seen.same, seen.inconclusive) == (6, 2, 1, 2, 2)
    assert seen.reasons == ("half-width", "CPU share")
    assert seen.record()["inconclusive"] == 2


def test_twins_may_be_called_different_as_often_as_the_bar_allows_and_no_more():
    assert twins.trial("", "twins", [SAME] * 100).passed
    assert twins.trial("", "twins", [SAME] * 98 + [SLOWER] * 2).passed
    assert not twins.trial("", "twins", [SAME] * 94 + [SLOWER] * 6).passed


def test_what_is_slower_may_stay_unseen_but_never_be_faster_or_same():
    assert twins.trial("", "plus_5", [WIDE, DISTURBED, SLOWER]).passed
    assert not twins.trial("", "plus_5", [WIDE, SAME]).passed
    assert not twins.trial("", "plus_10", [SLOWER, FASTER]).passed
    assert twins.trial("", "plus_2", [SAME, SLOWER]).passed


@pytest.mark.parametrize(("seen", "tried"), [(0, 100), (3, 300), (100, 100)])
def test_the_bound_is_the_rate_at_which_so_few_would_be_seen_once_in_twenty_times(seen: int, tried: int):
    bound = twins.upper_bound(seen, tried)
    assert bound == 1 if seen == tried else stats.binom.cdf(seen, tried, bound) == pytest.approx(0.05)


def test_real_arms_are_dueled_and_a_tenth_more_is_never_faster():
    class Nobody:
        def stage(self, title: str, steps: int) -> None: ...
        def step(self, text: str) -> None: ...

    problem = Problem(batch_size=8, num_classes=10)
    found = twins.trials(1, Nobody(), {"twins": 2, "plus_10": 2}, {problem: 0.2})  # type: ignore[arg-type]
    assert [(trial.pair, trial.duels) for trial in found] == [("twins", 2), ("plus_10", 2)]
    assert found[1].backwards == 0
