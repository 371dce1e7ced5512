from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from xentbench import compare
from xentbench.results import CELL_COLUMNS, Run
from xentbench.spec import EnvironmentMismatchError, Outcome


def stored(ratio: float, width: float = 0.005, status: str = "passed", **environment) -> Run:
    row = {
        "implementation": "a",
        "problem": "cross_entropy:N=8,C=10",
        "phase": "forward",
        "status": status,
        "ratio": ratio,
        "ratio_low": ratio * math.exp(-width),
        "ratio_high": ratio * math.exp(width),
    }
    cells = pd.DataFrame([row]).reindex(columns=list(CELL_COLUMNS))
    return Run(Path(), "r", {"environment": {"torch": "2", **environment}}, cells, pd.DataFrame())


@pytest.mark.parametrize(
    ("second", "width", "expected"),
    [
        (1.10, 0.005, Outcome.WORSE),
        (0.90, 0.005, Outcome.BETTER),
        (1.001, 0.005, Outcome.SAME),
        (1.10, 0.2, Outcome.INCONCLUSIVE),
        (1.015, 0.001, Outcome.SAME),
    ],
)
def test_a_difference_counts_beyond_the_margin_and_the_interval(second: float, width: float, expected: Outcome):
    (seen,) = compare.runs(stored(1.0, width), stored(second, width))
    assert seen.outcome is expected
    assert seen.ratio == pytest.approx(second)


def test_unlike_environments_are_refused_with_the_keys_unless_forced():
    with pytest.raises(EnvironmentMismatchError, match=r"torch \(2 and 3\).*--force"):
        compare.runs(stored(1.0), stored(1.0, torch="3"))
    assert compare.runs(stored(1.0), stored(1.0, torch="3"), force=True)


def test_what_was_right_and_is_wrong_now_is_worse_whatever_its_time():
    (seen,) = compare.runs(stored(1.0), stored(1.0, status="wrong-value"))
    assert (seen.outcome, seen.reason) == (Outcome.WORSE, "passed before, now wrong-value")


def test_what_is_not_there_any_more_is_inconclusive_and_what_never_passed_is_left_out():
    gone = stored(1.0)
    gone = Run(gone.path, gone.id, gone.info, gone.cells.iloc[:0], gone.verdicts)
    (seen,) = compare.runs(stored(1.0), gone)
    assert (seen.outcome, seen.reason) == (Outcome.INCONCLUSIVE, "passed before, now absent")
    assert compare.runs(stored(1.0, status="unsupported"), stored(1.0)) == []


def test_an_interval_without_an_end_is_inconclusive():
    (seen,) = compare.runs(stored(1.0), stored(1.0, width=math.inf))
    assert seen.outcome is Outcome.INCONCLUSIVE
