from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from xentbench import results, running
from xentbench.columns import CELL_COLUMNS
from xentbench.results import Run

LATE = {
    "status": "skipped",
    "reason": f"{results.SPENT} 10 s, less what its report needs, left no time for it: raise --budget",
}
NO_ROUNDS = {"status": "passed", "verdict": "inconclusive", "reason": "rounds: 0 kept, 8 needed"}
TIMED = {"status": "passed", "verdict": "same", "ratio": 1.0}
UNABLE = {"status": "unsupported", "reason": "two classes only"}
ABSENT = {"status": "skipped", "reason": "device cuda is not present on this machine"}


def untimed(*cells: dict[str, Any]) -> str:
    frame = pd.DataFrame(list(cells)).reindex(columns=list(CELL_COLUMNS))
    return running.untimed(Run(Path(), "r", {}, frame, pd.DataFrame()))


def test_a_run_that_timed_nothing_it_could_have_timed_says_why():
    assert untimed(LATE, UNABLE) == f"nothing was timed: {LATE['reason']}"
    assert untimed(NO_ROUNDS, NO_ROUNDS, ABSENT) == "nothing was timed: rounds: 0 kept, 8 needed: raise --budget"


def test_a_run_that_timed_something_or_could_time_nothing_is_left_alone():
    assert untimed(LATE, TIMED) == ""
    assert untimed(UNABLE, ABSENT) == ""
