from __future__ import annotations

import pytest

from xentbench import offers
from xentbench.spec import Problem, UsageError

PLAIN = Problem(batch_size=8)
WEIGHTED = Problem(batch_size=8, weight="random")
BOTH = Problem(batch_size=8, weight="random", label_smoothing=0.1)


@pytest.mark.parametrize(
    ("axes", "options"),
    [
        ({}, set()),
        ({"weight": "random", "reduction": "sum"}, {"weight", "reduction"}),
        ({"ignored": 0.3, "label_smoothing": 0.1}, {"ignore_index", "label_smoothing"}),
        ({"target": "soft"}, {"probabilities"}),
        ({"dims": (3, 4)}, {"k-dim"}),
    ],
)
def test_a_problem_exercises_what_it_makes_a_difference_of(axes, options):
    assert offers.exercised(Problem(batch_size=8, **axes)) == options
    assert options <= set(offers.OPTIONS)


def test_an_option_is_refused_where_a_reason_names_it_and_the_shortest_is_told():
    refusals = {BOTH.key: "does not offer weight=random, label_smoothing=0.1", WEIGHTED.key: "does not offer weight"}
    assert offers.refused([PLAIN], refusals)["weight"] == "does not offer weight"


def test_an_option_that_was_answered_is_not_blamed_for_a_refusal_that_names_another():
    refused = offers.refused([WEIGHTED], {BOTH.key: "does not offer label_smoothing=0.1"})
    assert refused == {"label_smoothing": offers.ABSENT}
    given = "no smoothing of classes: label_smoothing is for another loss"
    told = offers.refused(
        [WEIGHTED],
        {BOTH.key: "does not offer label_smoothing=0.1", Problem(batch_size=9, label_smoothing=0.1).key: given},
    )
    assert told == {"label_smoothing": given}


def test_an_option_that_was_never_asked_for_want_of_others_is_not_told_with_what_it_has_nothing_to_do_with():
    deep = Problem(batch_size=8, dims=(3,), weight="random", reduction="none")
    flat = Problem(batch_size=8, dims=(3,), reduction="sum")
    lacking = {deep.key: "does not offer weight=random, reduction=none", flat.key: "does not offer reduction=sum"}
    told = offers.refused([PLAIN], lacking)
    expected = "not asked: all problems with it need weight or reduction too, which its signature does not have"
    assert told == {"weight": offers.ABSENT, "reduction": offers.ABSENT, "k-dim": expected}
    assert "two classes only" in offers.refused([PLAIN], {**lacking, flat.key: "two classes only"})["k-dim"]


def test_an_option_that_a_name_merely_contains_is_not_named():
    assert offers.refused([WEIGHTED], {BOTH.key: "weights of a class", PLAIN.key: "no"}).keys() == {"label_smoothing"}


def test_an_option_that_nobody_answered_is_refused_whatever_the_reason_and_that_is_told():
    refused = offers.refused([PLAIN], {WEIGHTED.key: "two classes only"})
    assert refused == {"weight": "no problem with it was answered (two classes only)"}


def test_what_is_refused_for_its_sizes_is_offered_where_another_size_was_answered():
    wide = Problem(batch_size=8, num_classes=3, weight="random")
    assert offers.refused([WEIGHTED], {wide.key: "ten classes only"}) == {}


def test_the_commonest_reason_is_one_that_was_given_not_one_that_a_signature_lacks():
    lacks = ["does not offer weight=random"] * 3
    assert offers.commonest([*lacks, "for two classes", "not for Long", "not for Long"]) == "not for Long"
    assert offers.commonest([*lacks, "does not offer reduction=sum"]) == lacks[0]
    assert offers.commonest([]) == ""


def test_an_answer_without_rows_or_where_raising_is_right_proves_no_option():
    empty = Problem(batch_size=0, num_classes=3, target="soft")
    must = Problem(batch_size=2, num_classes=5, dims=(3,), invalid="label-high")
    may = Problem(batch_size=5, num_classes=4, weight="random", label_dtype="int32")
    soft, wide = Problem(batch_size=8, target="soft"), Problem(batch_size=8, dims=(3,))
    refusals = {problem.key: "RuntimeError: no" for problem in (soft, wide, WEIGHTED)}
    assert offers.refused([PLAIN, empty, must, may], refusals).keys() == {"probabilities", "k-dim", "weight"}
    with pytest.raises(UsageError, match="got none"):
        offers.demanded(["probabilities"], [PLAIN, empty], "--require-option")
