from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xentbench import compare, environment
from xentbench.columns import CELL_COLUMNS
from xentbench.results import Run
from xentbench.spec import EnvironmentMismatchError, Outcome

ALIKE = dict.fromkeys(environment.COMPARABLE, "as ever")
PROBLEM = "cross_entropy:N=8,C=10"


def stored(
    *logs: list[float] | None,
    status: str = "passed",
    clock: str = "wall",
    quickest: list[float] | None = None,
    **unlike,
) -> Run:
    """Return a run of one cell a list of workers' log ratios, named a, b, c."""
    rows = [
        {
            "implementation": name,
            "problem": PROBLEM,
            "phase": "forward",
            "status": status,
            "clock": clock,
            "worker_log_ratios": one,
            "worker_quickest_log_ratios": one if quickest is None else quickest,
        }
        for name, one in zip("abcdefghij", logs, strict=False)
    ]
    cells = pd.DataFrame(rows).reindex(columns=list(CELL_COLUMNS))
    return Run(Path(), "r", {"environment": ALIKE | unlike}, cells, pd.DataFrame())


def workers(ratio: float, spread: float = 0.005) -> list[float]:
    return [float(np.log(ratio)) + by * spread for by in (-1.0, 0.0, 1.0)]


@pytest.mark.parametrize(
    ("second", "spread", "expected"),
    [
        (1.10, 0.005, Outcome.WORSE),
        (0.90, 0.005, Outcome.BETTER),
        (1.001, 0.005, Outcome.SAME),
        (1.10, 0.2, Outcome.INCONCLUSIVE),
        (1.015, 0.0001, Outcome.SAME),  # beyond doubt, and within the margin
        (1.03, 0.02, Outcome.INCONCLUSIVE),
    ],
)
def test_a_difference_counts_beyond_the_margin_and_beyond_chance(second: float, spread: float, expected: Outcome):
    (seen,) = compare.runs(stored(workers(1.0, spread)), stored(workers(second, spread)))
    assert seen.outcome is expected
    assert seen.ratio == pytest.approx(second)
    assert seen.ratio_low < seen.ratio < seen.ratio_high
    assert bool(seen.reason) == (expected is Outcome.INCONCLUSIVE)


@pytest.mark.parametrize(("typical", "quickest"), [(1.20, 1.005), (0.8, 1.0), (1.1, 0.9)])
def test_where_typical_calls_moved_alone_or_the_other_way_it_may_be_the_machine(typical: float, quickest: float):
    (seen,) = compare.runs(stored(workers(1.0)), stored(workers(typical), quickest=workers(quickest)))
    assert seen.outcome is Outcome.INCONCLUSIVE
    assert f"typical calls took {typical:.3f} times as long, the quickest {quickest:.3f}" in seen.reason
    assert seen.ratio == pytest.approx(quickest)


@pytest.mark.parametrize(("typical", "spread"), [(1.0, 0.005), (1.0, 0.1), (1.3, 0.1)])
def test_the_quickest_calls_decide_where_typical_ones_do_not_contradict(typical: float, spread: float):
    before, after = (
        stored(workers(ratio, spread), quickest=workers(least)) for ratio, least in ((1.0, 1.0), (typical, 1.1))
    )
    assert [one.outcome for one in compare.runs(before, after)] == [Outcome.WORSE]


def test_a_difference_that_one_cell_shows_may_be_chance_among_ten():
    still = [workers(1.0, 0.02)] * 9
    (alone,) = compare.runs(stored(workers(1.0, 0.02)), stored(workers(1.08, 0.02)))
    among = compare.runs(stored(*still, workers(1.0, 0.02)), stored(*still, workers(1.05, 0.02)))[-1]
    assert alone.outcome is Outcome.WORSE
    assert among.outcome is Outcome.INCONCLUSIVE
    assert among.adjusted_p == pytest.approx(10 * min(1.0, among.adjusted_p / 10))
    assert "over all cells" in among.reason


def test_one_worker_a_run_allows_no_claim():
    (seen,) = compare.runs(stored([0.0]), stored([1.0]))
    assert (seen.outcome, seen.ratio) == (Outcome.INCONCLUSIVE, None)
    assert seen.reason == "one worker a run allows no claim across runs"


def test_a_run_of_an_older_version_is_to_be_measured_again():
    (seen,) = compare.runs(stored(None), stored(workers(1.0)))
    assert seen.outcome is Outcome.INCONCLUSIVE
    assert "measure it again" in seen.reason


def test_a_call_that_another_clock_decides_now_is_not_compared():
    (seen,) = compare.runs(stored(workers(1.0)), stored(workers(1.1), clock="cpu"))
    assert (seen.outcome, seen.reason) == (Outcome.INCONCLUSIVE, "timed by wall before, by cpu now")


def test_unlike_environments_are_refused_with_the_keys_unless_forced():
    first, second = stored(workers(1.0)), stored(workers(1.1), torch="3")
    with pytest.raises(EnvironmentMismatchError, match=r"torch \(as ever and 3\).*--force"):
        compare.runs(first, second)
    (seen,) = compare.runs(first, second, force=True)
    assert (seen.outcome, seen.unlike) == (Outcome.WORSE, ("torch",))


def test_environments_that_do_not_tell_are_refused():
    first, second = stored(workers(1.0)), stored(workers(1.0))
    for run in (first, second):
        run.info["environment"] = {key: value for key, value in ALIKE.items() if key != "allocator"}
    with pytest.raises(EnvironmentMismatchError, match=r"allocator \(not told and not told\)"):
        compare.runs(first, second)


def test_what_was_right_and_is_wrong_now_is_worse_whatever_its_time():
    (seen,) = compare.runs(stored(workers(1.0)), stored(workers(0.5), status="wrong-value"))
    assert (seen.outcome, seen.reason) == (Outcome.WORSE, "passed before, now wrong-value")


def test_what_is_not_there_any_more_is_inconclusive_and_what_never_passed_is_left_out():
    right = stored(workers(1.0))
    gone = Run(right.path, right.id, right.info, right.cells.iloc[:0], right.verdicts)
    (seen,) = compare.runs(right, gone)
    assert (seen.outcome, seen.reason) == (Outcome.INCONCLUSIVE, "passed before, now absent")
    assert compare.runs(stored(None, status="unsupported"), right) == []
