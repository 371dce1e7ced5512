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


def test_a_comparison_in_markdown_holds_strangers_words_as_code_and_says_what_the_margin_means():
    evil = Difference("a", "c:N=8", "forward", Outcome.WORSE, 1.1, 1.06, 1.15, reason="<b>|`x` [y](z)\n# head")
    told = showing.differences_markdown([evil], "main:a|b", "`b`", 0.05)
    assert "### Is `` `b` `` slower than `main:a¦b`?" in told
    assert "| `N=8` | `forward` | 1.100 [1.060, 1.150] | **worse** | ``<b>¦`x` [y](z) # head`` |" in told
    assert "the whole interval lies beyond +5 %" in told
    assert "interval" not in showing.differences_markdown([evil], "a", "b", None)
