"""What counts as worse than the baseline, what is only told, and what the file keeps."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xentbench import baseline
from xentbench.baseline import Baseline, Entry
from xentbench.checking import Accuracy, Checked
from xentbench.spec import Description, Grade, Source, Status, UsageError

WAS = Accuracy(checks=100, grade=Grade.B, bound_ratio=0.1, error_ulp=2.0)
SOURCE = Source("built-in", "xentbench.implementations")


def described(name: str = "mine", **fields) -> Description:
    return Description(name, SOURCE, f"{name}.py", **fields)


def held(entry: Entry | Accuracy = WAS, name: str = "mine") -> Baseline:
    whole = entry if isinstance(entry, Entry) else Entry("pass", {"float32": entry})
    return Baseline(panel=1, grid="full", seed=7, implementations={name: whole})


def seen(accuracy: Accuracy | None = WAS, verdict: str = "pass", **fields) -> Checked:
    dtypes = {} if accuracy is None else {"float32": accuracy}
    return Checked(described(**fields), verdict, Status.PASSED, dtypes)


def told(was: Baseline, *now: Checked) -> list[tuple[bool, str]]:
    return [(change.fails, change.message) for change in baseline.compare(was, now)]


def test_the_same_again_is_no_change():
    assert told(held(), seen()) == []


ACCURACIES = st.builds(
    Accuracy,
    checks=st.integers(1, 1000),
    grade=st.sampled_from([grade for grade in Grade if grade is not Grade.FAIL]),
    bound_ratio=st.floats(0.0, 1.0),
    error_ulp=st.floats(0.0, 1e6),
)


@given(ACCURACIES)
def test_nothing_is_worse_than_itself(accuracy: Accuracy):
    assert told(held(accuracy), seen(accuracy)) == []


@given(ACCURACIES, ACCURACIES)
def test_of_two_that_differ_in_grade_or_checks_at_most_one_direction_fails(one: Accuracy, other: Accuracy):
    one, other = replace(one, bound_ratio=None), replace(other, bound_ratio=None, checks=one.checks)
    there, back = (any(fails for fails, _ in told(held(a), seen(b))) for a, b in ((one, other), (other, one)))
    assert not (there and back)


@given(ACCURACIES, ACCURACIES, st.integers(0, 100))
def test_fewer_checks_fail_whatever_else_is_seen(was: Accuracy, now: Accuracy, fewer: int):
    changes = told(held(was), seen(replace(now, checks=max(0, was.checks - 1 - fewer))))
    assert any(fails and "checks" in message for fails, message in changes)


@pytest.mark.parametrize("was", [grade for grade in Grade if grade is not Grade.FAIL])
@pytest.mark.parametrize("now", list(Grade))
def test_a_grade_fails_where_it_falls_to_h_c_or_fail_and_any_other_step_is_told(was: Grade, now: Grade):
    changes = told(held(replace(WAS, grade=was)), seen(replace(WAS, grade=now)))
    fell = now in (Grade.H, Grade.C, Grade.FAIL) and now.rank > was.rank
    expected = [] if was is now else [(fell, f"mine in float32: the grade was {was}, is {now}")]
    assert changes == expected


@pytest.mark.parametrize(
    ("was", "now", "fails"),
    [
        (0.1, 0.4, False),
        (0.1, 0.41, True),
        (0.01, 0.25, False),
        (0.01, 0.26, True),
        (0.5, 0.9, False),
        (0.4, 0.1, False),
    ],
)
def test_an_error_fails_beyond_four_times_what_it_was_and_a_quarter_of_its_bound(was: float, now: float, fails: bool):
    changes = told(held(replace(WAS, bound_ratio=was)), seen(replace(WAS, bound_ratio=now)))
    assert [failed for failed, _ in changes] == ([True] if fails else [])


def test_an_error_in_ulp_alone_is_not_compared():
    assert told(held(), seen(replace(WAS, error_ulp=1e9))) == []


def test_a_grade_that_is_no_longer_given_fails():
    assert told(held(), seen(replace(WAS, grade=None))) == [(True, "mine in float32: the grade was B, is none")]


def test_more_checks_are_told_and_a_dtype_that_is_missing_fails():
    assert told(held(), seen(replace(WAS, checks=101))) == [(False, "mine in float32: there were 100 checks, are 101")]
    assert told(held(), seen(None)) == [(True, "mine in float32: there were 100 checks, are 0")]
    assert told(held(Entry("pass")), seen()) == [(False, "mine in float32: there were 0 checks, are 100")]


def test_a_verdict_that_was_pass_and_is_not_fails_with_its_reason():
    assert told(held(), seen(verdict="fail")) == [(True, "mine: the verdict was pass, is fail")]
    broken = seen(None, "error", status=Status.IMPORT_FAILED, reason="ValueError: no")
    assert told(held(), broken) == [(True, "mine: the verdict was pass, is error (ValueError: no)")]


def test_who_needs_a_package_that_is_not_here_is_told_and_who_refuses_everything_fails():
    absent = seen(None, "unsupported", status=Status.UNSUPPORTED, reason="needs triton")
    assert told(held(), absent) == [(False, "mine: the verdict was pass, is unsupported (needs triton)")]
    assert all(fails for fails, _ in told(held(), seen(None, "unsupported")))
    assert told(held(Entry("unsupported")), absent) == []


def test_who_is_not_in_the_baseline_is_told():
    ((fails, message),) = told(held(name="other"), seen())
    assert not fails
    assert "mine is not in the baseline" in message


def test_the_census_fails_who_is_found_no_more_and_tells_who_is_new_and_does_not_compile():
    entries = [described("new"), described("compiled", compiles=True), described("absent", status=Status.UNSUPPORTED)]
    changes = baseline.census(held(), entries)
    assert [(change.implementation, change.fails) for change in changes] == [("mine", True), ("new", False)]
    assert baseline.census(held(), [described()]) == []


def test_who_was_given_by_hand_must_be_named_again_and_another_of_its_name_is_not_it(tmp_path):
    by_hand = replace(described(), source=Source("object", "mine.py:mine"))
    was = baseline.make([replace(seen(), entry=by_hand)], 1, "full", 7)
    baseline.write(tmp_path / "parity.json", was)
    assert baseline.read(tmp_path / "parity.json") == was
    assert was.registered == frozenset()
    (stale, new) = baseline.census(was, [described()])
    assert stale.fails
    assert "mine was given by hand when the baseline was made: name it again" in stale.message
    assert (new.implementation, new.fails) == ("mine", False)
    assert baseline.compare(was, [replace(seen(), entry=by_hand)]) == []
    assert told(was, seen()) == [(False, f"mine is not in the baseline: add it, {baseline.AGAIN}")]


def test_another_panel_says_how_to_make_the_file_anew():
    assert held().outdated(1) == ""
    assert "panel 1" in held().outdated(2)
    assert "--write-baseline" in held().outdated(2)


def test_the_file_gives_back_what_is_compared_and_is_made_for_reading(tmp_path):
    file = tmp_path / "parity.json"
    was = baseline.make([seen(replace(WAS, bound_ratio=0.123456, error_ulp=float("inf")))], 1, "full", 7)
    baseline.write(file, was)
    assert baseline.read(file) == held(Entry("pass", {"float32": replace(WAS, bound_ratio=0.123, error_ulp=None)}, {}))
    record = json.loads(file.read_text())
    assert (record["contract"], record["panel"], record["grid"], record["seed"]) == ("cross_entropy", 1, "full", 7)
    assert record["implementations"]["mine"]["dtypes"]["float32"]["grade"] == "B"
    baseline.write(file, baseline.read(file))
    assert json.loads(file.read_text()) == record


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema": 2, "contract": "cross_entropy"}',
        '{"schema": 1, "contract": "linear_cross_entropy"}',
        '{"schema": 1, "contract": "cross_entropy", "panel": 1, "grid": "full", "seed": 7, "implementations": []}',
        '{"schema": 1, "contract": "cross_entropy", "panel": 1, "grid": "full", "seed": 7, "implementations": [1]}',
    ],
)
def test_a_file_of_another_kind_is_told_in_one_sentence(tmp_path, text: str):
    file = tmp_path / "parity.json"
    file.write_text(text)
    with pytest.raises(UsageError, match="--baseline expected a file"):
        baseline.read(file)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        baseline.read(tmp_path / "absent.json")


def test_a_default_that_changes_fails_and_a_file_of_before_says_nothing_of_it(tmp_path):
    other = {"other_defaults": {"ignore_index": "-1"}, "offered": ("ignore_index", "reduction")}
    was = baseline.make([seen(**other)], 1, "full", 7)
    baseline.write(tmp_path / "b.json", was)
    assert baseline.read(tmp_path / "b.json") == was
    assert told(was, seen(**other)) == []
    assert told(was, seen(offered=("ignore_index",))) == [(True, "mine: the default of ignore_index was -1, is -100")]
    assert told(held(Entry("pass", {"float32": WAS}, {})), seen(**other)) == [
        (True, "mine: the default of ignore_index was -100, is -1")
    ]
    assert told(held(), seen(**other)) == []
