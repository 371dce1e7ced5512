"""What failing problems share is told where passing ones do not, and nothing is told where nothing is shared."""

from hypothesis import given
from hypothesis import strategies as st

from xentbench import panel, pattern
from xentbench.spec import Problem

FULL = panel.panel("full")


def told(fails) -> str:
    return pattern.common([p for p in FULL if fails(p)], [p for p in FULL if not fails(p)])


def test_the_option_that_all_failures_have_is_named_with_how_many_others_have_it():
    sentence = told(lambda p: p.logits_layout == "transposed" and p.dims)
    assert "logits-layout=transposed" in sentence or "dimensions after the classes" in sentence
    assert sentence.startswith(f"{sum(p.logits_layout == 'transposed' and bool(p.dims) for p in FULL)} of {len(FULL)} ")


def test_presence_of_options_and_sizes_are_named():
    assert "all of them with label smoothing (" in told(lambda p: p.label_smoothing > 0)
    assert "all of them with ignored rows" in told(lambda p: p.ignored > 0 and p.has_index_target)
    assert "with C of 129 or more" in told(lambda p: p.num_classes > 128).replace("C of 130", "C of 129")
    assert "with class weights and label smoothing" in told(lambda p: p.weight != "none" and p.label_smoothing > 0)


def test_nothing_is_told_where_everything_fails_or_failures_share_nothing():
    assert told(lambda _: True) == f"{len(FULL)} of {len(FULL)} problems fail"
    plain, weighted = Problem(batch_size=1), Problem(batch_size=8, num_classes=300, weight="random", reduction="sum")
    assert pattern.common([plain, weighted], [Problem(batch_size=2)]) == "2 of 3 problems fail"


@given(st.sets(st.sampled_from(FULL), min_size=1))
def test_what_is_told_is_true_of_every_failure(failed):
    sentence = pattern.common(list(failed), [p for p in FULL if p not in failed])
    if "such)" in sentence:
        counts = sentence.rpartition("(")[2].split(" of ")
        assert int(counts[0]) == len(failed) <= int(counts[1].partition(" ")[0])


def test_one_problem_fails_and_two_fail():
    assert pattern.common([Problem()], [Problem(batch_size=2)]).startswith("1 of 2 problems fails, all of them")
    assert pattern.common([Problem()], []) == "1 of 1 problem fails"


def test_a_size_is_not_told_where_the_counter_example_is_smaller_or_many_of_that_size_pass():
    large, small = [Problem(batch_size=n) for n in (16, 32, 64)], [Problem(batch_size=n) for n in range(1, 10)]
    assert "16 rows or more (3 of 3 such)" in pattern.common(large, small)
    assert "16 rows or more" in pattern.common(large, small, [Problem(batch_size=20)])
    assert pattern.common(large, small, [Problem(batch_size=1)]) == "3 of 12 problems fail"
    assert pattern.common(large, [*small, Problem(batch_size=128)]) == "3 of 13 problems fail"
