"""The failures that are shown: every kind once before any kind twice."""

from __future__ import annotations

from xentbench.foremost import FEW, MOST, foremost


def failure(quantity: str, message: str, dtype: str = "float32") -> dict[str, str]:
    return {"quantity": quantity, "message": message, "problem": f"cross_entropy:N=8,C=2,dtype={dtype}"}


def test_a_harmless_kind_leaves_room_for_every_other_kind():
    harmless = [failure("gradient", f"off by {n}; looks like: computed in float32", "float64") for n in range(9)]
    grave, silent = failure("gradient", "off by 580"), failure("double-backward", "is zero")
    assert foremost([*harmless, grave, silent]) == [harmless[0], grave, silent]


def test_the_same_sentence_is_shown_once():
    assert foremost([failure("gradient", "gradient is absent")] * 7) == [failure("gradient", "gradient is absent")]


def test_of_one_kind_other_dtypes_come_first_and_a_few_are_shown():
    many = [failure("value", f"loss is {n}", "float64" if n < 5 else "bfloat16") for n in range(9)]
    assert foremost(many) == [many[0], many[1], many[5]]
    assert len(foremost(many)) == FEW


def test_every_quantity_comes_before_a_second_mistake_of_one_and_the_number_is_bounded():
    value = [failure("value", f"off; looks like: mistake {'abcdefg'[n]}") for n in range(7)]
    others = [failure(quantity, "no") for quantity in ("gradient", "repeat", "leak", "exception")]
    assert foremost([*value, *others]) == [value[0], *others]
    assert len(foremost(value)) == MOST
    assert foremost([]) == []


def test_a_failure_that_belongs_to_no_problem_is_shown():
    assert len(foremost([{"quantity": "exception", "message": "stale", "problem": ""}])) == 1
