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


def test_a_comparison_that_was_forced_says_so_in_every_line_and_record(capsys: pytest.CaptureFixture[str]):
    forced = Difference("a", "c:N=8", "forward", Outcome.WORSE, 1.1, 1.05, 1.15, 0.01, unlike=("torch", "cpu"))
    showing.differences([forced, forced], "run-1", "run-2")
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("unlike environments: torch, cpu") == 2
    assert "first: run-1, second: run-2" in told
    assert showing.difference(forced)["unlike"] == ("torch", "cpu")
