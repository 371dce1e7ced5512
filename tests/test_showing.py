from __future__ import annotations

import pytest

from xentbench import showing
from xentbench.compare import Difference
from xentbench.spec import Outcome


@pytest.mark.parametrize(
    ("outcomes", "passes", "code"),
    [
        (["same", "better"], False, 0),
        (["same", "worse", "inconclusive"], True, 1),
        (["same", "inconclusive"], False, 3),
        (["same", "inconclusive"], True, 0),
        ([], False, 3),
    ],
)
def test_the_exit_code_of_a_comparison(outcomes: list[str], passes: bool, code: int):
    found = [Difference("a", "p", "forward", Outcome(outcome)) for outcome in outcomes]
    assert showing.comparison_exit(found, inconclusive_passes=passes) == code
