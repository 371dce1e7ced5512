from __future__ import annotations

import pytest

from xentbench import showing
from xentbench.checking import Checked
from xentbench.compare import Difference
from xentbench.judging import Judged
from xentbench.planning import Posed
from xentbench.spec import Description, Outcome, Side, Source, Status


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


def unfit(wrong: Side, reason: str = "mine: wrong-value, loss is inf") -> list[Difference]:
    outcome = Outcome.INCONCLUSIVE if wrong is Side.FIRST else Outcome.WORSE
    return [Difference("b", "c:N=8", phase, outcome, reason=reason, wrong=wrong) for phase in ("forward", "backward")]


def test_where_the_first_is_wrong_there_is_nothing_to_compare_with_and_no_time_would_help(
    capsys: pytest.CaptureFixture[str],
):
    showing.differences(unfit(Side.FIRST), "a", "b", 0.05)
    assert showing.comparison_exit(unfit(Side.FIRST), inconclusive_passes=False) == 3
    seen = capsys.readouterr()
    line = "FIRST is not right here: mine: wrong-value, loss is inf: there is nothing to compare with"
    assert seen.out.splitlines()[-1] == line
    assert "--workers" not in seen.err
    assert "--inconclusive pass" in seen.err
    showing.comparison_exit(
        [*unfit(Side.FIRST), Difference("b", "c:N=9", "forward", Outcome.INCONCLUSIVE)], inconclusive_passes=False
    )
    assert "spend more (--workers)" in capsys.readouterr().err


def test_a_first_that_is_absent_is_told_in_the_same_words(capsys: pytest.CaptureFixture[str]):
    showing.differences(unfit(Side.FIRST, "nothing to compare with: no function 'f'"), "a", "b")
    line = "FIRST is not right here: no function 'f': there is nothing to compare with"
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_where_the_second_is_wrong_the_reason_is_told_once_and_no_interval_is_spoken_of(
    capsys: pytest.CaptureFixture[str],
):
    showing.differences(unfit(Side.SECOND), "a", "b", 0.05)
    seen = capsys.readouterr().out
    assert seen.splitlines()[-1] == "SECOND is wrong: mine: wrong-value, loss is inf"
    assert seen.count("loss is inf") == 1
    assert showing.comparison_exit(unfit(Side.SECOND), inconclusive_passes=True) == 1
    text = showing.differences_markdown(unfit(Side.SECOND), "a", "b", 0.05)
    assert "`SECOND is wrong: mine: wrong-value, loss is inf`" in text
    assert "whole interval" not in text


def test_the_full_hash_of_a_commit_is_cut_in_a_heading():
    text = showing.differences_markdown(unfit(Side.SECOND), f"{'0123456789' * 4}:a.py:f", "b", None)
    assert "### Is `b` slower than `0123456789:a.py:f`?" in text


def refusing(**refused: str) -> Judged:
    entry = Description("mine", Source("object", "mine.py:mine"), "mine.py")
    return Judged((Checked(entry, "pass", Status.PASSED, refused=refused),), Posed((), {}, {}, ()), 1)


def test_what_a_signature_lacks_was_not_asked_and_is_not_called_refused(capsys: pytest.CaptureFixture[str]):
    lacks = {f"p{count}": "does not offer weight=random" for count in range(3)}
    showing.judged(refusing(**lacks))
    told = capsys.readouterr().out
    assert "mine was not asked 3 problems with options that its signature does not have:" in told
    assert "refused" not in told
    showing.judged(refusing(**lacks, other="two classes only"))
    assert "mine refused 1 problem and was not asked 3 problems with options" in capsys.readouterr().out
