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


def test_cells_that_were_not_timed_in_both_are_not_compared():
    assert compare.runs(stored(1.0), stored(1.0, status="wrong-value")) == []


def test_an_interval_without_an_end_is_inconclusive():
    (seen,) = compare.runs(stored(1.0), stored(1.0, width=math.inf))
    assert seen.outcome is Outcome.INCONCLUSIVE
